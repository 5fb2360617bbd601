"""Points from a LAS or LAZ file, the format of surveys and laser scanners; needs the package `laspy` (extra `las`).

Coordinates are integers times a scale plus an offset, exact in fp64: a cloud in UTM keeps its millimetres, because the
scene's origin is subtracted before anything is rounded to fp32. Labels come from the extra dimension `label` if present,
else from `classification`; 16-bit colours lose their lower 8 bits. Every point format has a 16-bit intensity field; if it
is zero everywhere it was not measured, and the cloud has no intensity.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from ov3d.common.base.errors import DataError, MissingModelError
from ov3d.common.base.shapes import Array, Shaped, UInt8
from ov3d.common.readers.raw_points import RawPoints, colours_8bit

_AGAIN = "It is truncated or damaged: export it again."


def read_las(path: Path) -> RawPoints:
    """Read a cloud.

    Raises:
        MissingModelError: `laspy`, or its decompressor for .laz, is not installed.
        DataError: missing, not a LAS file, or truncated.
    """
    if not path.is_file():
        raise DataError(f"Point cloud {path} does not exist.", "Check the path.")
    data = _read(path)
    dimensions = set(data.point_format.dimension_names)
    xyz = np.column_stack([np.asarray(data[axis], dtype=np.float64) for axis in ("x", "y", "z")])
    labels, instances = (
        next((np.asarray(data[name]) for name in known if name in dimensions), None)
        for known in (("label", "classification"), ("instance",))
    )
    intensity = np.asarray(data["intensity"])
    return RawPoints(
        xyz,
        _colours(data, dimensions),
        _one_number(labels),
        _one_number(instances),
        intensity if intensity.any() else None,
    )


def _read(path: Path) -> Any:
    """Read with laspy, whose errors are of many unrelated types."""
    try:
        import laspy
    except ImportError:
        raise MissingModelError(
            f"Reading {path} needs the package laspy, which is not installed.", "Run: pip install 'ov3d[las]'"
        ) from None
    if path.suffix.lower() == ".laz" and not laspy.LazBackend.detect_available():
        raise MissingModelError(
            f"{path} is compressed, and no decompressor for laspy is installed.", "Run: pip install 'ov3d[las]'"
        )
    _check_length(path)
    try:
        data = laspy.read(str(path))
    except Exception as error:
        raise _unreadable(path, error) from None
    stated = data.header.point_count
    if len(data) != stated:
        raise DataError(f"{path} states {stated} points but has {len(data)}.", _AGAIN)
    return data


def _check_length(path: Path) -> None:
    """Check that a LAS file is large enough for its stated points: laspy allocates memory for as many as the header states.

    The public header (LAS 1.0 to 1.4): version at byte 24, offset of the points at 96, format at 104 (its top bit marks
    compression), bytes per point at 105, number of points at 107, from 1.4 on also in 64 bits at 247.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(375)
    except OSError as error:
        raise DataError(f"The cloud {path} cannot be read: {error.strerror}.", "Check its permissions.") from None
    if len(head) < 227 or head[:4] != b"LASF":
        raise DataError(f"The cloud {path} cannot be read as LAS: it has no LAS header.", _AGAIN)
    offset, _, kind, size, count = struct.unpack_from("<IIBHI", head, 96)
    if head[25] >= 4 and len(head) >= 255:
        (count,) = struct.unpack_from("<Q", head, 247)
    present = path.stat().st_size - offset
    least = count // 256 if kind & 0x80 else count * size  # even compressed, a point takes some bits
    if present < least:
        raise DataError(f"{path} states {count} points but has only {max(0, present)} bytes of them.", _AGAIN)


def _unreadable(path: Path, error: Exception) -> DataError:
    why = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"The cloud {path} cannot be read as LAS: {why}.", _AGAIN)


def _colours(data: Any, dimensions: set[str]) -> UInt8[Array, "n 3"] | None:
    if not {"red", "green", "blue"} <= dimensions:
        return None
    rgb = np.column_stack([np.asarray(data[name]) for name in ("red", "green", "blue")])
    return colours_8bit(rgb) if rgb.any() else None  # some files use a colour format without colours


def _one_number(values: Shaped[Array, "*shape"] | None) -> Shaped[Array, " n"] | None:
    return values if values is not None and values.ndim == 1 and values.dtype.kind in "fiu" else None
