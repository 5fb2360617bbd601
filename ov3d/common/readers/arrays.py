"""Clouds without photographs, in the formats that point networks use.

    pointcept   a folder: coord.npy (n, 3); optionally color.npy (n, 3), segment20.npy or segment.npy (n), instance.npy (n)
    openscene   a .pth file: (xyz, rgb / 127.5 - 1, label) as torch.save wrote it; labels from 255 on are unknown
    npy         a .npy file: (n, 3) xyz, (n, 6) with rgb, or (n, 7) with rgb and label

Class names come from classes.txt beside the arrays, or from ScanNet's list for segment20.npy; labels without names are
left out. No file can run code: object arrays are refused, and torch.load reads weights only.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.npy_files import read_npy
from ov3d.common.base.shapes import Array, Shaped, UInt8
from ov3d.common.datasets import load_dataset
from ov3d.common.readers.class_names import read_classes
from ov3d.common.readers.layout import Layout, scene_name
from ov3d.common.readers.raw_points import RawPoints, as_fp64, finished
from ov3d.common.scenes.scene import Scene

_AGAIN = "It is truncated or damaged: export it again."


def load_pointcept(path: Path) -> Scene:
    """Read a folder of arrays; raises `DataError` naming the faulty file."""
    if not (path / "coord.npy").is_file():
        raise DataError(f"{path / 'coord.npy'} does not exist.", "Check the path.")
    arrays = {file.stem: read_npy(file) for file in sorted(path.glob("*.npy"))}
    segment = arrays.get("segment20", arrays.get("segment"))
    classes = read_classes(path / "classes.txt")
    if not classes and "segment20" in arrays:
        classes = load_dataset("scannet").names
    parts = (arrays["coord"], arrays.get("color"), segment, arrays.get("instance"))
    return _scene(path, "pointcept", _raw(path, parts, (0.0, 255.0)), classes)


def load_openscene(path: Path) -> Scene:
    """Read a .pth file; raises `DataError` if it is not one or holds something else."""
    parts = _read_pth(path)
    if not isinstance(parts, (tuple, list)) or len(parts) < 2:
        raise DataError(f"{path} does not hold (xyz, rgb, label).", "It should be an OpenScene scene file.")
    xyz, rgb, label = (*(_as_array(part) for part in parts[:3]), None)[:3]
    raw = _raw(path, (xyz, rgb, label, None), (-1.0, 1.0))
    return _scene(path, "openscene", raw, read_classes(path.parent / "classes.txt"))


def load_npy(path: Path) -> Scene:
    """Read one array of rows; raises `DataError` if its columns are not x y z [r g b [label]]."""
    classes = read_classes(path.parent / "classes.txt")
    return _scene(path, "npy", read_npy_points(path), classes)


def read_npy_points(path: Path) -> RawPoints:
    """The rows of an array as points; raises like `load_npy`."""
    rows = read_npy(path)
    if rows.ndim != 2 or rows.shape[1] not in (3, 6, 7):
        raise DataError(
            f"{path} has shape {rows.shape}.", "Its columns should be x y z, x y z r g b, or x y z r g b label."
        )
    rgb = rows[:, 3:6] if rows.shape[1] > 3 else None
    label = rows[:, 6] if rows.shape[1] > 6 else None
    colour_range = (0.0, 1.0) if rgb is not None and rgb.size and rgb.max() <= 1 else (0.0, 255.0)
    return _raw(path, (rows[:, :3], rgb, label, None), colour_range)


def _scene(path: Path, layout: str, raw: RawPoints, classes: tuple[str, ...]) -> Scene:
    cloud, world, notes = finished(raw, path, num_classes=len(classes))
    return Scene(scene_name(path), path, layout, cloud=cloud, world=world, classes=classes, notes=tuple(notes))


def _raw(path: Path, parts: tuple[Array | None, ...], colour_range: tuple[float, float]) -> RawPoints:
    """Points from positions, colours, labels and instances; all but the first may be None."""
    xyz, rgb, label, instance = parts
    if xyz is None or xyz.ndim != 2 or xyz.shape[1] != 3 or xyz.dtype.kind not in "fiu" or not len(xyz):
        raise DataError(f"The positions in {path} are {_described(xyz)}.", "They should be numbers of shape (n, 3).")
    for what, part, shape in (
        ("colours", rgb, (len(xyz), 3)),
        ("labels", label, (len(xyz),)),
        ("instances", instance, (len(xyz),)),
    ):
        if part is not None and (part.shape != shape or part.dtype.kind not in "fiub"):
            raise DataError(
                f"The {what} in {path} are {_described(part)}.", f"They should be numbers of shape {shape}."
            )
    return RawPoints(as_fp64(xyz), None if rgb is None else _colours(rgb, colour_range), label, instance)


def _colours(rgb: Shaped[Array, "n 3"], colour_range: tuple[float, float]) -> UInt8[Array, "n 3"]:
    low, high = colour_range
    scaled = (np.nan_to_num(as_fp64(rgb)) - low) / (high - low)
    return (scaled.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _described(part: Array | None) -> str:
    return "missing" if part is None else f"of type {part.dtype} and shape {part.shape}"


def _read_pth(path: Path) -> Any:
    """Load what torch.save wrote: tensors and plain NumPy arrays only, since anything else could run code."""
    import torch

    make_array = np.zeros(1).__reduce__()[0]
    arrays: list[Any] = [
        (make_array, "numpy.core.multiarray._reconstruct"),  # as NumPy 1 named it
        (make_array, "numpy._core.multiarray._reconstruct"),
        np.ndarray,
        np.dtype,
        *(type(np.dtype(name)) for name in ("f2", "f4", "f8", "u1", "u2", "u4", "i1", "i2", "i4", "i8")),
    ]
    try:
        with torch.serialization.safe_globals(arrays):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise DataError(
            f"{path} is truncated or holds something other than arrays.", "It should hold (xyz, rgb, label) as arrays."
        ) from None
    except Exception as error:  # torch raises many kinds of errors for damaged files
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path} cannot be read: {first.rstrip('.')}.", _AGAIN) from None


def _as_array(part: Any) -> Array | None:
    import torch

    if isinstance(part, torch.Tensor):
        return part.numpy()
    return part if isinstance(part, np.ndarray) else None


def _is_file(ending: str) -> Any:
    return lambda path: path.is_file() and path.suffix.lower() == ending


POINTCEPT = Layout(
    name="pointcept",
    looks_for="coord.npy",
    matches=lambda path: (path / "coord.npy").is_file(),
    load=load_pointcept,
)
OPENSCENE = Layout(name="openscene", looks_for="a .pth file", matches=_is_file(".pth"), load=load_openscene)
NPY = Layout(name="npy", looks_for="a .npy file", matches=_is_file(".npy"), load=load_npy)
