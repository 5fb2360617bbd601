"""Labels of LiDAR sweeps in the official formats, as class ids of a data set and ids of objects.

    SemanticKITTI       .label            uint32: raw class in the low 16 bits, instance in the high 16
    Panoptic nuScenes   _panoptic.npz     `data`, u16: general class (0-31) x 1000 + instance
    nuScenes-lidarseg   _lidarseg.bin     u8: general class

Class ids of a scene count the data set's classes without the ignored one: id 0 is the first class that takes part in scores.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from typing import Literal

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.npy_files import UNREADABLE
from ov3d.common.base.shapes import Array, Int32, Int64
from ov3d.common.datasets import DatasetSpec
from ov3d.common.datasets.loader import UNKNOWN_ID
from ov3d.common.scenes.scene import IGNORE
from ov3d.common.scenes.sweep import object_ids

NUSCENES_FACTOR = 1000
"""A panoptic nuScenes label is class x 1000 + instance."""


NAMED = 8
"""Unknown ids that an error names."""


def scored_classes(spec: DatasetSpec) -> list[int]:
    """The data set's class behind each class id of a scene: those that take part in scores."""
    return [one.id for one in spec.classes if one.kind != "ignored"]


def class_names(spec: DatasetSpec) -> tuple[str, ...]:
    """Names of a scene's class ids."""
    return tuple(spec.classes[idx].name for idx in scored_classes(spec))


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
        with path.open("rb") as file:  # NumPy leaves a damaged archive open when it is given a path
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray) or "data" not in archive:
                raise DataError(f"The labels {path} have no array named data.", "Download them again.")
            packed = archive["data"]
    except (
        *UNREADABLE,
        zipfile.BadZipFile,
        zlib.error,
        RuntimeError,
        struct.error,
    ):  # the last two: odd flags, lengths
        raise DataError(f"The labels {path} cannot be read.", "Download them again.") from None
    if packed.dtype.kind not in "iu" or packed.ndim != 1:
        shape = "x".join(map(str, packed.shape)) or "one number"
        raise DataError(
            f"The labels {path} are {packed.dtype} {shape}, not whole numbers in a row.", "Write them anew."
        )
    if len(packed) != num_points:
        raise _other_length(path, f"{len(packed):,} labels", num_points)
    packed = packed.astype(np.int64)
    return packed // NUSCENES_FACTOR, packed % NUSCENES_FACTOR


def read_lidarseg(path: Path, num_points: int) -> Int64[Array, " n"]:
    """General classes of a `_lidarseg.bin`; raises as `read_semantickitti` does."""
    return _array(path, "u1", num_points).astype(np.int64)


def scene_labels(
    spec: DatasetSpec,
    raw: Int64[Array, " n"],
    numbers: Int64[Array, " n"] | None,
    path: Path,
    side: Literal["truth", "prediction"] = "truth",
) -> tuple[Int32[Array, " n"], Int32[Array, " n"] | None]:
    """Class ids of a scene, and ids of objects (of things alone).

    Args:
        spec: the data set.
        raw: ids of the label file.
        numbers: instance numbers of the label file, or none.
        path: the file, to name.
        side: whose ids they are; nuScenes' truth and predictions number classes differently.

    Raises:
        DataError: ids that the data set's class map does not know, or a number of an object beyond 65,535.
    """
    table = spec.id_table(side)
    known = (raw >= 0) & (raw < len(table))
    classes = np.full(len(raw), UNKNOWN_ID, np.int64)
    classes[known] = table[raw[known]]
    if (classes == UNKNOWN_ID).any():
        unknown = np.unique(raw[classes == UNKNOWN_ID]).tolist()
        named = ", ".join(map(str, unknown[:NAMED])) + (f" and {len(unknown) - NAMED} more" * (len(unknown) > NAMED))
        raise DataError(
            f"{path} holds ids that the class map of {spec.title} does not know: {named}.",
            "Is it a file of this data set, whole and undamaged?",
        )
    order = np.full(len(spec.classes) + 1, IGNORE, np.int32)  # the last for `NO_CLASS`
    scored = scored_classes(spec)
    order[scored] = np.arange(len(scored))
    labels = order[classes]
    if numbers is None:
        return labels, None
    things = np.zeros(len(scored) + 1, bool)  # the last for `IGNORE`
    things[[number for number, idx in enumerate(scored) if idx in spec.things]] = True
    return labels, object_ids(labels, np.where(things[labels], numbers, 0).astype(np.int32), IGNORE)


def _array(path: Path, dtype: str, num_points: int) -> Array:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"The labels {path} cannot be read: {error.strerror}.", "Check the path.") from None
    size = np.dtype(dtype).itemsize
    if len(data) % size:
        raise DataError(f"The labels {path} have {len(data):,} bytes, not a multiple of {size}.", "Copy them again.")
    if len(data) != num_points * size:
        raise _other_length(path, f"{len(data) // size:,} labels", num_points)
    return np.frombuffer(data, dtype)


def _other_length(path: Path, found: str, num_points: int) -> DataError:
    return DataError(
        f"{path} holds {found} for a sweep of {num_points:,} points.", "It is cut short, or of another sweep."
    )
