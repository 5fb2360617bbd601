"""The files of a COLMAP sparse model, binary and text: cameras, images, points3D.

Little-endian. A count (u64) comes first, then that many records:

    cameras    i32 id, i32 model, u64 width, u64 height, f64 for each parameter of the model
    images     i32 id, f64 qw qx qy qz, f64 tx ty tz (world to camera), i32 camera, name up to a zero byte,
               u64 number of keypoints, each f64 x, f64 y, i64 point
    points3D   u64 id, f64 x y z, u8 red green blue, f64 error, u64 length of track, each i32 image, i32 keypoint

In the text files, lines starting with # are comments; an image has two lines, the second (its keypoints) may be empty.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Float64, UInt8

MODELS = {
    0: "SIMPLE_PINHOLE",
    1: "PINHOLE",
    2: "SIMPLE_RADIAL",
    3: "RADIAL",
    4: "OPENCV",
    5: "OPENCV_FISHEYE",
    6: "FULL_OPENCV",
    7: "FOV",
    8: "SIMPLE_RADIAL_FISHEYE",
    9: "RADIAL_FISHEYE",
    10: "THIN_PRISM_FISHEYE",
}
"""Camera models by their number in the binary files."""

NUM_PARAMETERS = {
    "SIMPLE_PINHOLE": 3,
    "PINHOLE": 4,
    "SIMPLE_RADIAL": 4,
    "RADIAL": 5,
    "OPENCV": 8,
    "OPENCV_FISHEYE": 8,
    "FULL_OPENCV": 12,
    "SIMPLE_RADIAL_FISHEYE": 4,
    "RADIAL_FISHEYE": 5,
}
"""Models that can be undistorted, and how many parameters each has."""

_POINT_BYTES = 51  # of a point3D without its track
_AGAIN = "It is truncated or of another format: export the model again."


@dataclass(frozen=True, slots=True)
class ColmapCamera:
    """A row of cameras: the model's name, the size in pixels and the model's parameters."""

    model: str
    width: int
    height: int
    parameters: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ColmapImage:
    """A row of images: its name, camera and pose (rotation as a unit quaternion w x y z, and translation)."""

    name: str
    camera_id: int
    camera_from_world: Float64[Array, "4 4"]


def model_format(folder: Path) -> Literal["bin", "txt"] | None:
    """The format of the model in a folder; None without a model."""
    for ending in ("bin", "txt"):
        if (folder / f"cameras.{ending}").is_file() and (folder / f"images.{ending}").is_file():
            return "bin" if ending == "bin" else "txt"
    return None


def read_cameras(path: Path) -> dict[int, ColmapCamera]:
    """Cameras by id, from a .bin or .txt file.

    Raises:
        DataError: truncated, of an unknown camera model, or with too few parameters.
    """
    if path.suffix == ".bin":
        return dict(_whole(path, _binary_camera))
    cameras = {}
    for number, fields in _lines(path):
        with _Line(path, number, "ID MODEL WIDTH HEIGHT PARAMETERS"):
            model, numbers = fields[1], tuple(float(text) for text in fields[4:])
            _num_parameters(model, path)
            cameras[int(fields[0])] = _camera(model, int(fields[2]), int(fields[3]), numbers)
    return cameras


def read_images(path: Path) -> list[ColmapImage]:
    """Images in the order of the file, from a .bin or .txt file.

    Raises:
        DataError: truncated, or a malformed line.
    """
    if path.suffix == ".bin":
        return [image for _, image in _whole(path, _binary_image)]
    images = []
    lines = [line for line in _read_text(path).splitlines() if not line.startswith("#")]
    while lines and not lines[-1].strip():
        lines.pop()  # the last image may have no keypoints, and files end in empty lines
    for number, line in enumerate(lines[::2]):
        with _Line(path, 2 * number + 1, "ID QW QX QY QZ TX TY TZ CAMERA NAME"):
            fields = line.split(maxsplit=9)
            pose = _pose(tuple(float(text) for text in fields[1:8]))
            images.append(ColmapImage(fields[9].strip(), int(fields[8]), pose))
    return images


def read_points(path: Path) -> tuple[Float64[Array, "n 3"], UInt8[Array, "n 3"]]:
    """Positions and colours of points3D, from a .bin or .txt file.

    Raises:
        DataError: truncated, or a malformed line.
    """
    if path.suffix == ".bin":
        return _binary_points(path)
    rows = []
    for number, fields in _lines(path):
        with _Line(path, number, "ID X Y Z RED GREEN BLUE ERROR TRACK"):
            rows.append((*map(float, fields[1:4]), *map(int, fields[4:7])))
            if len(rows[-1]) != 6 or not all(0 <= value <= 255 for value in rows[-1][3:]):
                raise ValueError
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return table[:, :3], table[:, 3:].astype(np.uint8)


# ------------------------------------------------------------------------------------------------------------ binary


class _Cursor:
    """Reads records from bytes, never past their end."""

    def __init__(self, path: Path) -> None:
        self.data, self._at, self._path = _read_bytes(path), 0, path

    def take(self, form: str) -> tuple[Any, ...]:
        try:
            values = struct.unpack_from("<" + form, self.data, self._at)
        except struct.error:
            self.fail()
        self._at += struct.calcsize("<" + form)
        return values

    def skip(self, count: int, size: int) -> None:
        self._at += count * size
        if self._at > len(self.data):
            self.fail()

    def text(self) -> str:
        end = self.data.find(b"\0", self._at)
        if end < 0:
            self.fail()
        value, self._at = self.data[self._at : end], end + 1
        return value.decode("utf-8", errors="replace")

    @property
    def left(self) -> int:
        return len(self.data) - self._at

    def finish(self, count: int) -> None:
        if self.left:
            raise DataError(f"{self._path} states {count} records but has {self.left} bytes after them.", _AGAIN)

    def fail(self) -> NoReturn:
        raise DataError(f"{self._path} ends after {len(self.data)} bytes, in the middle of a record.", _AGAIN)


def _whole(path: Path, read: Callable[[_Cursor, Path], tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    cursor = _Cursor(path)
    (count,) = cursor.take("Q")
    for _ in range(count):
        yield read(cursor, path)
    cursor.finish(count)


def _binary_camera(cursor: _Cursor, path: Path) -> tuple[int, ColmapCamera]:
    idx, number, width, height = cursor.take("iiQQ")
    if number not in MODELS:
        raise DataError(f"{path} has a camera with unknown model number {number}.", _AGAIN)
    parameters = cursor.take(f"{_num_parameters(MODELS[number], path)}d")
    return idx, _camera(MODELS[number], width, height, parameters)


def _binary_image(cursor: _Cursor, path: Path) -> tuple[int, ColmapImage]:
    idx, *numbers = cursor.take("i7d")
    (camera_id,) = cursor.take("i")
    name = cursor.text()
    (num_keypoints,) = cursor.take("Q")
    cursor.skip(num_keypoints, 24)
    return idx, ColmapImage(name, camera_id, _pose(tuple(numbers)))


def _binary_points(path: Path) -> tuple[Float64[Array, "n 3"], UInt8[Array, "n 3"]]:
    """Tracks vary in length: record offsets are found one by one, then all records are read at once."""
    cursor = _Cursor(path)
    (count,) = cursor.take("Q")
    starts = np.empty(min(count, cursor.left // _POINT_BYTES + 1), np.int64)  # a damaged count must not exhaust memory
    track_length = struct.Struct("<Q")
    data, at = cursor.data, 8
    for idx in range(count):
        if at + _POINT_BYTES > len(data):
            cursor.fail()
        starts[idx] = at
        at += _POINT_BYTES + 8 * track_length.unpack_from(data, at + _POINT_BYTES - 8)[0]
    cursor.skip(at - 8, 1)
    cursor.finish(count)
    raw = np.frombuffer(data, np.uint8)
    xyz = raw[starts[:, None] + np.arange(8, 32)].copy().view("<f8").astype(np.float64)
    return xyz, raw[starts[:, None] + np.arange(32, 35)]


# -------------------------------------------------------------------------------------------------------------- text


class _Line:
    """Turns exceptions from a malformed line into an error that names it."""

    def __init__(self, path: Path, number: int, expected: str) -> None:
        self._where, self._expected = f"Line {number} of {path} (not counting comments)", expected

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (ValueError, IndexError)):
            raise DataError(f"{self._where} is not {self._expected}.", _AGAIN) from None


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    lines = [line for line in _read_text(path).splitlines() if line.strip() and not line.startswith("#")]
    yield from enumerate((line.split() for line in lines), start=1)


def _read_text(path: Path) -> str:
    return _read_bytes(path).decode("utf-8", errors="replace")


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist.", "A model consists of cameras, images and points3D: export all three."
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from None


# ------------------------------------------------------------------------------------------------------------- values


def _num_parameters(model: str, path: Path) -> int:
    if model not in NUM_PARAMETERS:
        raise DataError(
            f"{path} has a camera of model {model}, which ov3d cannot undistort.",
            "Run colmap image_undistorter and use its output.",
        )
    return NUM_PARAMETERS[model]


def _camera(model: str, width: int, height: int, parameters: tuple[float, ...]) -> ColmapCamera:
    if len(parameters) != NUM_PARAMETERS[model]:
        raise ValueError
    return ColmapCamera(model, width, height, parameters)


def _pose(numbers: tuple[float, ...]) -> Float64[Array, "4 4"]:
    """The 4x4 matrix of a quaternion (w, x, y, z; normalised) and a translation; Shoemake (1985)."""
    if len(numbers) != 7:
        raise ValueError
    pose = np.full((4, 4), np.nan)
    norm = math.hypot(*numbers[:4])
    if not 0 < norm < math.inf:
        return pose
    w, x, y, z = (value / norm for value in numbers[:4])
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = numbers[4:]
    pose[3] = (0, 0, 0, 1)
    return pose
