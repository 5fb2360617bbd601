"""Points from a LAS or LAZ file, as surveys and laser scanners write them; needs the package `laspy` (extra `las`).

Coordinates are whole numbers times a scale plus an offset, exact in fp64: a cloud in UTM keeps its millimetres, because the
scene's origin is subtracted before anything is rounded to fp32. Labels are the extra dimension `label` where there is one,
else `classification`; colours of 16 bits lose their lower 8. Every point format has a field for intensity, 16 bits; where
it is zero everywhere nobody measured it, and the cloud has none.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from ov3d.common.base.errors import DataError, MissingModelError
from ov3d.common.base.shapes import Array, Shaped, UInt8
from ov3d.common.readers.raw_points import RawPoints, colours_8bit

_AGAIN = "It is cut short or damaged: export it again."


def read_las(path: Path) -> RawPoints:
    """Read a cloud.

    Raises:
        MissingModelError: `laspy` is not installed, or for .laz its decompressor.
        DataError: it is not there, no LAS, or cut short.
    """
    if not path.is_file():
        raise DataError(f"There is no cloud at {path}.", "Check the path.")
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
    """What laspy reads; its own errors are many and not all of one kind."""
    try:
        import laspy
    except ImportError:
        raise MissingModelError(
            f"{path} is LAS, which the package laspy reads, and it is not installed.", "Run: pip install 'ov3d[las]'"
        ) from None
    if path.suffix.lower() == ".laz" and not laspy.LazBackend.detect_available():
        raise MissingModelError(
            f"{path} is compressed, and no decompressor of laspy is installed.", "Run: pip install 'ov3d[las]'"
        )
    _check_length(path)
    try:
        data = laspy.read(str(path))
    except Exception as error:
        raise _unreadable(path, error) from None
    stated = data.header.point_count
    if len(data) != stated:
        raise DataError(f"{path} says {stated} points and has {len(data)}.", _AGAIN)
    return data


def _check_length(path: Path) -> None:
    """See that the points which a LAS announces can be in it: laspy makes room for as many as the header says.

    The public header (LAS 1.0 to 1.4): version at byte 24, offset of the points at 96, format at 104 (its top bit marks
    compression), bytes a point at 105, their number at 107, from 1.4 on also in 64 bits at 247.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(375)
    except OSError as error:
        raise DataError(f"The cloud {path} cannot be read: {error.strerror}.", "Check its permissions.") from None
    if len(head) < 227 or head[:4] != b"LASF":
        raise DataError(f"The cloud {path} cannot be read as LAS: it has no header of LAS.", _AGAIN)
    offset, _, kind, size, count = struct.unpack_from("<IIBHI", head, 96)
    if head[25] >= 4 and len(head) >= 255:
        (count,) = struct.unpack_from("<Q", head, 247)
    present = path.stat().st_size - offset
    least = count // 256 if kind & 0x80 else count * size  # a point takes some bits at least, compressed
    if present < least:
        raise DataError(f"{path} says {count} points and has {max(0, present)} bytes of them.", _AGAIN)


def _unreadable(path: Path, error: Exception) -> DataError:
    why = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"The cloud {path} cannot be read as LAS: {why}.", _AGAIN)


def _colours(data: Any, dimensions: set[str]) -> UInt8[Array, "n 3"] | None:
    if not {"red", "green", "blue"} <= dimensions:
        return None
    rgb = np.column_stack([np.asarray(data[name]) for name in ("red", "green", "blue")])
    return colours_8bit(rgb) if rgb.any() else None  # formats with colours are used without them, too


def _one_number(values: Shaped[Array, "*shape"] | None) -> Shaped[Array, " n"] | None:
    return values if values is not None and values.ndim == 1 and values.dtype.kind in "fiu" else None
