"""nuScenes: the pose chain, labels, what is read and what is not, faults in one line each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ov3d.common.base.errors import Ov3dError
from ov3d.common.datasets.nuscenes_splits import scenes_of_split
from ov3d.common.readers import load_scene, nuscenes_categories, nuscenes_tables, open_source
from ov3d.common.readers.json_records import records
from ov3d.common.readers.nuscenes_tables import DanglingTokensError
from ov3d.common.scenes.cameras import transform
from ov3d.common.scenes.scene import IGNORE, Scene
from tests.common.readers.sweep_writers import CAMERAS, NuScenes, motion_matrix, photograph, token, write_nuscenes
from tests.common.readers.test_damage import fuzz

FIRST = "scene-0061-000"
CLASSES = [3, 3, 10, 15, IGNORE, 6]
"""Of the writer's points, in turn: car, car, driveable surface, vegetation, noise, pedestrian."""


def refused(path: Path, name: str | None = None) -> str:
    """The error of a data set that cannot be read, as the command line prints it."""
    with pytest.raises(Ov3dError) as caught:
        load_scene(path, name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------- what is read


def test_keyframes_by_drive_and_time_with_the_splits_of_their_drives(tmp_path: Path) -> None:
    data = write_nuscenes(tmp_path, drives=("scene-0103", "scene-0061", "scene-9999"))
    source = open_source(tmp_path)
    assert list(source.ids) == [
        f"{drive}-00{k}" for drive in ("scene-0061", "scene-0103", "scene-9999") for k in (0, 1)
    ]
    assert source.splits == {
        "mini_train": ("scene-0061-000", "scene-0061-001"),
        "mini_val": ("scene-0103-000", "scene-0103-001"),
    }
    for scene, name in zip(source, source.ids, strict=True):
        assert (scene.name, scene.layout, scene.path) == (name, "nuscenes", tmp_path)
        cloud, sweep, rows = scene.cloud, scene.sweep, data.points[name]
        assert cloud is not None and sweep is not None and cloud.intensity is not None
        assert np.array_equal(cloud.xyz, rows[:, :3]) and np.array_equal(cloud.intensity, rows[:, 3])
        assert (sweep.token, sweep.sequence) == (data.file(name, "LIDAR_TOP")["token"], name[:10])
        assert (sweep.file_rows, sweep.num_file_rows) == (None, 60)
        assert scene.world.units == "metric" and not scene.notes


def test_versions_have_their_own_splits(tmp_path: Path) -> None:
    for version, expected in (
        ("v1.0-trainval", {"train": ("scene-0061-000",), "val": ("scene-0103-000",)}),
        ("v1.0-test", {"test": ("scene-0077-000",)}),
    ):
        root = tmp_path / version
        write_nuscenes(root, drives=("scene-0061", "scene-0077", "scene-0103"), num_keyframes=1, version=version)
        splits = dict(open_source(root).splits)
        splits.pop("test" if version != "v1.0-test" else "none", None)
        assert splits == expected
    assert sum(f"scene-{k:04d}" in scenes_of_split("v1.0-trainval", "val") for k in range(2000)) == 150
    assert sum(f"scene-{k:04d}" in scenes_of_split("v1.0-test", "test") for k in range(2000)) == 150


@pytest.mark.parametrize("place", ["", "v1.0-mini"])
def test_ones_own_splits(tmp_path: Path, place: str) -> None:
    write_nuscenes(tmp_path)
    path = tmp_path / place / "splits.json"
    path.write_text('{"mini_val": ["scene-0061"], "rain": ["scene-0103"], "none": []}')
    first, second = (tuple(f"{drive}-00{k}" for k in (0, 1)) for drive in ("scene-0061", "scene-0103"))
    assert open_source(tmp_path).splits == {"mini_train": first, "mini_val": first, "rain": second}
    path.write_text('{"rain": ["scene-0104"]}')
    assert "Split rain of" in refused(tmp_path) and "Did you mean scene-0103" in refused(tmp_path)
    path.write_text('["scene-0103"]')
    assert "is not a JSON object of lists of drives" in refused(tmp_path)


def test_photographs_stand_where_the_chain_of_poses_puts_them(tmp_path: Path) -> None:
    """Points go to a camera by way of the globe, each pose at its own time, as the devkit does it."""
    data = write_nuscenes(tmp_path)
    scene = load_scene(tmp_path, "scene-0103-001")
    assert scene.cloud is not None and scene.sweep is not None
    assert [frame.name for frame in scene.frames] == sorted(CAMERAS)

    def poses(channel: str) -> tuple[np.ndarray, np.ndarray, dict]:
        row = data.file("scene-0103-001", channel)
        calibration = data.row("calibrated_sensor", token=row["calibrated_sensor_token"])
        ego = data.row("ego_pose", token=row["ego_pose_token"])
        return motion_matrix(ego), motion_matrix(calibration), {**calibration, **row}

    global_from_ego, ego_from_lidar, lidar = poses("LIDAR_TOP")
    np.testing.assert_allclose(scene.sweep.global_from_lidar, global_from_ego @ ego_from_lidar, atol=1e-12)
    for frame in scene.frames:
        camera_ego, mounting, row = poses(frame.name)
        assert frame.image_path == tmp_path / row["filename"]
        points = transform(global_from_ego @ ego_from_lidar, scene.cloud.xyz)
        points = transform(np.linalg.inv(mounting) @ np.linalg.inv(camera_ego), points)
        uv, z = frame.camera.project(transform(np.linalg.inv(frame.world_from_camera), scene.cloud.xyz))
        np.testing.assert_allclose(z, points[:, 2], atol=1e-12)
        pixels = points @ np.array(row["camera_intrinsic"]).T
        np.testing.assert_allclose(uv, pixels[:, :2] / pixels[:, 2:] + 0.5, rtol=1e-9)
        offset = (row["timestamp"] - lidar["timestamp"]) * 1e-6
        assert scene.sweep.camera_offsets()[frame.name] == pytest.approx(offset, abs=1e-9) and offset < 0


@pytest.mark.parametrize("panoptic", [True, False])
def test_labels_of_the_panoptic_package_come_first(tmp_path: Path, panoptic: bool) -> None:
    write_nuscenes(tmp_path, panoptic=panoptic)
    scene = load_scene(tmp_path, FIRST)
    cloud = scene.cloud
    assert cloud is not None and cloud.labels is not None
    assert cloud.labels[:6].tolist() == CLASSES and len(scene.classes) == 16
    assert [scene.classes[label] for label in (3, 10, 15, 6)] == [
        "car",
        "driveable_surface",
        "vegetation",
        "pedestrian",
    ]
    if panoptic:
        assert cloud.instances is not None
        car, person = 3 << 16, 6 << 16
        assert cloud.instances[:6].tolist() == [car + 1, car + 2, IGNORE, IGNORE, IGNORE, person + 2]
    else:
        assert cloud.instances is None


def test_without_label_packages_there_are_no_labels(tmp_path: Path) -> None:
    write_nuscenes(tmp_path, panoptic=False, lidarseg=False, indexed=False)
    scene = load_scene(tmp_path, FIRST)
    assert scene.cloud is not None and scene.cloud.labels is None and scene.classes == ()


@pytest.mark.parametrize("indexed", [True, False])
def test_category_before_and_after_a_package_overwrote_it(tmp_path: Path, indexed: bool) -> None:
    data = write_nuscenes(tmp_path, indexed=indexed)
    scene = load_scene(tmp_path, FIRST)
    assert scene.cloud is not None and scene.cloud.labels is not None
    assert scene.cloud.labels[:6].tolist() == CLASSES
    (data.folder / "category.json").unlink()
    assert load_scene(tmp_path, FIRST).classes == scene.classes


def test_other_tables_and_files_between_keyframes_are_not_touched(tmp_path: Path) -> None:
    data = write_nuscenes(tmp_path)
    for name in ("sample_annotation", "instance", "attribute", "visibility", "log", "map"):
        (data.folder / f"{name}.json").write_text("this is not JSON")
    data.row("sample_data", filename=data.file(FIRST, "RADAR_FRONT")["filename"])["ego_pose_token"] = "nowhere"
    data.write_tables()
    assert len(load_scene(tmp_path, FIRST).frames) == 2


def test_a_sweep_without_a_camera_is_a_keyframe_and_photographs_without_a_sweep_are_none(tmp_path: Path) -> None:
    data = write_nuscenes(tmp_path)
    data.tables["sample_data"].remove(data.file(FIRST, "CAM_BACK"))
    data.tables["sample_data"].remove(data.file("scene-0103-000", "LIDAR_TOP"))
    for kind in ("panoptic", "lidarseg"):
        data.tables[kind] = [
            row for row in data.tables[kind] if row["token"] != token("data", "scene-0103-000", "LIDAR_TOP", 0)
        ]
    data.write_tables()
    source = open_source(tmp_path)
    assert source.ids == ("scene-0061-000", "scene-0061-001", "scene-0103-000")
    assert [frame.name for frame in source[0].frames] == ["CAM_FRONT"]
    assert np.array_equal(source[2].cloud.xyz, data.points["scene-0103-001"][:, :3])  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------- names of single keyframes


def test_one_keyframe_by_its_name_or_path(tmp_path: Path) -> None:
    data = write_nuscenes(tmp_path / "data")
    root = tmp_path / "data"
    named, at_path = load_scene(root, "scene-0103-001"), load_scene(root / "scene-0103-001")
    for scene in (named, at_path):
        assert (scene.name, scene.path) == ("scene-0103-001", root)
        assert np.array_equal(scene.cloud.xyz, data.points["scene-0103-001"][:, :3])  # type: ignore[union-attr]
    assert open_source(root / "scene-0103-001").ids == ("scene-0103-001",)
    assert "has no scene 'scene-0103-002'. Did you mean scene-0103-00" in refused(root, "scene-0103-002")
    assert "has no scene 'scene-0103-002'. Did you mean scene-0103-00" in refused(root / "scene-0103-002")
    assert f"Name one: {root / FIRST}" in refused(root)
    assert "does not exist" in refused(tmp_path / "elsewhere" / FIRST)
    assert "is a data set of 4 scenes" in refused(tmp_path, "data")


def test_a_name_that_is_none_of_many_lists_a_few(tmp_path: Path) -> None:
    write_nuscenes(tmp_path, num_keyframes=20, num_points=1)
    assert refused(tmp_path, "kitchen").endswith("It has 40: scene-0061-000, scene-0061-001, scene-0061-002, …")


def test_of_several_versions_one_is_named(tmp_path: Path) -> None:
    write_nuscenes(tmp_path, version="v1.0-mini")
    write_nuscenes(tmp_path, version="v1.0-trainval", drives=("scene-0003",), num_keyframes=1)
    assert f"Name one of them: {tmp_path / 'v1.0-mini'}" in refused(tmp_path)
    scene = load_scene(tmp_path / "v1.0-trainval")
    assert (scene.name, len(scene.frames), scene.path) == ("scene-0003-000", 2, tmp_path / "v1.0-trainval")
    assert load_scene(scene.path, scene.name).cloud is not None


# ------------------------------------------------------------------------------------------------------------ the cache


def test_the_second_start_reads_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_nuscenes(tmp_path / "data")
    opened: list[str] = []

    def counted(path: Path) -> object:
        opened.append(path.stem)
        return records(path)

    monkeypatch.setattr(nuscenes_tables, "records", counted)
    monkeypatch.setattr(nuscenes_categories, "records", counted)
    first = load_scene(data.root, FIRST)
    assert sorted(opened) == sorted((*nuscenes_tables.NEEDED, *nuscenes_tables.OPTIONAL))
    opened.clear()
    second = load_scene(data.root, FIRST)
    assert opened == []
    assert repr(first.frames) == repr(second.frames) and first.sweep is not None and second.sweep is not None
    assert np.array_equal(first.sweep.global_from_lidar, second.sweep.global_from_lidar)

    data.row("scene", name="scene-0061")["name"] = "scene-0555"
    data.write_tables()
    assert open_source(data.root).ids[2:] == ("scene-0555-000", "scene-0555-001")

    (kept,) = (tmp_path / "cache" / "nuscenes").iterdir()
    kept.write_bytes(kept.read_bytes()[:-1] + b"\xff")
    opened.clear()
    assert open_source(data.root).ids[2:] == ("scene-0555-000", "scene-0555-001") and opened
    kept.unlink()
    kept.parent.rmdir()
    kept.parent.write_text("in the way: the cache cannot be written")
    assert len(open_source(data.root)) == 4


def test_large_tables_are_worth_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_nuscenes(tmp_path)
    said: list[str] = []
    open_source(tmp_path, say=said.append)
    assert said == []
    (tmp_path / "v1.0-mini" / "scene.json").touch()
    monkeypatch.setattr(nuscenes_tables, "LARGE", 0)
    open_source(tmp_path, say=said.append)
    open_source(tmp_path, say=said.append)
    assert len(said) == 1 and said[0].startswith("Reading 0.0 GB of tables in")


# ----------------------------------------------------------------------------------------------------------- bad input


def test_all_dangling_tokens_are_named_in_one_pass(tmp_path: Path) -> None:
    data = write_nuscenes(tmp_path)
    gone = {
        "ego_pose": data.file(FIRST, "CAM_BACK")["ego_pose_token"],
        "calibrated_sensor": data.file(FIRST, "LIDAR_TOP")["calibrated_sensor_token"],
        "sample": token("scene-0103-001"),
        "scene": token("scene-0103"),
        "sensor": token("sensor", "CAM_FRONT"),
    }
    for table, key in gone.items():
        data.tables[table].remove(data.row(table, token=key))
    data.tables["panoptic"].append({"token": "x", "sample_data_token": "nobody", "filename": "panoptic/x.npz"})
    data.write_tables()
    with pytest.raises(DanglingTokensError) as caught:
        open_source(tmp_path)
    assert set(gone.items()) < set(caught.value.tokens)
    # The sensor is missing for two calibrations, the calibration for two sweeps, whose labels then belong to nothing.
    said = str(caught.value)
    assert (
        f"sensor {gone['sensor']} (2 rows)" in said
        and f"calibrated_sensor {gone['calibrated_sensor']} (2 rows)" in said
    )
    assert ("panoptic's sample_data", "nobody") in caught.value.tokens
    assert "\n" not in said and len(said) < 2000


def test_many_dangling_tokens_are_counted(tmp_path: Path) -> None:
    data = write_nuscenes(tmp_path, num_keyframes=4)
    data.tables["ego_pose"] = []
    data.write_tables()
    assert "24 tokens lead nowhere" in refused(tmp_path) and "; and 12 more." in refused(tmp_path)


@pytest.mark.parametrize("what", ["missing", "cut short"])
def test_photographs_that_cannot_be_used_are_left_out_with_a_note(tmp_path: Path, what: str) -> None:
    data = write_nuscenes(tmp_path)
    file = tmp_path / data.file(FIRST, "CAM_BACK")["filename"]
    if what == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:20])
    scene = load_scene(tmp_path, FIRST)
    assert [frame.name for frame in scene.frames] == ["CAM_FRONT"]
    state = "missing" if what == "missing" else "unreadable"
    assert scene.notes == (f"photograph {FIRST} of CAM_BACK is {state}; the other 1 of 2 cameras are used",)
    assert scene.sweep is not None and list(scene.sweep.camera_times) == ["CAM_FRONT"]


def test_photographs_that_were_made_smaller_keep_their_view(tmp_path: Path) -> None:
    data = write_nuscenes(tmp_path)
    whole = load_scene(tmp_path, FIRST).frames[0].camera
    file = tmp_path / data.file(FIRST, "CAM_BACK")["filename"]
    Image.open(file).resize((16, 10)).save(file)
    assert load_scene(tmp_path, FIRST).frames[0].camera == whole.resized(16, 10)
    photograph(file, (16, 20))
    assert f"Image {file} is 16x20, its intrinsics are for 32x20." in refused(tmp_path, FIRST)


def test_points_that_are_not_finite_are_dropped_and_labels_stay_aligned(tmp_path: Path) -> None:
    data = write_nuscenes(tmp_path)
    rows = data.points[FIRST].copy()
    rows[1, 0], rows[8, 2], rows[10, 3] = np.nan, np.inf, np.nan
    rows.tofile(tmp_path / data.file(FIRST, "LIDAR_TOP")["filename"])
    scene = load_scene(tmp_path, FIRST)
    kept = np.delete(np.arange(60), [1, 8, 10])
    cloud, sweep = scene.cloud, scene.sweep
    assert cloud is not None and cloud.labels is not None and sweep is not None and sweep.file_rows is not None
    assert np.array_equal(cloud.xyz, rows[kept, :3]) and np.array_equal(sweep.file_rows, kept)
    assert cloud.labels.tolist() == [CLASSES[place % 6] for place in kept]
    assert sweep.num_file_rows == 60
    assert [note.split(" of ")[:2] for note in scene.notes] == [["3", "60 points"]]


def _shorter_sweep(data: NuScenes) -> None:
    path = data.root / data.file(FIRST, "LIDAR_TOP")["filename"]
    path.write_bytes(path.read_bytes()[:-3])


def _one_point_less(data: NuScenes) -> None:
    path = data.root / data.file(FIRST, "LIDAR_TOP")["filename"]
    path.write_bytes(path.read_bytes()[:-20])


def _no_finite_point(data: NuScenes) -> None:
    np.full((60, 5), np.nan, "<f4").tofile(data.root / data.file(FIRST, "LIDAR_TOP")["filename"])


def _panoptic(data: NuScenes) -> Path:
    return data.root / data.row("panoptic", token=data.file(FIRST, "LIDAR_TOP")["token"])["filename"]


def _float_labels(data: NuScenes) -> None:
    np.savez(_panoptic(data), data=np.zeros(60))


def _table_labels(data: NuScenes) -> None:
    np.savez(_panoptic(data), data=np.zeros((60, 1), np.uint16))


def _no_archive(data: NuScenes) -> None:
    with _panoptic(data).open("wb") as file:
        np.save(file, np.zeros(60, np.uint16))


def _other_key(data: NuScenes) -> None:
    np.savez(_panoptic(data), labels=np.zeros(60, np.uint16))


def _damaged_labels(data: NuScenes) -> None:
    _panoptic(data).write_bytes(_panoptic(data).read_bytes()[:100])


def _unknown_class(data: NuScenes) -> None:
    np.savez(_panoptic(data), data=np.arange(60, dtype=np.uint16) * 1000)


def _no_panoptic(data: NuScenes) -> None:
    _panoptic(data).unlink()


def _wrong_number(data: NuScenes) -> None:
    data.row("category", name="vehicle.car")["index"] = 1


def _no_intrinsics(data: NuScenes) -> None:
    for row in data.tables["calibrated_sensor"]:
        row["camera_intrinsic"] = []


def _odd_intrinsics(data: NuScenes) -> None:
    data.row("calibrated_sensor", sensor_token=token("sensor", "CAM_BACK"))["camera_intrinsic"] = [[1, 0], [0, 1]]


def _odd_pose(data: NuScenes) -> None:
    data.row("ego_pose", token=data.file(FIRST, "CAM_BACK")["ego_pose_token"])["rotation"] = [1, 0, 0]


def _no_unit_quaternion(data: NuScenes) -> None:
    data.row("ego_pose", token=data.file(FIRST, "CAM_BACK")["ego_pose_token"])["rotation"] = [0.6, 0, 0, 0.6]


def _without_time(data: NuScenes) -> None:
    del data.tables["sample_data"][3]["timestamp"]


def _twice(data: NuScenes) -> None:
    data.tables["sample_data"].append({**data.file(FIRST, "CAM_BACK"), "token": "again"})


def _no_ego_table(data: NuScenes) -> None:
    del data.tables["ego_pose"]
    (data.folder / "ego_pose.json").unlink()


def _no_sweeps(data: NuScenes) -> None:
    for row in data.tables["sample_data"]:
        row["is_key_frame"] = False
    data.tables["panoptic"] = data.tables["lidarseg"] = []


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_shorter_sweep, "has 1,197 bytes, not a multiple of 20 (5 fp32 per point). It was cut short"),
        (_one_point_less, "holds 60 labels for a sweep of 59 points"),
        (_no_finite_point, "has no point with finite coordinates"),
        (_float_labels, "are float64 60, not whole numbers"),
        (_table_labels, "are uint16 60x1, not whole numbers"),
        (_no_archive, "have no array named data"),
        (_other_key, "have no array named data"),
        (_damaged_labels, "cannot be read"),
        (_unknown_class, "does not know: 32, 33, 34, 35, 36, 37, 38, 39 and 20 more."),
        (_no_panoptic, "cannot be read"),
        (_wrong_number, "gives vehicle.car the number 1, label files 17"),
        (_no_intrinsics, "Camera CAM_BACK has no intrinsics"),
        (_odd_intrinsics, "an intrinsic matrix that is not 3x3"),
        (_odd_pose, "a pose that is not 3 + 4 numbers"),
        (_no_unit_quaternion, "holds a pose that is none"),
        (_without_time, "Row 3 of"),
        (_twice, "gives one keyframe two files of one sensor"),
        (_no_ego_table, "ego_pose.json cannot be read: No such file"),
        (_no_sweeps, "lists no LiDAR keyframe"),
    ],
)
def test_faults_are_one_line(tmp_path: Path, harm: Callable[[NuScenes], None], says: str) -> None:
    data = write_nuscenes(tmp_path)
    harm(data)
    data.write_tables()
    assert says in refused(tmp_path, FIRST)


@pytest.mark.filterwarnings("error")
def test_damage_is_refused_or_read_around(tmp_path: Path) -> None:
    write_nuscenes(tmp_path / "data", drives=("scene-0061",), num_keyframes=1)
    outcome = fuzz(tmp_path / "data", tmp_path / "data", 11, 60)
    assert outcome["refused"] > 10 and outcome["read"] > 10


# ------------------------------------------------------------------------------------------------------ the real sample


def devkit_count(folder: Path, channel: str, xyz: np.ndarray) -> int:
    """Points that the devkit keeps in an image: more than 1 m off, and more than a pixel inside. From the tables alone."""
    tables = {
        name: json.loads((folder / f"{name}.json").read_text())
        for name in ("sample_data", "calibrated_sensor", "ego_pose")
    }
    by_token = {row["token"]: row for rows in tables.values() for row in rows}
    by_token |= {row["token"]: row for row in tables["ego_pose"]}
    chain = []
    for kind in ("LIDAR_TOP", channel):
        row = next(one for one in tables["sample_data"] if f"/{kind}/" in one["filename"])
        calibration = next(one for one in tables["calibrated_sensor"] if one["token"] == row["calibrated_sensor_token"])
        ego = next(one for one in tables["ego_pose"] if one["token"] == row["ego_pose_token"])
        chain.append((motion_matrix(calibration), motion_matrix(ego), calibration, row))
    points = xyz.astype(np.float64)
    for matrix in (chain[0][0], chain[0][1]):
        points = points @ matrix[:3, :3].T + matrix[:3, 3]
    for matrix in (chain[1][1], chain[1][0]):
        points = (points - matrix[:3, 3]) @ matrix[:3, :3]
    uv = points @ np.array(chain[1][2]["camera_intrinsic"]).T
    uv = uv[:, :2] / uv[:, 2:]
    size = np.array([chain[1][3]["width"], chain[1][3]["height"]])
    return int(((points[:, 2] > 1) & (uv > 1).all(axis=1) & (uv < size - 1).all(axis=1)).sum())


@pytest.mark.shared_data
def test_the_shared_keyframe(shared_data: Path) -> None:
    root = shared_data / "lidar" / "nuscenes"
    start = time.perf_counter()
    source = open_source(root)
    scene = source[0]
    assert time.perf_counter() - start < 1
    assert list(source.ids) == ["scene-0061-000"] and source.splits == {"mini_train": ("scene-0061-000",)}
    cloud, sweep = scene.cloud, scene.sweep
    assert cloud is not None and sweep is not None and cloud.labels is not None and cloud.instances is not None
    assert len(cloud) == 34_688 and len(scene.frames) == 6 and not scene.notes
    assert sweep.token == "9d9bf11fb0e144c8b446d54a8a00184f"
    offsets = sweep.camera_offsets()
    assert (min(offsets.values()), max(offsets.values())) == pytest.approx((-0.043107, -0.000528))
    assert _counts(scene) == {
        frame.name: devkit_count(root / "v1.0-mini", frame.name, cloud.xyz) for frame in scene.frames
    }
    # Its panoptic labels are those of things in boxes alone.
    owned = cloud.instances != IGNORE
    assert np.array_equal(owned, cloud.labels != IGNORE) and cloud.instances[owned].min() >> 16 >= 0
    assert [scene.classes[label] for label in np.unique(cloud.labels[owned])] == [
        "barrier", "bicycle", "bus", "car", "construction_vehicle", "pedestrian", "traffic_cone", "truck"
    ]  # fmt: skip


def _counts(scene: Scene) -> dict[str, int]:
    counts = {}
    for frame in scene.frames:
        assert scene.cloud is not None
        uv, z = frame.camera.project(transform(np.linalg.inv(frame.world_from_camera), scene.cloud.xyz))
        size = (frame.camera.width, frame.camera.height)
        inside = (uv - 0.5 > 1).all(axis=1) & (uv - 0.5 < np.array(size) - 1).all(axis=1)
        counts[frame.name] = int((inside & (z > 1)).sum())
    return counts
