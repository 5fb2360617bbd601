"""The JSON tables of the nuScenes layout, as rows, for drives through generated streets.

Timestamps are microseconds, quaternions w, x, y, z, lengths metres. A token is a hash of the row's subject, so the same
drive gets the same tokens.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ov3d.common.base.files import hash_text
from ov3d.common.base.shapes import Array, Float64
from ov3d.common.readers.nuscenes_categories import GENERAL_CLASSES
from ov3d.common.scenes.cameras import Camera
from ov3d.common.worlds.moving_world import Thing
from ov3d.common.worlds.street import Drive
from ov3d.common.worlds.street_classes import STREET_CLASSES, class_id
from ov3d.common.worlds.street_writing import written_matrix

Row = dict[str, Any]
Tables = dict[str, list[Row]]

TABLES = (
    "attribute",
    "calibrated_sensor",
    "category",
    "ego_pose",
    "instance",
    "lidarseg",
    "log",
    "map",
    "panoptic",
    "sample",
    "sample_annotation",
    "sample_data",
    "scene",
    "sensor",
    "visibility",
)
LIDAR = "LIDAR_TOP"


@dataclass(frozen=True, slots=True)
class Capture:
    """One file of a sensor.

    Attributes:
        channel: the sensor.
        timestamp: microseconds.
        filename: relative to the data set's root.
        translation, rotation: the vehicle's pose in the world at that time.
        width, height: of an image, else 0.
    """

    channel: str
    timestamp: int
    filename: str
    translation: list[float]
    rotation: list[float]
    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True)
class SweepFiles:
    """The files of one sweep.

    Attributes:
        captures: the LiDAR's first.
        seen: things and the number of points on each, for things with any.
        lidarseg, panoptic: label files, relative to the root.
    """

    captures: tuple[Capture, ...]
    seen: tuple[tuple[int, int], ...]
    lidarseg: str
    panoptic: str


def token(*parts: object) -> str:
    """32 hexadecimal digits."""
    return hash_text("street", *(str(part) for part in parts))


def sweep_token(drive: str, number: int) -> str:
    """Token of a sweep's LiDAR file."""
    return token(drive, number, LIDAR)


def pose_fields(pose: Float64[Array, "4 4"]) -> tuple[list[float], list[float]]:
    """Translation and quaternion of a rigid pose."""
    return pose[:3, 3].tolist(), quaternion(pose[:3, :3])


def quaternion(rotation: Float64[Array, "3 3"]) -> list[float]:
    """w, x, y, z of a rotation matrix, by dividing by the largest of the four (Shepperd, 1978)."""
    r, trace = rotation, float(np.trace(rotation))
    squares = np.array([trace, *(2 * np.diag(r) - trace)]) + 1  # four times the square of each
    k = int(squares.argmax())
    columns = (
        (squares[0], r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]),
        (r[2, 1] - r[1, 2], squares[1], r[1, 0] + r[0, 1], r[0, 2] + r[2, 0]),
        (r[0, 2] - r[2, 0], r[1, 0] + r[0, 1], squares[2], r[2, 1] + r[1, 2]),
        (r[1, 0] - r[0, 1], r[0, 2] + r[2, 0], r[2, 1] + r[1, 2], squares[3]),
    )
    values = np.array(columns[k]) / (2 * np.sqrt(squares[k]))
    return [float(value) for value in (values if values[0] >= 0 else -values)]


def common_tables(channels: Sequence[str], map_filename: str, log_tokens: Sequence[str]) -> Tables:
    """Tables that do not depend on the sweeps."""
    tables: Tables = {name: [] for name in TABLES}
    for index, name in enumerate(GENERAL_CLASSES):
        row = {"token": token("category", name), "name": name, "description": "", "index": index}
        tables["category"].append(row)
    for channel in channels:
        modality = "lidar" if channel == LIDAR else "camera"
        tables["sensor"].append({"token": token("sensor", channel), "channel": channel, "modality": modality})
    for k, level in enumerate(("v0-40", "v40-60", "v60-80", "v80-100")):
        tables["visibility"].append({"token": str(k + 1), "level": level, "description": ""})
    whole = {"token": token("map"), "log_tokens": list(log_tokens), "category": "semantic_prior"}
    tables["map"].append({**whole, "filename": map_filename})
    return tables


def log_token(name: str) -> str:
    """Token of the log of a drive."""
    return token(name, "log")


def add_drive(tables: Tables, name: str, drive: Drive, sweeps: Sequence[SweepFiles]) -> None:
    """Add the rows of one drive: a scene in nuScenes terms, whose samples are the sweeps."""
    samples = [token(name, number, "sample") for number in range(len(sweeps))]
    scene = token(name, "scene")
    tables["scene"].append(
        {
            "token": scene,
            "log_token": log_token(name),
            "nbr_samples": len(samples),
            "first_sample_token": samples[0],
            "last_sample_token": samples[-1],
            "name": name,
            "description": f"Generated street, seed {drive.config.seed}",
        }
    )
    day = datetime.datetime.fromtimestamp(drive.start / 1e6, datetime.timezone.utc).date().isoformat()
    log = {"token": log_token(name), "logfile": logfile(name), "vehicle": "generated"}
    tables["log"].append({**log, "date_captured": day, "location": "generated"})
    _add_calibration(tables, name, drive)
    for number, files in enumerate(sweeps):
        chain = _neighbours(samples.__getitem__, number, len(samples))
        row = {"token": samples[number], "timestamp": files.captures[0].timestamp, "scene_token": scene}
        tables["sample"].append({**row, **chain})
        lidar = sweep_token(name, number)
        for kind, filename in (("lidarseg", files.lidarseg), ("panoptic", files.panoptic)):
            tables[kind].append({"token": lidar, "sample_data_token": lidar, "filename": filename})
        for capture in files.captures:
            _add_capture(tables, name, number, len(sweeps), capture)
    _add_annotations(tables, name, drive, sweeps)


def logfile(name: str) -> str:
    """The prefix of a drive's file names."""
    return f"street-{name}"


def _neighbours(token_of: Callable[[int], str], number: int, count: int) -> Row:
    """Tokens of the rows before and after, empty at the ends."""
    return {"prev": token_of(number - 1) if number else "", "next": token_of(number + 1) if number + 1 < count else ""}


def _add_calibration(tables: Tables, name: str, drive: Drive) -> None:
    sensors: list[tuple[str, Float64[Array, "4 4"], Camera | None]] = [(LIDAR, drive.rig.ego_from_lidar, None)]
    sensors += [(mount.name, mount.ego_from_camera, mount.camera) for mount in drive.rig.cameras]
    for channel, pose, camera in sensors:
        translation, rotation = pose_fields(pose)
        tables["calibrated_sensor"].append(
            {
                "token": token(name, "calibrated", channel),
                "sensor_token": token("sensor", channel),
                "translation": translation,
                "rotation": rotation,
                "camera_intrinsic": [] if camera is None else written_matrix(camera).tolist(),
            }
        )


def _add_capture(tables: Tables, name: str, number: int, num_sweeps: int, capture: Capture) -> None:
    def own(k: int) -> str:
        return token(name, k, capture.channel)

    pose = {"token": own(number), "timestamp": capture.timestamp}
    tables["ego_pose"].append({**pose, "translation": capture.translation, "rotation": capture.rotation})
    tables["sample_data"].append(
        {
            "token": own(number),
            "sample_token": token(name, number, "sample"),
            "ego_pose_token": own(number),
            "calibrated_sensor_token": token(name, "calibrated", capture.channel),
            "timestamp": capture.timestamp,
            "fileformat": "pcd" if capture.channel == LIDAR else "jpg",
            "is_key_frame": True,
            "height": capture.height,
            "width": capture.width,
            "filename": capture.filename,
            **_neighbours(own, number, num_sweeps),
        }
    )


def _add_annotations(tables: Tables, name: str, drive: Drive, sweeps: Sequence[SweepFiles]) -> None:
    """One box per thing and sweep in which it has points."""
    appearances: dict[int, list[tuple[int, int]]] = {}
    for number, files in enumerate(sweeps):
        for instance, num_points in files.seen:
            appearances.setdefault(instance, []).append((number, num_points))
    for instance, found in sorted(appearances.items()):
        thing = drive.world.things[instance - 1]
        tokens = [token(name, number, "annotation", instance) for number, _ in found]
        category = GENERAL_CLASSES[STREET_CLASSES[class_id(thing.name)].nuscenes]
        tables["instance"].append(
            {
                "token": token(name, "instance", instance),
                "category_token": token("category", category),
                "nbr_annotations": len(found),
                "first_annotation_token": tokens[0],
                "last_annotation_token": tokens[-1],
            }
        )
        for k, (number, num_points) in enumerate(found):
            tables["sample_annotation"].append(
                {
                    "token": tokens[k],
                    "sample_token": token(name, number, "sample"),
                    "instance_token": token(name, "instance", instance),
                    "visibility_token": "",
                    "attribute_tokens": [],
                    **_box(thing, drive.seconds(drive.timestamp(number))),
                    **_neighbours(tokens.__getitem__, k, len(tokens)),
                    "num_lidar_pts": num_points,
                    "num_radar_pts": 0,
                }
            )


def _box(thing: Thing, seconds: float) -> Row:
    translation, rotation = pose_fields(thing.world_from_box)
    moved = thing.motion.displacement(np.array([seconds]))[0]
    length, width, height = thing.size
    return {
        "translation": (np.array(translation) + moved).tolist(),
        "size": [width, length, height],
        "rotation": rotation,
    }
