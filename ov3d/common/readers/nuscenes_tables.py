"""The tables of nuScenes that a LiDAR keyframe needs, joined: no more is read, and large tables are read row by row.

    sample_data, sample, scene, calibrated_sensor, sensor, ego_pose; panoptic and lidarseg where they are there

Pose chain of a photograph, each step at its own time (Caesar et al., *nuScenes*, CVPR 2020):

    lidar -> ego at the sweep -> global -> ego at the photograph -> camera                                          (1)

`category.json` has an `index` only once the lidarseg or panoptic package has overwritten it. Labels are general classes, whose
numbers are fixed, so the table is not needed for them: where it is there and contradicts these numbers, that is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Float64
from ov3d.common.readers.json_records import records

LIDAR = "LIDAR_TOP"
GENERAL_CLASSES = (
    "noise", "animal", "human.pedestrian.adult", "human.pedestrian.child", "human.pedestrian.construction_worker",
    "human.pedestrian.personal_mobility", "human.pedestrian.police_officer", "human.pedestrian.stroller",
    "human.pedestrian.wheelchair", "movable_object.barrier", "movable_object.debris", "movable_object.pushable_pullable",
    "movable_object.trafficcone", "static_object.bicycle_rack", "vehicle.bicycle", "vehicle.bus.bendy",
    "vehicle.bus.rigid", "vehicle.car", "vehicle.construction", "vehicle.emergency.ambulance", "vehicle.emergency.police",
    "vehicle.motorcycle", "vehicle.trailer", "vehicle.truck", "flat.driveable_surface", "flat.other", "flat.sidewalk",
    "flat.terrain", "static.manmade", "static.other", "static.vegetation", "vehicle.ego",
)  # fmt: skip
"""Names of the general classes 0 to 31 of the lidarseg and panoptic packages."""

NAMED = 6
"""Dangling tokens that an error names; it counts all of them."""


@dataclass(frozen=True, slots=True, eq=False)
class SensorData:
    """One file of a keyframe.

    Attributes:
        token: of its row in sample_data.
        channel: of the sensor, as `CAM_FRONT`.
        file: path below the data set's root.
        time: microseconds.
        size: width and height in pixels; zeros for the LiDAR.
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
        scene: name of the drive.
        number: of the keyframe within its drive, from 0, by time.
        lidar: the sweep.
        cameras: by channel, sorted.
        panoptic, lidarseg: label files below the root, or none.
    """

    scene: str
    number: int
    lidar: SensorData
    cameras: tuple[SensorData, ...]
    panoptic: str | None = None
    lidarseg: str | None = None

    @property
    def name(self) -> str:
        """The scene's id: the drive and the keyframe's number."""
        return f"{self.scene}-{self.number:03d}"


@dataclass(slots=True)
class _Dangling:
    """Tokens that lead nowhere, gathered over all tables so that one pass names them all."""

    found: list[str] = field(default_factory=list)

    def row(self, table: Mapping[str, Any], key: str, what: str) -> Any | None:
        if key not in table:
            self.found.append(f"{what} {key}")
        return table.get(key)

    def check(self, folder: Path) -> None:
        if self.found:
            named = "; ".join(self.found[:NAMED]) + ("; ..." if len(self.found) > NAMED else "")
            count = f"{len(self.found):,} token{'s' if len(self.found) > 1 else ''}"
            raise DataError(f"{count} in {folder} lead nowhere: {named}.", "Copy the tables of one version again.")


def read_keyframes(folder: Path) -> list[Keyframe]:
    """All LiDAR keyframes of a version folder (`v1.0-mini`, ...), by drive and time.

    Raises:
        DataError: a table is missing or damaged, or tokens lead nowhere (all are counted, the first named).
    """
    sensors = {row["token"]: row for row in _table(folder, "sensor", ("channel",))}
    calibrations = {row["token"]: row for row in _table(folder, "calibrated_sensor", ("sensor_token", "translation"))}
    samples = {row["token"]: row for row in _table(folder, "sample", ("scene_token", "timestamp"))}
    scenes = {row["token"]: row["name"] for row in _table(folder, "scene", ("name",))}
    check_categories(folder)
    needed = ("sample_token", "ego_pose_token", "calibrated_sensor_token", "timestamp", "filename", "is_key_frame")
    rows = [row for row in _table(folder, "sample_data", needed) if row["is_key_frame"] and _is_wanted(row["filename"])]
    wanted = {row["ego_pose_token"] for row in rows}
    egos = {
        row["token"]: row for row in _table(folder, "ego_pose", ("translation", "rotation")) if row["token"] in wanted
    }
    dangling = _Dangling()
    by_sample: dict[str, list[SensorData]] = {}
    for row in rows:
        calibration = dangling.row(calibrations, row["calibrated_sensor_token"], "calibrated_sensor")
        ego = dangling.row(egos, row["ego_pose_token"], "ego_pose")
        sample = dangling.row(samples, row["sample_token"], "sample")
        sensor = dangling.row(sensors, calibration["sensor_token"], "sensor") if calibration else None
        if calibration and ego and sample and sensor:
            data = _sensor_data(row, sensor["channel"], calibration, ego)
            by_sample.setdefault(row["sample_token"], []).append(data)
    for sample in samples.values():
        dangling.row(scenes, sample["scene_token"], "scene")
    dangling.check(folder)
    labels = {kind: _label_files(folder, kind) for kind in ("panoptic", "lidarseg")}
    return _joined(by_sample, samples, scenes, labels)


def check_categories(folder: Path) -> None:
    """See that `category.json`, where it numbers its classes, numbers them as label files do.

    Raises:
        DataError: it does not.
    """
    path = folder / "category.json"
    if not path.is_file():
        return
    for row in records(path):
        index, name = row.get("index"), str(row.get("name"))
        if index is None or name not in GENERAL_CLASSES:
            continue  # the table as it was before the lidarseg package: it has no numbers
        if GENERAL_CLASSES.index(name) != index:
            right = GENERAL_CLASSES.index(name)
            raise DataError(
                f"{path} gives {name} the number {index}, label files {right}.", "Download the tables again."
            )


def _joined(
    by_sample: Mapping[str, Sequence[SensorData]],
    samples: Mapping[str, Mapping[str, Any]],
    scenes: Mapping[str, str],
    labels: Mapping[str, Mapping[str, str]],
) -> list[Keyframe]:
    order = sorted(by_sample, key=lambda token: (scenes[samples[token]["scene_token"]], samples[token]["timestamp"]))
    keyframes: list[Keyframe] = []
    for token in order:
        lidar = next((data for data in by_sample[token] if data.channel == LIDAR), None)
        if lidar is None:
            continue
        drive = scenes[samples[token]["scene_token"]]
        number = keyframes[-1].number + 1 if keyframes and keyframes[-1].scene == drive else 0
        cameras = sorted((data for data in by_sample[token] if data is not lidar), key=lambda data: data.channel)
        files = (labels[kind].get(lidar.token) for kind in ("panoptic", "lidarseg"))
        keyframes.append(Keyframe(drive, number, lidar, tuple(cameras), *files))
    return keyframes


def _is_wanted(file: str) -> bool:
    """LiDAR and cameras; radars are left out. Channels are folders of the file's path."""
    return f"/{LIDAR}/" in f"/{file}" or "/CAM_" in f"/{file}"


def _sensor_data(
    row: Mapping[str, Any], channel: str, calibration: Mapping[str, Any], ego: Mapping[str, Any]
) -> SensorData:
    intrinsics = calibration.get("camera_intrinsic") or None
    return SensorData(
        token=row["token"],
        channel=channel,
        file=row["filename"],
        time=int(row["timestamp"]),
        size=(int(row.get("width") or 0), int(row.get("height") or 0)),
        ego_from_sensor=pose_of(calibration["translation"], calibration["rotation"]),
        global_from_ego=pose_of(ego["translation"], ego["rotation"]),
        intrinsics=None if intrinsics is None else np.array(intrinsics, np.float64),
    )


def pose_of(translation: Sequence[float], rotation: Sequence[float]) -> Float64[Array, "4 4"]:
    """A 4x4 pose from a translation and a quaternion w, x, y, z (which need not be of unit length)."""
    w, x, y, z = np.asarray(rotation, np.float64) / np.linalg.norm(rotation)
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = translation
    return pose


def _label_files(folder: Path, kind: str) -> dict[str, str]:
    if not (folder / f"{kind}.json").is_file():
        return {}
    return {
        row["sample_data_token"]: row["filename"] for row in _table(folder, kind, ("sample_data_token", "filename"))
    }


def _table(folder: Path, name: str, needed: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    path = folder / f"{name}.json"
    for number, row in enumerate(records(path)):
        missing = [key for key in ("token", *needed) if key not in row]
        if missing:
            raise DataError(f"Row {number} of {path} has no {missing[0]}.", "Download the tables again.")
        yield row
