"""ScanNet's `.sens` recordings: colour, depth and poses of a whole scan in one file, streamed.

Little-endian:

    u32 version (4), u64 length and name of the sensor, four 4x4 f32 row by row (intrinsics, extrinsics of colour, of depth),
    i32 codec of colour (1 png, 2 jpeg), i32 codec of depth (0 raw, 1 zlib; 16 bits per pixel),
    u32 width and height of colour, then of depth, f32 depth steps per metre, u64 number of frames
    per frame: 16 f32 camera-to-world, two u64 times, u64 bytes of colour, u64 bytes of depth, and those bytes

A recording has thousands of frames and gigabytes: unwanted frames are skipped, not read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Float64, UInt16

VERSION = 4
COLOUR_ENDINGS = {1: ".png", 2: ".jpg"}

_RAW_DEPTH, _ZLIB_DEPTH = 0, 1
_LONGEST_NAME = 4096


@dataclass(frozen=True, slots=True, eq=False)
class SensHeader:
    """The header of a recording.

    Attributes:
        colour_intrinsic, depth_intrinsic: 4x4; pixel centres are at whole numbers.
        colour_extrinsic, depth_extrinsic: 4x4.
        colour_ending: extension for files of the colour bytes.
        depth_is_packed: whether depth is compressed with zlib.
        depth_size: width, height.
        steps_a_metre: divide depth by this to get metres.
        num_frames: how many frames follow.
    """

    colour_intrinsic: Float64[Array, "4 4"]
    colour_extrinsic: Float64[Array, "4 4"]
    depth_intrinsic: Float64[Array, "4 4"]
    depth_extrinsic: Float64[Array, "4 4"]
    colour_ending: str
    depth_is_packed: bool
    depth_size: tuple[int, int]
    steps_a_metre: float
    num_frames: int


@dataclass(frozen=True, slots=True, eq=False)
class SensFrame:
    """One frame: its number, pose (not finite if tracking was lost), colour as the bytes of an image file, depth in steps."""

    number: int
    world_from_camera: Float64[Array, "4 4"]
    colour: bytes
    depth: UInt16[Array, "h w"]


class SensFile:
    """An open recording.

    Args:
        stream: the file, at its start.
        path: for error messages.

    Raises:
        DataError: another version, an unknown codec, or truncated.
    """

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream, self._path = stream, path
        self._size = path.stat().st_size
        self._frame = -1
        self.header = self._read_header()

    def frames(self, step: int) -> Iterator[SensFrame]:
        """Every `step`-th frame, starting with the first.

        Raises:
            DataError: the file ends too early, or depth cannot be unpacked.
        """
        for number in range(self.header.num_frames):
            self._frame = number
            *pose, _, _, colour_bytes, depth_bytes = self._take("16fQQQQ")
            if number % step:
                self._skip(colour_bytes + depth_bytes)
                continue
            colour = self._read(colour_bytes)
            depth = self._depth(self._read(depth_bytes))
            yield SensFrame(number, np.array(pose, np.float64).reshape(4, 4), colour, depth)

    def _read_header(self) -> SensHeader:
        (version,) = self._take("I")
        if version != VERSION:
            raise DataError(
                f"{self._path} starts with version {version}, expected {VERSION}.",
                "It is not a .sens file, or of a version that ScanNet did not publish.",
            )
        (length,) = self._take("Q")
        if length > _LONGEST_NAME:
            raise DataError(
                f"{self._path} states a sensor name of {length} bytes.", "It is damaged: download it again."
            )
        self._read(length)
        intrinsic, extrinsic, depth_intrinsic, depth_extrinsic = np.array(self._take("64f")).reshape(4, 4, 4)
        colour_codec, depth_codec, *sizes = self._take("ii4I")
        steps, num_frames = self._take("fQ")
        if colour_codec not in COLOUR_ENDINGS or depth_codec not in (_RAW_DEPTH, _ZLIB_DEPTH):
            raise DataError(
                f"{self._path} has colour in codec {colour_codec} and depth in codec {depth_codec}.",
                "Colour should be png (1) or jpeg (2), depth raw (0) or zlib (1): export it with ScanNet's SensReader.",
            )
        if not (np.isfinite(steps) and steps > 0) or not all(sizes) or num_frames == 0:
            raise DataError(
                f"{self._path} states {num_frames} frames, sizes {sizes} and {steps:g} depth steps per metre.",
                "It is damaged: download it again.",
            )
        return SensHeader(
            colour_intrinsic=intrinsic,
            colour_extrinsic=extrinsic,
            depth_intrinsic=depth_intrinsic,
            depth_extrinsic=depth_extrinsic,
            colour_ending=COLOUR_ENDINGS[colour_codec],
            depth_is_packed=depth_codec == _ZLIB_DEPTH,
            depth_size=(sizes[2], sizes[3]),
            steps_a_metre=float(steps),
            num_frames=num_frames,
        )

    def _depth(self, data: bytes) -> UInt16[Array, "h w"]:
        width, height = self.header.depth_size
        wanted = 2 * width * height
        if self.header.depth_is_packed:
            try:
                data = zlib.decompressobj().decompress(data, wanted + 1)  # a damaged stream must not exhaust memory
            except zlib.error as error:
                raise DataError(
                    f"The depth of frame {self._frame} of {self._path} cannot be unpacked: {error}.",
                    "The file is damaged: download it again.",
                ) from None
        if len(data) != wanted:
            raise DataError(
                f"The depth of frame {self._frame} of {self._path} is not {width}x{height} values of 16 bits.",
                "The file is damaged: download it again.",
            )
        return np.frombuffer(data, "<u2").astype(np.uint16).reshape(height, width)

    def _take(self, form: str) -> tuple[Any, ...]:
        return struct.unpack("<" + form, self._read(struct.calcsize("<" + form)))

    def _read(self, count: int) -> bytes:
        if count > self._size - self._stream.tell():
            self._cut()
        return self._stream.read(count)

    def _skip(self, count: int) -> None:
        if count > self._size - self._stream.tell():
            self._cut()
        self._stream.seek(count, 1)

    def _cut(self) -> NoReturn:
        where = "in its header" if self._frame < 0 else f"in frame {self._frame} of {self.header.num_frames}"
        raise DataError(f"{self._path} ends after {self._size} bytes, {where}.", "It is truncated: download it again.")


@contextmanager
def open_sens(path: Path) -> Iterator[SensFile]:
    """Open a recording and read its header.

    Raises:
        DataError: the file is missing, or has an invalid header.
    """
    try:
        stream = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror}.", "Check the path.") from None
    with stream:
        yield SensFile(stream, path)
