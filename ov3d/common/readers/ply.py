"""Points from a PLY file: x, y, z, and optionally red, green, blue, label, instance and intensity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Shaped, UInt8
from ov3d.common.readers.raw_points import RawPoints, as_fp64, colours_8bit, finished
from ov3d.common.scenes.scene import PointCloud, World

_COLOURS = (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue"))
_LABELS = ("label", "scalar_label")
_INSTANCES = ("instance", "scalar_instance")
_INTENSITIES = ("intensity", "scalar_intensity")


def read_ply(path: Path, *, num_classes: int) -> tuple[PointCloud, World, list[str]]:
    """Read a cloud.

    Args:
        path: an ASCII or binary PLY; a mesh is read as its vertices.
        num_classes: labels from this value up have no name and become `IGNORE`; with 0, labels are left out.

    Returns:
        The points relative to the world's origin (zero unless coordinates are so large that fp32 would lose millimetres),
        the world, and notes on what was left out.

    Raises:
        DataError: not a PLY, truncated, without points or without coordinates.
    """
    return finished(read_ply_points(path), path, num_classes=num_classes)


def read_ply_points(path: Path) -> RawPoints:
    """The unfiltered vertices of a PLY; raises like `read_ply`."""
    return vertex_points(read_vertices(path), path)


def vertex_points(vertices: Shaped[Array, " n"], path: Path) -> RawPoints:
    """Points from the columns of `read_vertices`; raises `DataError` if coordinates are missing."""
    names = {name.lower(): name for name in vertices.dtype.names or () if vertices.dtype[name].kind in "fiu"}
    missing = [axis for axis in ("x", "y", "z") if axis not in names]
    if missing:
        raise DataError(f"The vertices of {path} have no {', '.join(missing)}.", "Export the cloud with coordinates.")
    xyz = np.column_stack([as_fp64(vertices[names[axis]]) for axis in ("x", "y", "z")])
    labels, instances, intensity = (
        next((vertices[names[name]] for name in known if name in names), None)
        for known in (_LABELS, _INSTANCES, _INTENSITIES)
    )
    return RawPoints(xyz, _colours(vertices, names), labels, instances, intensity)


def read_vertices(path: Path) -> Any:
    """The vertex element as a structured array, memory-mapped if possible; raises like `read_ply`."""
    from plyfile import PlyData, PlyParseError

    if not path.is_file():
        raise DataError(f"Point cloud {path} does not exist.", "Check the path.")
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
    """Read a mesh whose faces are not all triangles: slower, since each face must be parsed to find the next."""
    from plyfile import PlyData, PlyParseError

    try:
        return PlyData.read(str(path))
    except (PlyParseError, OSError, ValueError, MemoryError, OverflowError, StopIteration) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: BaseException) -> DataError:
    why = " ".join(str(error).split()) or type(error).__name__
    return DataError(
        f"The cloud {path} cannot be read as PLY: {why}.", "It is truncated or of another format: export it again."
    )


def _colours(vertices: Shaped[Array, " n"], names: dict[str, str]) -> UInt8[Array, "n 3"] | None:
    for triple in _COLOURS:
        if all(name in names for name in triple):
            return colours_8bit(np.column_stack([vertices[names[name]] for name in triple]))
    return None
