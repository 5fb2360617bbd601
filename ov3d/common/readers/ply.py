"""Points from a PLY file: x, y, z, and where there are any red, green, blue, label and instance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ov3d.common.errors import DataError
from ov3d.common.readers.layout import choose_origin
from ov3d.common.scene import IGNORE, PointCloud, World
from ov3d.common.shapes import Array, Float64, Int32, Shaped, UInt8

_COLOURS = (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue"))
_LABELS = ("label", "scalar_label")
_INSTANCES = ("instance", "scalar_instance")


def read_ply(path: Path, *, num_classes: int) -> tuple[PointCloud, World, list[str]]:
    """Read a cloud.

    Args:
        path: an ASCII or binary PLY; a mesh is read as its vertices.
        num_classes: labels from here on have no name and become `IGNORE`; with 0, labels are left out.

    Returns:
        The points relative to the world's origin (zero unless coordinates are so large that fp32 would lose millimetres),
        the world, and notes on what was left out.

    Raises:
        DataError: no PLY, cut short, without points or without coordinates.
    """
    vertices = _vertices(path)
    names = {name.lower(): name for name in vertices.dtype.names or ()}
    missing = [axis for axis in ("x", "y", "z") if axis not in names]
    if missing:
        raise DataError(f"The vertices of {path} have no {', '.join(missing)}.", "Export the cloud with coordinates.")
    xyz = np.column_stack([vertices[names[axis]].astype(np.float64) for axis in ("x", "y", "z")])
    finite = np.isfinite(xyz).all(axis=1)
    notes: list[str] = []
    if not finite.any():
        raise DataError(
            f"{path} holds no point" + (" with finite coordinates." if len(xyz) else "."), "Export it again."
        )
    if not finite.all():
        notes.append(f"{int((~finite).sum())} of {len(xyz)} points of {path.name} are not finite and are left out")
    xyz = xyz[finite]
    labels = _ids(vertices, names, _LABELS, finite)
    if labels is not None and num_classes == 0:
        notes.append(f"the labels of {path.name} are left out: there is no classes.txt that names its ids")
        labels = None
    if labels is not None:
        labels = np.where((labels >= 0) & (labels < num_classes), labels, np.int32(IGNORE))
    instances = _ids(vertices, names, _INSTANCES, finite)
    world = World(origin=choose_origin(xyz))
    cloud = PointCloud(
        xyz=(xyz - np.asarray(world.origin)).astype(np.float32),
        rgb=_colours(vertices, names, finite),
        labels=labels,
        instances=None if instances is None else np.maximum(instances, np.int32(IGNORE)),
    )
    return cloud, world, notes


def _vertices(path: Path) -> Any:
    """The vertex element as a structured array."""
    from plyfile import PlyData, PlyParseError

    if not path.is_file():
        raise DataError(f"There is no cloud at {path}.", "Check the path.")
    try:
        data = PlyData.read(str(path), known_list_len={"face": {"vertex_indices": 3, "vertex_index": 3}})
    except PlyParseError as error:
        if "list length" not in str(error):
            raise _unreadable(path, error) from None
        data = _read_polygons(path)
    except (OSError, ValueError, MemoryError, OverflowError, StopIteration) as error:
        raise _unreadable(path, error) from None
    if "vertex" not in data:
        elements = ", ".join(element.name for element in data) or "none"
        raise DataError(f"{path} has no vertex element (its elements: {elements}).", "Export it as a point cloud.")
    return data["vertex"].data


def _read_polygons(path: Path) -> Any:
    """Read a mesh whose faces are not all triangles: slower, since no face can be found without the one before it."""
    from plyfile import PlyData, PlyParseError

    try:
        return PlyData.read(str(path))
    except (PlyParseError, OSError, ValueError, MemoryError, OverflowError, StopIteration) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: BaseException) -> DataError:
    why = " ".join(str(error).split()) or type(error).__name__
    return DataError(
        f"The cloud {path} cannot be read as PLY: {why}.", "It is cut short or of another format: export it again."
    )


def _colours(
    vertices: Shaped[Array, " n"], names: dict[str, str], keep: Shaped[Array, " n"]
) -> UInt8[Array, "m 3"] | None:
    for triple in _COLOURS:
        if all(name in names for name in triple):
            values = np.column_stack([vertices[names[name]] for name in triple])[keep]
            if values.dtype == np.uint8:
                return values
            if values.dtype.kind == "f":  # in [0, 1], as float colours are
                return (np.nan_to_num(values.astype(np.float64)).clip(0, 1) * 255 + 0.5).astype(np.uint8)
            if values.dtype == np.uint16:
                return (values >> 8).astype(np.uint8)
            return values.clip(0, 255).astype(np.uint8)
    return None


def _ids(
    vertices: Shaped[Array, " n"], names: dict[str, str], known: tuple[str, ...], keep: Shaped[Array, " n"]
) -> Int32[Array, " m"] | None:
    for name in known:
        if name in names:
            values: Float64[Array, " m"] = vertices[names[name]][keep].astype(np.float64)
            return np.where(np.isfinite(values) & (np.abs(values) < 2**31), values, IGNORE).astype(np.int32)
    return None
