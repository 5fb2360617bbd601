"""Labels of LiDAR sweeps in the official formats, as class ids of a data set and ids of objects.

    SemanticKITTI       .label            uint32: raw class in the low 16 bits, instance in the high 16
    Panoptic nuScenes   _panoptic.npz     `data`, u16: general class (0-31) x 1000 + instance
    nuScenes-lidarseg   _lidarseg.bin     u8: general class

Class ids of a scene count the data set's classes without the ignored one: id 0 is the first class that takes part in scores.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.npy_files import UNREADABLE
from ov3d.common.base.shapes import Array, Int32, Int64
from ov3d.common.datasets import DatasetSpec
from ov3d.common.scenes.scene import IGNORE
from ov3d.common.scenes.sweep import object_ids

NUSCENES_FACTOR = 1000
"""A panoptic nuScenes label is class x 1000 + instance."""


def class_names(spec: DatasetSpec) -> tuple[str, ...]:
    """Names of a scene's class ids: those of the data set that take part in scores."""
    return tuple(one.name for one in spec.classes if one.kind != "ignored")


def read_semantickitti(path: Path, num_points: int) -> tuple[Int64[Array, " n"], Int64[Array, " n"]]:
    """Raw classes and instance numbers of a `.label` file.

    Raises:
        DataError: it cannot be read, or does not have one label for each point.
    """
    packed = _array(path, "<u4", num_points).astype(np.int64)
    return packed & 0xFFFF, packed >> 16


def read_nuscenes_panoptic(path: Path, num_points: int) -> tuple[Int64[Array, " n"], Int64[Array, " n"]]:
    """General classes and instance numbers of a `_panoptic.npz`; raises as `read_semantickitti` does."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            packed = archive["data"]
    except KeyError:
        raise DataError(f"The labels {path} have no array named data.", "Download them again.") from None
    except (*UNREADABLE, zipfile.BadZipFile):
        raise DataError(f"The labels {path} cannot be read.", "Download them again.") from None
    if packed.dtype.kind not in "iu" or packed.shape != (num_points,):
        raise _other_length(path, packed.shape, num_points)
    packed = packed.astype(np.int64)
    return packed // NUSCENES_FACTOR, packed % NUSCENES_FACTOR


def read_lidarseg(path: Path, num_points: int) -> Int64[Array, " n"]:
    """General classes of a `_lidarseg.bin`; raises as `read_semantickitti` does."""
    return _array(path, "u1", num_points).astype(np.int64)


def scene_labels(
    spec: DatasetSpec, raw: Int64[Array, " n"], numbers: Int64[Array, " n"] | None, path: Path
) -> tuple[Int32[Array, " n"], Int32[Array, " n"] | None]:
    """Class ids of a scene, and ids of objects (of things alone).

    Args:
        spec: the data set.
        raw: ids of the label file.
        numbers: instance numbers of the label file, or none.
        path: the file, to name.

    Raises:
        DataError: ids that the data set's class map does not know; all of them are named.
    """
    table = spec.id_table("truth")
    known = (raw >= 0) & (raw < len(table))
    classes = np.full(len(raw), -2, np.int64)
    classes[known] = table[raw[known]]
    if (classes == -2).any():
        unknown = ", ".join(str(one) for one in np.unique(raw[classes == -2])[:8])
        raise DataError(
            f"{path} holds ids that the class map of {spec.title} does not know: {unknown}.", "Check the map."
        )
    order = np.full(len(spec.classes) + 1, IGNORE, np.int32)
    scored = [one.id for one in spec.classes if one.kind != "ignored"]
    order[scored] = np.arange(len(scored))
    labels = order[classes]
    if numbers is None:
        return labels, None
    things = np.zeros(len(scored) + 1, bool)
    things[[number for number, idx in enumerate(scored) if idx in spec.things]] = True
    return labels, object_ids(labels, np.where(things[labels], numbers, 0).astype(np.int32), IGNORE)


def _array(path: Path, dtype: str, num_points: int) -> Array:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"The labels {path} cannot be read: {error.strerror}.", "Check the path.") from None
    if len(data) != num_points * np.dtype(dtype).itemsize:
        raise _other_length(path, (len(data) / np.dtype(dtype).itemsize,), num_points)
    return np.frombuffer(data, dtype)


def _other_length(path: Path, shape: tuple[float, ...], num_points: int) -> DataError:
    found = "x".join(f"{size:,g}" for size in shape)
    return DataError(f"{path} holds {found} labels for a sweep of {num_points:,} points.", "They are of another sweep.")
