"""Streets in the layouts of nuScenes and SemanticKITTI, read back by hand, straight from the formats' definitions."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.datasets import load_dataset
from ov3d.common.scenes.cameras import transform
from ov3d.common.teachers.label_names import read_names
from ov3d.common.worlds.nuscenes_tables import TABLES, quaternion
from ov3d.common.worlds.nuscenes_writer import VERSION, instance_numbers, write_nuscenes
from ov3d.common.worlds.semantickitti_writer import write_semantickitti
from ov3d.common.worlds.street import Drive, StreetConfig, build_drive
from ov3d.common.worlds.street_classes import STREET_CLASSES, STREET_NAMES, class_id

NUSCENES = StreetConfig(seed=5, num_sweeps=2, columns=120, width=96, height=54, reach=40.0)
KITTI = StreetConfig(seed=6, num_sweeps=2, rig="semantickitti", beams=64, columns=120, width=124, height=38, reach=40.0)
OTHER = dataclasses.replace(NUSCENES, seed=7)

Tables = dict[str, dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def nuscenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("street") / "nuscenes"
    return write_nuscenes(folder, {"train": [NUSCENES], "val": [OTHER]})


@pytest.fixture(scope="module")
def tables(nuscenes: Path) -> Tables:
    """Rows of every table by their tokens."""
    rows = {name: json.loads((nuscenes / VERSION / f"{name}.json").read_text()) for name in TABLES}
    found = {name: {row["token"]: row for row in table} for name, table in rows.items()}
    assert all(len(found[name]) == len(rows[name]) for name in TABLES), "two rows share a token"
    return found


@pytest.fixture(scope="module")
def kitti(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_semantickitti(tmp_path_factory.mktemp("street") / "kitti", {"08": KITTI})


@pytest.fixture(scope="module")
def nuscenes_drive() -> Drive:
    return build_drive(NUSCENES)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _pose(row: dict[str, Any]) -> np.ndarray:
    w, x, y, z = row["rotation"]
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_quat([x, y, z, w]).as_matrix()
    pose[:3, 3] = row["translation"]
    return pose


def _in_order(tables: Tables, channel: str, scene: str) -> list[dict[str, Any]]:
    """A channel's files in a scene, by following `next`."""
    scene_token = next(row["token"] for row in tables["scene"].values() if row["name"] == scene)
    row = next(
        row
        for row in tables["sample_data"].values()
        if f"/{channel}/" in row["filename"]
        and tables["sample"][row["sample_token"]]["scene_token"] == scene_token
        and not row["prev"]
    )
    rows = [row]
    while row["next"]:
        row = tables["sample_data"][row["next"]]
        assert row["prev"] == rows[-1]["token"]
        rows.append(row)
    return rows


def test_every_token_leads_somewhere(nuscenes: Path, tables: Tables) -> None:
    targets = {"scene_token": "scene", "log_token": "log", "sample_token": "sample", "ego_pose_token": "ego_pose"}
    targets |= {"calibrated_sensor_token": "calibrated_sensor", "sensor_token": "sensor", "instance_token": "instance"}
    targets |= {"category_token": "category", "sample_data_token": "sample_data"}
    targets |= {f"{end}_sample_token": "sample" for end in ("first", "last")}
    targets |= {f"{end}_annotation_token": "sample_annotation" for end in ("first", "last")}
    seen = set()
    for name, table in tables.items():
        for row in table.values():
            for field, value in row.items():
                target = name if field in {"prev", "next"} else targets.get(field)
                if target and value:
                    assert value in tables[target], (name, field)
                    seen.add(field)
            if row.get("filename"):
                assert (nuscenes / row["filename"]).is_file()
    assert seen >= {*targets, "prev", "next"}
    assert [len(tables[name]) for name in ("scene", "sample", "sample_data", "sensor")] == [2, 4, 28, 7]
    assert json.loads((nuscenes / "splits.json").read_text()) == {"train": ["scene-0001"], "val": ["scene-0002"]}
    assert [row["index"] for row in tables["category"].values()] == list(range(32))


def test_nuscenes_points_and_labels_are_what_was_measured(
    nuscenes: Path, tables: Tables, nuscenes_drive: Drive
) -> None:
    truth_ids = load_dataset("nuscenes-panoptic").truth_ids
    for number, row in enumerate(_in_order(tables, "LIDAR_TOP", "scene-0001")):
        sweep = nuscenes_drive.sweep(number, photographs=False)
        points = np.fromfile(nuscenes / row["filename"], "<f4").reshape(-1, 5)
        assert np.array_equal(points[:, :3], sweep.xyz)
        assert np.array_equal(points[:, 3], np.rint(sweep.intensity * np.float32(255)))
        assert np.array_equal(points[:, 4], sweep.ring)
        assert row["timestamp"] == sweep.timestamp == tables["sample"][row["sample_token"]]["timestamp"]
        pose = _pose(tables["ego_pose"][row["ego_pose_token"]])
        np.testing.assert_allclose(pose, sweep.world_from_ego, atol=1e-9)
        sensor = tables["calibrated_sensor"][row["calibrated_sensor_token"]]
        np.testing.assert_allclose(_pose(sensor), sweep.ego_from_lidar, atol=1e-12)
        lidarseg = np.fromfile(nuscenes / tables["lidarseg"][row["token"]]["filename"], np.uint8)
        assert lidarseg.tolist() == [STREET_CLASSES[label].nuscenes for label in sweep.labels]
        with np.load(nuscenes / tables["panoptic"][row["token"]]["filename"]) as file:
            panoptic = file["data"]
        assert panoptic.dtype == np.uint16 and np.array_equal(panoptic // 1000, lidarseg)
        assert np.array_equal(panoptic % 1000 > 0, sweep.instances > 0)
        # Within what the challenge takes for one class, an instance is one object.
        challenge = np.array([truth_ids[int(raw)] for raw in lidarseg])
        pairs = {(c, p % 1000, i) for c, p, i in zip(challenge, panoptic, sweep.instances, strict=True) if i > 0}
        assert len(pairs) == len({(c, p) for c, p, _ in pairs}) == len({i for *_, i in pairs}) > 0


def test_nuscenes_chain_projects_points_onto_pixels_of_their_class(nuscenes: Path, tables: Tables) -> None:
    truth_ids = load_dataset("nuscenes-panoptic").truth_ids
    lidar = _in_order(tables, "LIDAR_TOP", "scene-0002")[1]
    points = np.fromfile(nuscenes / lidar["filename"], "<f4").reshape(-1, 5)[:, :3].astype(np.float64)
    raw = np.fromfile(nuscenes / tables["lidarseg"][lidar["token"]]["filename"], np.uint8)
    classes = np.array([truth_ids[int(value)] for value in raw])
    sensor = _pose(tables["calibrated_sensor"][lidar["calibrated_sensor_token"]])
    world = transform(_pose(tables["ego_pose"][lidar["ego_pose_token"]]) @ sensor, points)
    names = read_names(nuscenes / "pixel_labels")
    for channel in ("CAM_FRONT", "CAM_BACK_LEFT"):
        row = _in_order(tables, channel, "scene-0002")[1]
        assert 0 <= lidar["timestamp"] - row["timestamp"] < 50_000
        calibrated = tables["calibrated_sensor"][row["calibrated_sensor_token"]]
        chain = _pose(tables["ego_pose"][row["ego_pose_token"]]) @ _pose(calibrated)
        local = transform(np.linalg.inv(chain), world)
        u, v, w = np.array(calibrated["camera_intrinsic"]) @ local[local[:, 2] > 1].T
        column, line = np.rint(u / w).astype(int), np.rint(v / w).astype(int)  # pixel centres are whole numbers
        inside = (column >= 0) & (column < row["width"]) & (line >= 0) & (line < row["height"])
        pixels = np.array(Image.open(nuscenes / "pixel_labels" / (Path(row["filename"]).stem + ".png")))
        assert pixels.dtype == np.uint8 and pixels.shape == (row["height"], row["width"])
        assert set(np.unique(pixels)) <= {0, *names.ids}
        with Image.open(nuscenes / row["filename"]) as image:
            assert image.size == (row["width"], row["height"]) and image.format == "JPEG"
        # Parallax between LiDAR and camera hides some; outlines are coarse in so small a picture.
        same = pixels[line[inside], column[inside]] == classes[local[:, 2] > 1][inside]
        assert inside.sum() > 100 and same.mean() > 0.85


def test_nuscenes_boxes_hold_their_points(nuscenes: Path, tables: Tables, nuscenes_drive: Drive) -> None:
    row = _in_order(tables, "LIDAR_TOP", "scene-0001")[0]
    sweep = nuscenes_drive.sweep(0, photographs=False)
    world = transform(sweep.world_from_ego @ sweep.ego_from_lidar, sweep.xyz)
    boxes = [box for box in tables["sample_annotation"].values() if box["sample_token"] == row["sample_token"]]
    assert len(boxes) == len(np.unique(sweep.instances[sweep.instances > 0])) > 3
    for box in boxes:
        width, length, height = box["size"]
        local = transform(np.linalg.inv(_pose(box)), world)
        slack = 0.6  # what a fast one moves within the sweep
        inside = (np.abs(local) < np.array((length, width, height)) / 2 + slack).all(axis=1)
        category = tables["category"][tables["instance"][box["instance_token"]]["category_token"]]["index"]
        general = np.array([STREET_CLASSES[label].nuscenes for label in sweep.labels])
        assert (inside & (general == category)).sum() >= box["num_lidar_pts"] > 0


def test_semantickitti_files_are_what_was_measured(kitti: Path) -> None:
    drive, sequence = build_drive(KITTI), kitti / "sequences" / "08"
    calibration = {
        line.split(":")[0]: np.array(line.split(":")[1].split(), np.float64).reshape(3, 4)
        for line in (sequence / "calib.txt").read_text().splitlines()
    }
    assert list(calibration) == ["P0", "P1", "P2", "P3", "Tr"]
    poses = np.loadtxt(sequence / "poses.txt").reshape(-1, 3, 4)
    np.testing.assert_allclose(np.loadtxt(sequence / "times.txt"), [0, KITTI.interval], atol=1e-9)
    np.testing.assert_allclose(poses[0], np.eye(4)[:3], atol=1e-9)
    camera_from_lidar = np.vstack([calibration["Tr"], (0, 0, 0, 1)])
    clouds = []
    for number in range(KITTI.num_sweeps):
        sweep = drive.sweep(number)
        points = np.fromfile(sequence / "velodyne" / f"{number:06d}.bin", "<f4").reshape(-1, 4)
        assert np.array_equal(points[:, :3], sweep.xyz) and np.array_equal(points[:, 3], sweep.intensity)
        labels = np.fromfile(sequence / "labels" / f"{number:06d}.label", "<u4")
        assert np.array_equal(labels >> 16, np.maximum(sweep.instances, 0))
        for raw, label, instance in zip(labels & 0xFFFF, sweep.labels, sweep.instances, strict=True):
            moves = instance > 0 and drive.world.things[instance - 1].motion.moves
            one = STREET_CLASSES[label]
            assert raw == (one.kitti_moving if moves else one.kitti)
        (shot,) = sweep.shots
        homogeneous = np.column_stack([points[:, :3].astype(np.float64), np.ones(len(points))])
        u, v, w = calibration["P2"] @ camera_from_lidar @ homogeneous.T
        camera = shot.mount.camera
        from_lidar = np.linalg.inv(shot.mount.ego_from_camera) @ sweep.ego_from_lidar
        uv, z = camera.project(transform(from_lidar, points[:, :3]))
        ahead = z > 0.5
        np.testing.assert_allclose(w[ahead], z[ahead], atol=1e-9)
        # Ours count pixel centres from +0.5, the format's from 0.
        np.testing.assert_allclose(np.column_stack([u, v])[ahead] / w[ahead, None], uv[ahead] - 0.5, atol=1e-6)
        assert np.array_equal(np.array(Image.open(sequence / "image_2" / f"{number:06d}.png")), shot.view.rgb)
        clouds.append(transform(np.vstack([poses[number], (0, 0, 0, 1)]) @ camera_from_lidar, points[:, :3]))
        assert abs(sweep.time.min() + 0.05) < 1e-3 and abs(sweep.time.max() - 0.05) < 1e-3
    road = [cloud[:, 1].max() for cloud in clouds]  # y is down in camera 0
    assert abs(road[0] - road[1]) < 0.5
    assert set(np.unique(np.array(Image.open(kitti / "pixel_labels/08/000001/image_2.png")))) <= set(range(20))
    assert read_names(kitti / "pixel_labels").names[:2] == ("car", "bicycle")


@pytest.mark.slow
def test_any_number_of_workers_writes_the_same_bytes(nuscenes: Path, kitti: Path, tmp_path: Path) -> None:
    write_nuscenes(tmp_path / "nuscenes", {"train": [NUSCENES], "val": [OTHER]}, workers=2)
    assert _files(tmp_path / "nuscenes") == _files(nuscenes)
    write_semantickitti(tmp_path / "kitti", {"08": KITTI}, workers=2)
    assert _files(tmp_path / "kitti") == _files(kitti)


def test_what_cannot_be_written_is_refused(nuscenes: Path, nuscenes_drive: Drive, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not empty"):
        write_nuscenes(nuscenes, {"train": [NUSCENES]})
    with pytest.raises(UsageError, match="sensors of nuscenes"):
        write_semantickitti(tmp_path / "a", {"00": NUSCENES})
    with pytest.raises(UsageError, match="No drive"):
        write_nuscenes(tmp_path / "b", {"train": []})
    with pytest.raises(UsageError, match="workers"):
        write_nuscenes(tmp_path / "c", {"train": [NUSCENES]}, workers=0)
    people = [thing for thing in nuscenes_drive.world.things if thing.name == "pedestrian"]
    with pytest.raises(DataError, match="at most 999"):
        instance_numbers(people[:1] * 1000)
    assert not list(tmp_path.rglob("*.json"))


def test_adults_and_children_are_numbered_together(nuscenes_drive: Drive) -> None:
    adult = next(thing for thing in nuscenes_drive.world.things if thing.name == "pedestrian")
    child, car = dataclasses.replace(adult, name="child"), dataclasses.replace(adult, name="car")
    assert instance_numbers([adult, child, car, adult]).tolist() == [0, 1, 2, 1, 3]


def test_quaternions_are_those_of_scipy() -> None:
    for turn in [*Rotation.random(50, rng=np.random.default_rng(1)), *Rotation.from_euler("xyz", np.eye(3) * np.pi)]:
        x, y, z, w = turn.as_quat(canonical=True)
        np.testing.assert_allclose(np.abs(quaternion(turn.as_matrix()) @ np.array([w, x, y, z])), 1, atol=1e-12)


def test_class_ids_are_those_of_the_data_sets() -> None:
    lidarseg, kitti = load_dataset("nuscenes-lidarseg"), load_dataset("semantickitti")
    expected = {"road": "driveable_surface", "pavement": "sidewalk", "bus": "bus", "bicyclist": "bicycle"}
    expected |= {"child": "pedestrian", "fence": "manmade", "trunk": "vegetation", "truck": "truck"}
    for name, official in expected.items():
        assert lidarseg.names[lidarseg.truth_ids[STREET_CLASSES[class_id(name)].nuscenes] or 0] == official
    expected = {"road": "road", "lane marking": "road", "bus": "other-vehicle", "child": "person", "pole": "pole"}
    for name, official in expected.items():
        one = STREET_CLASSES[class_id(name)]
        assert kitti.names[kitti.truth_ids[one.kitti] or 0] == kitti.names[kitti.truth_ids[one.kitti_moving] or 0]
        assert kitti.names[kitti.truth_ids[one.kitti] or 0] == official
    assert len(set(STREET_NAMES)) == len(STREET_NAMES)
