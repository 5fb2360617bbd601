"""Points from a PCD file, the Point Cloud Library's format, in any of its three forms.

    # comments
    VERSION .7
    FIELDS x y z rgb label      SIZE 4 4 4 4 4      TYPE F F F F U      COUNT 1 1 1 1 1
    WIDTH n   HEIGHT 1   VIEWPOINT 0 0 0 1 0 0 0   POINTS n   DATA ascii | binary | binary_compressed

`binary` stores point after point; `binary_compressed` stores two u32 (bytes compressed, bytes uncompressed) and then, in LZF,
field after field. Colours are packed as 0xRRGGBB in one 32-bit number; a floating-point `rgb` has those bits.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Shaped, UInt8
from ov3d.common.readers.lzf import decompress
from ov3d.common.readers.raw_points import RawPoints, as_fp64, colours_8bit

TYPES = {
    ("F", 4): "f4",
    ("F", 8): "f8",
    **{("I", size): f"i{size}" for size in (1, 2, 4, 8)},
    **{("U", size): f"u{size}" for size in (1, 2, 4, 8)},
}
"""NumPy types by TYPE and SIZE."""

_AGAIN = "It is truncated or damaged: export it again."
_LONGEST_HEADER = 1 << 16
_NO_TURN = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class PcdHeader:
    """The header of a PCD.

    Attributes:
        fields: name, NumPy type and count of each field.
        num_points: number of points.
        data: `ascii`, `binary` or `binary_compressed`.
        viewpoint: pose of the sensor (x y z, quaternion w x y z).
        length: size of the header in bytes.
    """

    fields: tuple[tuple[str, str, int], ...]
    num_points: int
    data: str
    viewpoint: tuple[float, ...]
    length: int

    @property
    def dtype(self) -> np.dtype[np.void]:
        """One point; fields are named by position, since a file may use a name twice (`_` for padding)."""
        return np.dtype([(str(k), f"<{kind}", (count,)) for k, (_, kind, count) in enumerate(self.fields)])


def read_pcd(path: Path) -> RawPoints:
    """Read a cloud.

    Raises:
        DataError: missing, not a PCD, of an unknown type, without coordinates, or truncated.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"The cloud {path} cannot be read: {error.strerror}.", "Check the path.") from None
    header = _header(data, path)
    points = _points(data[header.length :], header, path)
    columns = {name.lower(): points[str(k)][:, 0] for k, (name, _, count) in enumerate(header.fields) if count == 1}
    missing = [axis for axis in ("x", "y", "z") if axis not in columns]
    if missing:
        found = ", ".join(name for name, _, _ in header.fields)
        raise DataError(
            f"The points of {path} have no {', '.join(missing)} (they have {found}).", "Export them with it."
        )
    xyz = np.column_stack([as_fp64(columns[axis]) for axis in ("x", "y", "z")])
    notes = []
    if header.viewpoint != _NO_TURN:
        notes.append(f"{path.name} has a sensor pose (VIEWPOINT), which is ignored: points are read as they are")
    instances = next((columns[name] for name in ("instance", "object") if name in columns), None)
    return RawPoints(xyz, _colours(columns), columns.get("label"), instances, columns.get("intensity"), notes)


def _header(data: bytes, path: Path) -> PcdHeader:
    """Read the header; raises `DataError` if the DATA line or another is missing, or if lines contradict each other."""
    stated: dict[str, list[str]] = {}
    length = 0
    for line in _lines(data[:_LONGEST_HEADER]):
        length += len(line)
        words = line.decode("ascii", errors="replace").split()
        if not words or words[0].startswith("#"):
            continue
        stated[words[0].upper()] = words[1:]
        if words[0].upper() == "DATA":
            break
    if "DATA" not in stated or "FIELDS" not in stated:
        raise DataError(
            f"{path} is not a PCD: it lacks the lines FIELDS and DATA.", "It is of another format, or truncated."
        )
    try:
        names = stated["FIELDS"]
        sizes = [int(size) for size in stated["SIZE"]]
        counts = [int(count) for count in stated.get("COUNT", ["1"] * len(names))]
        kinds = [TYPES[kind.upper(), size] for kind, size in zip(stated["TYPE"], sizes, strict=True)]
        fields = tuple(zip(names, kinds, counts, strict=True))
        num_points = int(stated["POINTS"][0]) if "POINTS" in stated else _extent(stated)
        viewpoint = tuple(float(number) for number in stated.get("VIEWPOINT", []))
        form = stated["DATA"][0].lower()
        if not names or min(counts) < 1 or num_points < 0 or form not in ("ascii", "binary", "binary_compressed"):
            raise ValueError
        if sum(size * count for size, count in zip(sizes, counts, strict=True)) > 1 << 20:
            raise ValueError
    except (KeyError, ValueError, IndexError):
        raise DataError(
            f"{path} has an invalid PCD header.",
            "FIELDS, SIZE, TYPE and COUNT need one entry per field; WIDTH, HEIGHT and POINTS a number; "
            "DATA must be ascii, binary or binary_compressed.",
        ) from None
    return PcdHeader(fields, num_points, form, viewpoint or _NO_TURN, length)


def _extent(stated: dict[str, list[str]]) -> int:
    return int(stated["WIDTH"][0]) * int(stated["HEIGHT"][0])


def _lines(data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        end = data.find(b"\n", start) + 1 or len(data)
        yield data[start:end]
        start = end


def _points(data: bytes, header: PcdHeader, path: Path) -> Shaped[Array, " n"]:
    if header.data == "ascii":
        return _from_text(data, header, path)
    if header.data == "binary_compressed":
        return _from_columns(_uncompressed(data, header, path), header)
    wanted = header.num_points * header.dtype.itemsize
    if len(data) < wanted:
        raise DataError(
            f"{path} states {header.num_points} points of {header.dtype.itemsize} bytes but has {len(data)} bytes of them.",
            _AGAIN,
        )
    return np.frombuffer(data[:wanted], header.dtype)


def _from_text(data: bytes, header: PcdHeader, path: Path) -> Shaped[Array, " n"]:
    """Numbers separated by spaces, one point per line; fp64 holds every packed colour and id."""
    num_columns = sum(count for _, _, count in header.fields)
    table = np.zeros((0, num_columns))
    try:
        if data.strip():
            table = np.loadtxt(io.BytesIO(data), dtype=np.float64, comments=None, ndmin=2)
        if table.shape[1] != num_columns:
            raise ValueError
    except ValueError:
        raise DataError(f"{path} has a line that is not {num_columns} numbers.", _AGAIN) from None
    if len(table) != header.num_points:
        raise DataError(f"{path} states {header.num_points} points but has {len(table)} lines of them.", _AGAIN)
    points = np.zeros(len(table), header.dtype)
    column = 0
    for k, (_, kind, count) in enumerate(header.fields):
        values = table[:, column : column + count]
        if kind[0] != "f":
            limits = np.iinfo(kind)
            values = np.nan_to_num(values).clip(limits.min, limits.max if limits.bits < 64 else 2**62)
        with np.errstate(over="ignore"):  # a number beyond fp32 becomes infinite, and its point is left out
            points[str(k)] = values
        column += count
    return points


def _uncompressed(data: bytes, header: PcdHeader, path: Path) -> bytes:
    wanted = header.num_points * header.dtype.itemsize
    packed, unpacked = struct.unpack_from("<II", data) if len(data) >= 8 else (0, 0)
    if unpacked != wanted or len(data) < 8 + packed:
        raise DataError(
            f"{path} states {header.num_points} points ({wanted} bytes) but has {max(0, len(data) - 8)} bytes that should "
            f"be {packed} and unpack to {unpacked}.",
            _AGAIN,
        )
    try:
        return decompress(data[8 : 8 + packed], unpacked)
    except ValueError as error:
        raise DataError(f"The points of {path} cannot be unpacked: {error}.", _AGAIN) from None


def _from_columns(data: bytes, header: PcdHeader) -> Shaped[Array, " n"]:
    points = np.empty(header.num_points, header.dtype)
    at = 0
    for k, (_, kind, count) in enumerate(header.fields):
        field = np.frombuffer(data, f"<{kind}", header.num_points * count, at)
        points[str(k)] = field.reshape(header.num_points, count)
        at += field.nbytes
    return points


def _colours(columns: dict[str, Shaped[Array, " n"]]) -> UInt8[Array, "n 3"] | None:
    packed = next((columns[name] for name in ("rgb", "rgba") if name in columns), None)
    if packed is not None and packed.dtype.itemsize == 4:
        bits = np.ascontiguousarray(packed).view(np.uint32)
        return np.column_stack([(bits >> shift) & 255 for shift in (16, 8, 0)]).astype(np.uint8)
    for names in (("r", "g", "b"), ("red", "green", "blue")):
        if all(name in columns for name in names):
            return colours_8bit(np.column_stack([columns[name] for name in names]))
    return None
