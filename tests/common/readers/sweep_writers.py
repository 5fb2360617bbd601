"""Small LiDAR data sets in their official layouts, written by code that shares nothing with the readers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

SIZE = (32, 20)
"""Width and height of the photographs."""

NUSCENES_CLASSES = [
    "noise",
    "animal",
    "human.pedestrian.adult",
    "human.pedestrian.child",
    "human.pedestrian.construction_worker",
    "human.pedestrian.personal_mobility",
    "human.pedestrian.police_officer",
    "human.pedestrian.stroller",
    "human.pedestrian.wheelchair",
    "movable_object.barrier",
    "movable_object.debris",
    "movable_object.pushable_pullable",
    "movable_object.trafficcone",
    "static_object.bicycle_rack",
    "vehicle.bicycle",
    "vehicle.bus.bendy",
    "vehicle.bus.rigid",
    "vehicle.car",
    "vehicle.construction",
    "vehicle.emergency.ambulance",
    "vehicle.emergency.police",
    "vehicle.motorcycle",
    "vehicle.trailer",
    "vehicle.truck",
    "flat.driveable_surface",
    "flat.other",
    "flat.sidewalk",
    "flat.terrain",
    "static.manmade",
    "static.other",
    "static.vegetation",
    "vehicle.ego",
]


def token(*what: object) -> str:
    """A token as nuScenes has them."""
    return hashlib.md5(repr(what).encode()).hexdigest()


def sweep_rows(num_points: int, columns: int, seed: int) -> np.ndarray:
    """Points up to 20 m off, then intensity, and the ring where there is a fifth column."""
    rng = np.random.default_rng(seed)
    rows = rng.uniform(-20, 20, (num_points, columns)).astype("<f4")
    rows[:, 3] = rng.random(num_points)
    if columns == 5:
        rows[:, 3] = rng.integers(0, 256, num_points)
        rows[:, 4] = rng.integers(0, 32, num_points)
    return rows


def photograph(path: Path, size: tuple[int, int] = SIZE) -> None:
    """One of some colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)


@dataclass
class NuScenes:
    """A data set of a few keyframes; `tables` may be changed before `write_tables`.

    Attributes:
        root: of the data set.
        version: folder of the tables.
        tables: rows by table.
        points: rows of each sweep's file, by the keyframe's name.
    """

    root: Path
    version: str = "v1.0-mini"
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    points: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.root / self.version

    def write_tables(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, rows in self.tables.items():
            (self.folder / f"{name}.json").write_text(json.dumps(rows, indent=0))

    def row(self, table: str, **values: object) -> dict[str, Any]:
        """The first row with these values."""
        return next(row for row in self.tables[table] if all(row[key] == value for key, value in values.items()))

    def file(self, name: str, channel: str) -> dict[str, Any]:
        """The row of sample_data for a sensor's file of a keyframe."""
        return self.row("sample_data", token=token("data", name, channel, 0))


CAMERAS = ("CAM_FRONT", "CAM_BACK")


def write_nuscenes(
    root: Path,
    *,
    drives: tuple[str, ...] = ("scene-0061", "scene-0103"),
    num_keyframes: int = 2,
    num_points: int = 60,
    panoptic: bool = True,
    lidarseg: bool = True,
    indexed: bool = True,
    version: str = "v1.0-mini",
) -> NuScenes:
    """Write one with a LiDAR, two cameras and a radar, files between keyframes, and rows in no order.

    Args:
        root: its folder.
        drives: names of scenes.
        num_keyframes: of each.
        num_points: of each sweep.
        panoptic, lidarseg: whether these packages are installed.
        indexed: whether one of them has overwritten category.json.
        version: folder of the tables.
    """
    data = NuScenes(root, version)
    rng = np.random.default_rng(0)
    sensors = ("LIDAR_TOP", *CAMERAS, "RADAR_FRONT")
    kinds = {"LIDAR": "lidar", "CAM": "camera", "RADAR": "radar"}
    tables = data.tables
    tables["sensor"] = [
        {"token": token("sensor", name), "channel": name, "modality": kinds[name.split("_")[0]]} for name in sensors
    ]
    tables["category"] = [
        {"token": token(name), "name": name, "description": ""} | ({"index": number} if indexed else {})
        for number, name in enumerate(NUSCENES_CLASSES)
        if indexed or name not in ("noise", "flat.other")
    ]
    for name in ("scene", "calibrated_sensor", "sample", "sample_data", "ego_pose", "panoptic", "lidarseg"):
        tables[name] = []
    for drive in drives:
        tables["scene"].append({"token": token(drive), "name": drive, "nbr_samples": num_keyframes})
        for sensor in sensors:
            k = [[20.0, 0, 15.5], [0, 21.0, 9.5], [0, 0, 1]] if sensor.startswith("CAM") else []
            motion = random_motion(rng, 1)
            row = {"token": token("mounting", drive, sensor), "sensor_token": token("sensor", sensor), **motion}
            tables["calibrated_sensor"].append({**row, "camera_intrinsic": k})
        for number in range(num_keyframes):
            _write_keyframe(data, drive, number, sensors, rng, num_points)
    if not panoptic:
        del tables["panoptic"]
    if not lidarseg:
        del tables["lidarseg"]
    for rows in tables.values():
        order = rng.permutation(len(rows))
        rows[:] = [rows[place] for place in order]
    data.write_tables()
    return data


def _write_keyframe(
    data: NuScenes, drive: str, number: int, sensors: tuple[str, ...], rng: np.random.Generator, num_points: int
) -> None:
    name, time = f"{drive}-{number:03d}", 1_532_402_927_000_000 + 500_000 * number
    sample = {"token": token(name), "timestamp": time, "scene_token": token(drive), "prev": "", "next": ""}
    data.tables["sample"].append(sample)
    for delay, sensor in enumerate(sensors):
        for between in (0, 1):
            key = token("data", name, sensor, between)
            folder, ending = ("sweeps" if between else "samples"), "jpg" if sensor.startswith("CAM") else "pcd.bin"
            taken = time - 10_000 * delay + 50_000 * between
            file = f"{folder}/{sensor}/{name}__{sensor}__{taken}.{ending}"
            data.tables["ego_pose"].append({"token": token("ego", key), "timestamp": taken, **random_motion(rng, 5)})
            width, height = SIZE if sensor.startswith("CAM") else (0, 0)
            data.tables["sample_data"].append(
                {
                    "token": key,
                    "sample_token": token(name),
                    "ego_pose_token": token("ego", key),
                    "calibrated_sensor_token": token("mounting", drive, sensor),
                    "timestamp": taken,
                    "is_key_frame": not between,
                    "width": width,
                    "height": height,
                    "filename": file,
                }
            )
            if sensor.startswith("CAM") and not between:
                photograph(data.root / file)
    lidar = data.file(name, "LIDAR_TOP")
    data.points[name] = sweep_rows(num_points, 5, number)
    path = data.root / lidar["filename"]
    path.parent.mkdir(parents=True, exist_ok=True)
    data.points[name].tofile(path)
    general = np.array([17, 17, 24, 30, 0, 2])[np.arange(num_points) % 6]
    numbers = np.where(np.isin(general, [17, 2]), 1 + np.arange(num_points) % 2, 0)
    for kind, values in (("panoptic", general * 1000 + numbers), ("lidarseg", general)):
        path = data.root / kind / data.version / f"{lidar['token']}_{kind}.{'npz' if kind == 'panoptic' else 'bin'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "panoptic":
            np.savez_compressed(path, data=values.astype(np.uint16))
        else:
            values.astype(np.uint8).tofile(path)
        row = {"token": lidar["token"], "sample_data_token": lidar["token"]}
        data.tables[kind].append({**row, "filename": path.relative_to(data.root).as_posix()})


def random_motion(rng: np.random.Generator, metres: float) -> dict[str, Any]:
    """Translation and quaternion (w, x, y, z) of a row."""
    rotation = rng.normal(size=4)
    return {
        "translation": rng.normal(0, metres, 3).tolist(),
        "rotation": (rotation / np.linalg.norm(rotation)).tolist(),
    }


def motion_matrix(row: dict[str, Any]) -> np.ndarray:
    """A 4x4 pose from translation and quaternion (w, x, y, z) of a row."""
    w, x, y, z = row["rotation"]
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat([x, y, z, w]).as_matrix()
    matrix[:3, 3] = row["translation"]
    return matrix


# ---------------------------------------------------------------------------------------------------------------- KITTI

P2 = np.array([[20.0, 0, 15.5, 4.5], [0, 20.0, 9.5, -0.1], [0, 0, 1, 0.003]])
P3 = np.array([[20.0, 0, 15.5, -3.5], [0, 20.0, 9.5, 2.3], [0, 0, 1, 0.005]])
TR = np.array([[0.0, -1, 0, -0.01], [0, 0, -1, -0.05], [1, 0, 0, -0.3]])
R0 = Rotation.from_euler("xyz", [0.01, -0.008, 0.004]).as_matrix()


def line(name: str, matrix: np.ndarray) -> str:
    """A line of a calibration file."""
    return f"{name}: {' '.join(f'{value:.12e}' for value in matrix.reshape(-1))}\n"


def kitti_poses(count: int) -> np.ndarray:
    """Poses of camera 0, the first where the sequence begins."""
    poses = np.zeros((count, 3, 4))
    for number in range(count):
        poses[number, :, :3] = Rotation.from_euler("y", 0.1 * number).as_matrix()
        poses[number, :, 3] = [0.2 * number, 0, 1.5 * number]
    return poses


def write_semantickitti(
    root: Path,
    *,
    sequences: tuple[str, ...] = ("00", "08"),
    num_scans: int = 3,
    num_points: int = 60,
    cameras: tuple[str, ...] = ("image_2",),
) -> Path:
    """Write one; labels are moving cars, cars, road, lane markings, vegetation and unlabelled points in turn."""
    for sequence in sequences:
        folder = root / "sequences" / sequence
        for name in ("velodyne", "labels"):
            (folder / name).mkdir(parents=True)
        calibration = "".join(line(f"P{k}", p) for k, p in ((0, P2), (1, P3), (2, P2), (3, P3)))
        (folder / "calib.txt").write_text(calibration + line("Tr", TR))
        rows = (" ".join(map(repr, pose.reshape(-1).tolist())) for pose in kitti_poses(num_scans))
        (folder / "poses.txt").write_text("\n".join(rows) + "\n")
        (folder / "times.txt").write_text("".join(f"{0.1 * k:e}\n" for k in range(num_scans)))
        for number in range(num_scans):
            sweep_rows(num_points, 4, number).tofile(folder / "velodyne" / f"{number:06d}.bin")
            raw = np.array([252, 10, 40, 60, 70, 0])[np.arange(num_points) % 6]
            numbers = np.where(raw == 252, 7, np.where(raw == 10, 300 + number, 0))
            (raw | numbers << 16).astype("<u4").tofile(folder / "labels" / f"{number:06d}.label")
            for camera in cameras:
                photograph(folder / camera / f"{number:06d}.png")
    return root


def write_kitti_object(root: Path, *, num_points: int = 60) -> Path:
    """Two frames to train on, one to test on."""
    for folder, number in (("training", 0), ("training", 3), ("testing", 0)):
        place = root / folder
        for name in ("velodyne", "calib"):
            (place / name).mkdir(parents=True, exist_ok=True)
        sweep_rows(num_points, 4, number).tofile(place / "velodyne" / f"{number:06d}.bin")
        text = line("P2", P2) + line("P3", P3) + line("R0_rect", R0) + line("Tr_velo_to_cam", TR)
        (place / "calib" / f"{number:06d}.txt").write_text(text + line("Tr_imu_to_velo", TR) + "\n")
        photograph(place / "image_2" / f"{number:06d}.png")
    return root
