"""LiDAR keyframes of nuScenes as columns: 34,149 of them and the 204,894 photographs taken with them are 60 MB.

They are kept in the cache, because joining the tables of the whole data set reads 2 GB of JSON. A kept file is known by the
tables' folder, and holds for tables of the same sizes and times of change.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ov3d.common.base.errors import CorruptFileError, DataError, NewerFormatError, StorageError
from ov3d.common.base.files import cache_root, hash_text
from ov3d.common.base.shapes import Array, Float64, Int32, Int64, Shaped, UInt8
from ov3d.common.base.tensor_files import read_header, read_tensors, write_tensors
from ov3d.common.readers.raw_points import FARTHEST

LIDAR = "LIDAR_TOP"

UNIT_TOLERANCE = 0.01
"""How far the length of a quaternion may be from 1."""

KIND, VERSION = "nuscenes-keyframes", 1


@dataclass(frozen=True, slots=True, eq=False)
class SensorData:
    """One file of a keyframe.

    Attributes:
        token: of its row in sample_data.
        channel: of the sensor, as `CAM_FRONT`.
        file: path below the data set's root.
        time: microseconds.
        size: width and height in pixels that its row states; zeros where it states none, as for the LiDAR.
        ego_from_sensor, global_from_ego: 4x4, the latter at `time`.
        intrinsics: 3x3, or none for the LiDAR.
    """

    token: str
    channel: str
    file: str
    time: int
    size: tuple[int, int]
    ego_from_sensor: Float64[Array, "4 4"]
    global_from_ego: Float64[Array, "4 4"]
    intrinsics: Float64[Array, "3 3"] | None


@dataclass(frozen=True, slots=True, eq=False)
class Keyframe:
    """A sweep and the photographs taken with it.

    Attributes:
        name: the scene's id: the drive and the number of the keyframe within it, from 0, by time.
        drive: as the scene table calls it.
        lidar: the sweep.
        cameras: by channel, sorted.
        panoptic, lidarseg: label files below the root, or none.
    """

    name: str
    drive: str
    lidar: SensorData
    cameras: tuple[SensorData, ...]
    panoptic: str | None = None
    lidarseg: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """What the tables say, a row for each keyframe (k), file of a keyframe (m) or calibrated sensor (c).

    Texts are UTF-8, padded with zeros. Rows of files are sorted by keyframe, then channel; `LIDAR_TOP` is there once for each.
    """

    drive: Int32[Array, " k"]
    """Number of the drive, in the order of their names."""
    number: Int32[Array, " k"]
    """Of the keyframe within its drive."""
    first: Int64[Array, " k+1"]
    """First row of its files; the last entry is m."""
    panoptic: UInt8[Array, "k _p"]
    lidarseg: UInt8[Array, "k _l"]
    token: UInt8[Array, "m _t"]
    file: UInt8[Array, "m _f"]
    time: Int64[Array, " m"]
    size: Int32[Array, "m 2"]
    channel: Int32[Array, " m"]
    """Number of the channel, in the order of their names."""
    calibration: Int32[Array, " m"]
    """Row of the calibrated sensor."""
    ego: Float64[Array, "m 7"]
    """Pose of the car at the file's time: translation in metres, quaternion w, x, y, z."""
    mounting: Float64[Array, "c 7"]
    """The same of the sensor on the car."""
    intrinsics: Float64[Array, "c 3 3"]
    """NaN where a sensor has none."""


class Keyframes:
    """All keyframes of a version of nuScenes, by drive and time; one is put together when it is asked for."""

    def __init__(self, columns: Columns, drives: Sequence[str], channels: Sequence[str]) -> None:
        self.columns = columns
        self.drives = tuple(drives)
        self.channels = tuple(channels)

    def __len__(self) -> int:
        return len(self.columns.drive)

    def __getitem__(self, idx: int) -> Keyframe:
        columns = self.columns
        first, stop = (int(row) for row in columns.first[idx : idx + 2])
        files = [self._file(row) for row in range(first, stop)]
        return Keyframe(
            name=self._name(int(columns.drive[idx]), int(columns.number[idx])),
            drive=self.drives[columns.drive[idx]],
            lidar=next(data for data in files if data.channel == LIDAR),
            cameras=tuple(data for data in files if data.channel != LIDAR),
            panoptic=_text(columns.panoptic[idx]) or None,
            lidarseg=_text(columns.lidarseg[idx]) or None,
        )

    def names(self) -> tuple[str, ...]:
        """Names of all keyframes, in order."""
        pairs = zip(self.columns.drive.tolist(), self.columns.number.tolist(), strict=True)
        return tuple(self._name(drive, number) for drive, number in pairs)

    def drive_of_each(self) -> list[str]:
        """The drive of every keyframe, in order."""
        return [self.drives[drive] for drive in self.columns.drive.tolist()]

    def _name(self, drive: int, number: int) -> str:
        return f"{self.drives[drive]}-{number:03d}"

    def _file(self, row: int) -> SensorData:
        columns = self.columns
        calibration = int(columns.calibration[row])
        intrinsics = columns.intrinsics[calibration]
        width, height = columns.size[row].tolist()
        return SensorData(
            token=_text(columns.token[row]),
            channel=self.channels[columns.channel[row]],
            file=_text(columns.file[row]),
            time=int(columns.time[row]),
            size=(width, height),
            ego_from_sensor=pose_of(columns.mounting[calibration]),
            global_from_ego=pose_of(columns.ego[row]),
            intrinsics=None if np.isnan(intrinsics).any() else intrinsics,
        )


def pose_of(motion: Float64[Array, " 7"]) -> Float64[Array, "4 4"]:
    """A 4x4 pose from a translation and a quaternion w, x, y, z, which may be rounded."""
    w, x, y, z = motion[3:] / np.linalg.norm(motion[3:])
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = motion[:3]
    return pose


def as_bytes(texts: Sequence[str]) -> UInt8[Array, "n _"]:
    """Texts as rows of UTF-8, padded with zeros."""
    encoded = np.array([text.encode() for text in texts], dtype=np.bytes_)
    return encoded.view(np.uint8).reshape(len(texts), encoded.itemsize)


def as_motions(rows: Sequence[Any], path: Path) -> Float64[Array, "n 7"]:
    """Translations and unit quaternions; raises `DataError` naming the table at `path` where one is neither."""
    motions = as_numbers(rows, (7,), path, "a pose that is not 3 + 4 numbers")
    far = ~(np.abs(motions) < FARTHEST).all(axis=1)  # or not finite
    bad = far | ~(np.abs(np.linalg.norm(np.where(far[:, None], 0, motions)[:, 3:], axis=1) - 1) < UNIT_TOLERANCE)
    if bad.any():
        numbers = ", ".join(f"{value:g}" for value in motions[bad][0])
        raise DataError(f"{path} holds a pose that is none: {numbers}.", "Download the tables again.")
    return motions


def as_numbers(rows: Sequence[Any], of: tuple[int, ...], path: Path, fault: str) -> Float64[Array, "*shape"]:
    """Rows of a shape as one array; raises `DataError` that the table at `path` holds the fault where they are not."""
    if not rows:
        return np.zeros((0, *of))
    try:
        values = np.array(rows, np.float64)
    except (ValueError, TypeError, OverflowError):
        values = np.zeros(0)
    if values.shape[1:] != of:
        raise DataError(f"{path} holds {fault}.", "Download the tables again.")
    return values


def _text(row: Shaped[Array, " _"]) -> str:
    return row.tobytes().rstrip(b"\0").decode()


def kept_keyframes(folder: Path, tables: Mapping[str, Sequence[int]]) -> Keyframes | None:
    """Keyframes cached earlier; None if there are none, or the tables have changed since.

    Args:
        folder: of the tables.
        tables: size and time of change of each.
    """
    path = _kept_at(folder)
    facts = read_header(path, kind=KIND, version=VERSION)
    if facts is None or facts["tables"] != {name: list(one) for name, one in tables.items()}:
        return None
    with contextlib.suppress(DataError, CorruptFileError, NewerFormatError):
        stored = read_tensors(path, kind=KIND, version=VERSION)
        return Keyframes(Columns(**stored.tensors), stored.metadata["drives"], stored.metadata["channels"])
    return None


def keep_keyframes(folder: Path, tables: Mapping[str, Sequence[int]], keyframes: Keyframes) -> None:
    """Keep keyframes for `kept_keyframes`."""
    columns = {name: getattr(keyframes.columns, name) for name in Columns.__slots__}
    facts = {
        "folder": str(folder.resolve()),
        "tables": {name: list(one) for name, one in tables.items()},
        "drives": list(keyframes.drives),
        "channels": list(keyframes.channels),
    }
    with contextlib.suppress(StorageError):  # a cache that cannot be written costs time, not the answer
        write_tensors(_kept_at(folder), columns, kind=KIND, version=VERSION, metadata=facts)


def _kept_at(folder: Path) -> Path:
    return cache_root() / "nuscenes" / f"{hash_text(str(VERSION), str(folder.resolve()))}.safetensors"
