"""Scans to label: every point of the file in order, with all its other columns.

    x y z [red green blue] [anything]          PLY, LAS, PCD, .npy, .bin, or a scene with a cloud

Non-finite points keep their position in the order. Input columns with the name of an output column are renamed `input_NAME`,
so nothing in a PLY is lost except lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Bool, Float32, Int64, Shaped, UInt8
from ov3d.common.readers.cloud_files import READERS, is_cloud_file
from ov3d.common.readers.detect import load_scene
from ov3d.common.readers.layout import choose_origin
from ov3d.common.readers.ply import read_vertices, vertex_points
from ov3d.common.readers.raw_points import RawPoints, usable
from ov3d.common.readers.scaling import check_scale
from ov3d.common.scenes.scene import Scene

BLOCK_POINTS = 1 << 19
PLY_TYPES = {
    **{f"i{size}": name for size, name in ((1, "char"), (2, "short"), (4, "int"))},
    **{f"u{size}": name for size, name in ((1, "uchar"), (2, "ushort"), (4, "uint"))},
    "f4": "float",
    "f8": "double",
}
"""PLY's names for NumPy's types."""
_OURS = ("label", "score", "red", "green", "blue")


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """A cloud in file order.

    Attributes:
        path: the file.
        columns: values of every point, ready to be written, positions first.
        xyz: finite positions relative to an origin near them, metres.
        rgb: colours of those points, or None.
        finite: which points of the file have finite positions.
        up: unit vector against gravity.
        notes: the reader's remarks.
        scene: the scene that the cloud belongs to; None for a lone file.
    """

    path: Path
    columns: Mapping[str, Shaped[Array, " n"]]
    xyz: Float32[Array, "m 3"]
    rgb: UInt8[Array, "m 3"] | None
    finite: Bool[Array, " n"]
    up: tuple[float, float, float] = (0.0, 0.0, 1.0)
    notes: tuple[str, ...] = ()
    scene: Scene | None = None

    def __len__(self) -> int:
        return len(self.finite)

    @property
    def num_dropped(self) -> int:
        """Points of the file that are not finite."""
        return len(self) - len(self.xyz)


def read_scan(path: Path, *, layout: str | None = None, scale: float | None = None) -> Scan:
    """Read a cloud, keeping every point.

    Args:
        path: a cloud file, or a scene that has a cloud.
        layout: how a scene is stored; detected by default.
        scale: metres per unit of the file; by default 1.

    Raises:
        DataError: the file does not exist, cannot be read, or has no point with finite coordinates.
        UsageError: the scale is not positive.
    """
    check_scale(scale)
    if not path.exists():
        raise DataError(f"Scan {path} does not exist.", "Check the path.")
    if layout is not None or path.is_dir() or path.suffix.lower() == ".pth":
        return _from_scene(load_scene(path, layout=layout, scale=scale), path)
    if not is_cloud_file(path):
        raise DataError(f"{path} is not a known type of point cloud.", f"Known: {', '.join(READERS)}, .pth.")
    if path.suffix.lower() == ".ply":
        vertices = read_vertices(path)
        raw = vertex_points(vertices, path)
        return _scan(path, raw, _ply_columns(vertices), scale)
    raw = READERS[path.suffix.lower()](path)
    return _scan(path, raw, _columns(raw), scale)


def _scan(path: Path, raw: RawPoints, columns: dict[str, Shaped[Array, " n"]], scale: float | None) -> Scan:
    finite = usable(raw.xyz)
    if not finite.any():
        what = " with finite coordinates." if len(raw.xyz) else "."
        raise DataError(f"{path} has no points{what}", "Export it again.")
    whole = bool(finite.all())
    xyz, rgb = (raw.xyz, raw.rgb) if whole else (raw.xyz[finite], None if raw.rgb is None else raw.rgb[finite])
    factor = 1.0 if scale is None else scale
    origin = np.asarray(choose_origin(xyz if factor == 1 else xyz * factor))
    metres = np.empty(xyz.shape, np.float32)
    for rows in _blocks(len(xyz)):
        metres[rows] = xyz[rows] * factor - origin
    return Scan(path, columns, metres, rgb, finite, notes=tuple(raw.notes))


def _from_scene(scene: Scene, path: Path) -> Scan:
    """The cloud of any other layout; its reader has already left out non-finite points and noted it."""
    cloud = scene.cloud
    if cloud is None or not len(cloud):
        raise DataError(f"Scene {scene.name} has no points.", "Give a scan: a PLY, LAS, PCD or .npy file.")
    xyz = cloud.xyz + np.asarray(scene.world.origin)
    raw = RawPoints(xyz, cloud.rgb, cloud.labels, cloud.instances, cloud.intensity)
    everything = np.ones(len(cloud), bool)
    return Scan(path, _columns(raw), cloud.xyz, cloud.rgb, everything, scene.world.up, scene.notes, scene)


def _ply_columns(vertices: Any) -> dict[str, Shaped[Array, " n"]]:
    """The unchanged columns of a PLY's vertices, renamed where they clash with ours."""
    names = [name for name in vertices.dtype.names if vertices.dtype[name].kind in "fiu"]
    taken = {name.lower() for name in names}
    columns = {}
    place = {"x": 0, "y": 1, "z": 2}
    for name in sorted(names, key=lambda name: place.get(name.lower(), 3)):
        new = name if name.lower() not in _OURS else f"input_{name}"
        if (
            new == name or new.lower() not in taken
        ):  # in a file that was labelled before, the original input's columns win
            columns[new] = vertices[name]
    return columns


def _columns(raw: RawPoints) -> dict[str, Shaped[Array, " n"]]:
    with np.errstate(invalid="ignore", over="ignore"):
        single = raw.xyz.astype(np.float32)
        exact = bool(((single == raw.xyz) | ~np.isfinite(raw.xyz)).all())
    columns: dict[str, Shaped[Array, " n"]] = {
        axis: (single if exact else raw.xyz)[:, k] for k, axis in enumerate("xyz")
    }
    if raw.rgb is not None:
        columns |= {f"input_{name}": raw.rgb[:, k] for k, name in enumerate(("red", "green", "blue"))}
    for name, values in (("input_label", raw.labels), ("instance", raw.instances), ("intensity", raw.intensity)):
        if values is not None:
            columns[name] = values if values.dtype.str.lstrip("<>|=") in PLY_TYPES else _narrower(values)
    return columns


def _narrower(values: Shaped[Array, " n"]) -> Shaped[Array, " n"]:
    """Numbers of a type that PLY lacks, converted to the nearest it has."""
    if values.dtype.kind == "f":
        return values.astype(np.float64)
    wide: Int64[Array, " n"] = values.astype(np.int64)
    limits = np.iinfo(np.int32)
    return wide.clip(limits.min, limits.max).astype(np.int32)


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, BLOCK_POINTS):
        yield slice(start, min(start + BLOCK_POINTS, count))
