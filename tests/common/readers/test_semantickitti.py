"""SemanticKITTI: scans, labels, calibration and poses, data sets with fewer cameras or none, faults in one line each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ov3d.common.base.errors import Ov3dError
from ov3d.common.readers import load_scene, open_source, semantickitti
from ov3d.common.scenes.cameras import transform
from ov3d.common.scenes.scene import IGNORE
from tests.common.readers.sweep_writers import P2, P3, TR, kitti_poses, sweep_rows, write_semantickitti
from tests.common.readers.test_damage import fuzz


def refused(path: Path, name: str | None = None) -> str:
    """The error of a data set that cannot be read, as the command line prints it."""
    with pytest.raises(Ov3dError) as caught:
        load_scene(path, name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_scans_of_all_sequences_with_their_splits(tmp_path: Path) -> None:
    source = open_source(write_semantickitti(tmp_path, sequences=("00", "08", "11")))
    assert list(source.ids) == [f"{sequence}-00000{k}" for sequence in ("00", "08", "11") for k in range(3)]
    for split, sequence in (("train", "00"), ("val", "08"), ("test", "11")):
        assert source.splits[split] == tuple(f"{sequence}-00000{k}" for k in range(3))
    scene = source[4]
    cloud, sweep, rows = scene.cloud, scene.sweep, sweep_rows(60, 4, 1)
    assert cloud is not None and sweep is not None and cloud.intensity is not None
    assert (scene.name, scene.layout, scene.path, scene.notes) == ("08-000001", "semantickitti", tmp_path, ())
    assert np.array_equal(cloud.xyz, rows[:, :3]) and np.array_equal(cloud.intensity, rows[:, 3])
    assert (sweep.token, sweep.sequence, sweep.time, sweep.num_file_rows) == ("000001", "08", 100_000, 60)


@pytest.mark.parametrize("opened", ["", "sequences", "sequences/08"])
def test_a_folder_of_sequences_or_one_of_them_can_be_opened(tmp_path: Path, opened: str) -> None:
    path = write_semantickitti(tmp_path) / opened
    source = open_source(path)
    assert source.ids[-3:] == ("08-000000", "08-000001", "08-000002") and len(source) == (3 if "08" in opened else 6)
    assert load_scene(path, "08-000002").sweep is not None
    assert load_scene(path / "08-000002").name == "08-000002"


def test_labels_are_classes_and_numbers_of_objects(tmp_path: Path) -> None:
    cloud = load_scene(write_semantickitti(tmp_path), "08-000002").cloud
    assert cloud is not None and cloud.labels is not None and cloud.instances is not None
    # A moving car, a car, road, lane marking, vegetation, nothing known; objects of things alone.
    assert cloud.labels[:6].tolist() == [0, 0, 8, 8, 14, IGNORE]
    assert cloud.instances[:6].tolist() == [7, 302, IGNORE, IGNORE, IGNORE, IGNORE]


def test_points_meet_pixels_as_the_formula_says(tmp_path: Path) -> None:
    scene = load_scene(write_semantickitti(tmp_path, cameras=("image_2", "image_3")), "08-000001")
    assert scene.cloud is not None and [frame.name for frame in scene.frames] == ["image_2", "image_3"]
    for frame, projection in zip(scene.frames, (P2, P3), strict=True):
        points = transform(np.vstack([TR, (0, 0, 0, 1)]), scene.cloud.xyz)
        pixels = np.column_stack([points, np.ones(60)]) @ projection.T
        uv, z = frame.camera.project(transform(np.linalg.inv(frame.world_from_camera), scene.cloud.xyz))
        np.testing.assert_allclose(z, pixels[:, 2], rtol=1e-12)
        np.testing.assert_allclose(uv, pixels[:, :2] / pixels[:, 2:] + 0.5, rtol=1e-9)
    assert scene.sweep is not None and scene.sweep.camera_offsets() == {"image_2": 0.0, "image_3": 0.0}


def test_poses_are_those_of_the_lidar(tmp_path: Path) -> None:
    source = open_source(write_semantickitti(tmp_path))
    camera_from_lidar = np.vstack([TR, (0, 0, 0, 1)])
    for number, pose in enumerate(kitti_poses(3)):
        expected = np.linalg.inv(camera_from_lidar) @ np.vstack([pose, (0, 0, 0, 1)]) @ camera_from_lidar
        sweep = source[number].sweep
        assert sweep is not None
        np.testing.assert_allclose(sweep.global_from_lidar, expected, atol=1e-12)


def test_a_scale_moves_the_sensor_too(tmp_path: Path) -> None:
    path = write_semantickitti(tmp_path)
    plain, scaled = load_scene(path, "08-000002"), load_scene(path, "08-000002", scale=0.5)
    assert plain.cloud is not None and plain.sweep is not None and scaled.cloud is not None and scaled.sweep is not None
    before, after = (transform(one.sweep.global_from_lidar, one.cloud.xyz) for one in (plain, scaled))  # type: ignore[union-attr]
    np.testing.assert_allclose(after, before / 2, atol=1e-6)


def test_the_files_of_a_sequence_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    plain = semantickitti._rows
    monkeypatch.setattr(semantickitti, "_rows", lambda path, columns: opened.append(path.name) or plain(path, columns))
    monkeypatch.setattr(
        semantickitti,
        "read_calibration",
        lambda path, read=semantickitti.read_calibration: opened.append(path.name) or read(path),
    )
    source = open_source(write_semantickitti(tmp_path, sequences=("08",)))
    assert opened == []
    assert [source[k].sweep.time for k in (2, 0, 1)] == [200_000, 0, 100_000]  # type: ignore[union-attr]
    assert sorted(opened) == ["calib.txt", "poses.txt", "times.txt"]


def test_points_alone_need_no_calibration(tmp_path: Path) -> None:
    folder = write_semantickitti(tmp_path, sequences=("08",), cameras=()) / "sequences" / "08"
    for name in ("calib.txt", "poses.txt", "times.txt"):
        (folder / name).unlink()
    for path in (folder / "labels").iterdir():
        path.unlink()
    scene = load_scene(tmp_path, "08-000001")
    assert scene.frames == () and scene.cloud is not None and scene.cloud.labels is None and scene.classes == ()
    assert (
        scene.sweep is not None and np.array_equal(scene.sweep.global_from_lidar, np.eye(4)) and scene.sweep.time == 0
    )
    assert scene.notes == ()


def test_poses_that_end_too_early_are_noted(tmp_path: Path) -> None:
    path = write_semantickitti(tmp_path, sequences=("08",)) / "sequences" / "08" / "poses.txt"
    path.write_text("".join(path.read_text().splitlines(True)[:2]))
    source = open_source(tmp_path)
    assert source[1].notes == ()
    assert source[2].notes == (f"{path} has no pose of scan 000002; that of the first is taken",)
    assert np.array_equal(source[2].sweep.global_from_lidar, np.eye(4))  # type: ignore[union-attr]


def test_fewer_cameras_are_ordinary_and_a_missing_photograph_is_noted(tmp_path: Path) -> None:
    folder = write_semantickitti(tmp_path, cameras=("image_2", "image_3")) / "sequences" / "08"
    (folder / "image_3" / "000001.png").unlink()
    scene = load_scene(tmp_path, "08-000001")
    assert [frame.name for frame in scene.frames] == ["image_2"]
    assert scene.notes == ("photograph 000001 of image_3 is missing; the other 1 of 2 cameras are used",)
    for path in (folder / "image_3").iterdir():
        path.unlink()
    (folder / "image_3").rmdir()
    scene = load_scene(tmp_path, "08-000001")
    assert [frame.name for frame in scene.frames] == ["image_2"] and scene.notes == ()


def test_points_that_are_not_finite_are_dropped_and_labels_stay_aligned(tmp_path: Path) -> None:
    folder = write_semantickitti(tmp_path) / "sequences" / "08"
    rows = sweep_rows(60, 4, 0)
    rows[0, 1], rows[13, 0] = np.inf, np.nan
    rows.tofile(folder / "velodyne" / "000000.bin")
    scene = load_scene(tmp_path, "08-000000")
    assert scene.cloud is not None and scene.cloud.labels is not None and scene.cloud.instances is not None
    assert scene.notes == ("2 of 60 points of 000000.bin are not finite and were dropped",)
    kept = np.delete(np.arange(60), [0, 13])
    assert scene.sweep is not None and np.array_equal(scene.sweep.file_rows, kept) and scene.sweep.num_file_rows == 60
    assert scene.cloud.labels.tolist() == [[0, 0, 8, 8, 14, IGNORE][k % 6] for k in kept]
    assert scene.cloud.instances.tolist() == [[7, 300, *[IGNORE] * 4][k % 6] for k in kept]


def _odd(folder: Path) -> None:
    path = folder / "velodyne" / "000000.bin"
    path.write_bytes(path.read_bytes()[:-2])


def _empty(folder: Path) -> None:
    (folder / "velodyne" / "000000.bin").write_bytes(b"")


def _fewer_labels(folder: Path) -> None:
    path = folder / "labels" / "000000.label"
    path.write_bytes(path.read_bytes()[:-4])


def _odd_labels(folder: Path) -> None:
    path = folder / "labels" / "000000.label"
    path.write_bytes(path.read_bytes()[:-1])


def _unknown(folder: Path) -> None:
    (np.arange(60, dtype="<u4") | 5 << 16).tofile(folder / "labels" / "000000.label")


def _without(name: str) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        path = folder / "calib.txt"
        path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith(name)))

    return harm


def _replaced(name: str, values: str) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        _without(name)(folder)
        with (folder / "calib.txt").open("a") as file:
            file.write(f"{name}{values}\n")

    return harm


def _no_calibration(folder: Path) -> None:
    (folder / "calib.txt").unlink()


def _odd_poses(folder: Path) -> None:
    (folder / "poses.txt").write_text("1 2 3\n")


def _odd_times(folder: Path) -> None:
    (folder / "times.txt").write_text("noon\n")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_odd, "has 958 bytes, not a multiple of 16 (4 fp32 per point)"),
        (_empty, "has 0 bytes"),
        (_fewer_labels, "holds 59 labels for a sweep of 60 points"),
        (_odd_labels, "have 239 bytes, not a multiple of 4"),
        (_unknown, "does not know: 2, 3, 4, 5, 6, 7, 8, 9 and 33 more."),
        (_without("P2"), "has no line P2. It has: P0, P1, P3, Tr."),
        (_without("Tr"), "has no line Tr or Tr_velo_to_cam. It has: P0, P1, P2, P3."),
        (_replaced("Tr:", " 1 2 3"), "Tr of"),
        (_replaced("Tr:", " 1 0 0 0 0 2 0 0 0 0 1 0"), "is not a rigid motion: its rotation is not orthonormal"),
        (_replaced("P2:", " 20 5 15 0 0 20 9 0 0 0 1 0"), "is not the matrix of a rectified pinhole camera"),
        (_replaced("P2:", " twenty"), "is not a name and numbers"),
        (_no_calibration, "calib.txt cannot be read: No such file or directory"),
        (_odd_poses, "is not rows of 12 finite numbers"),
        (_odd_times, "is not rows of 1 finite numbers"),
    ],
)
def test_faults_are_one_line(tmp_path: Path, harm: Callable[[Path], None], says: str) -> None:
    folder = write_semantickitti(tmp_path, sequences=("08",)) / "sequences" / "08"
    harm(folder)
    assert says in refused(tmp_path, "08-000000")


def test_of_many_scans_one_is_named(tmp_path: Path) -> None:
    write_semantickitti(tmp_path)
    assert f"holds 6 scenes (00-000000, 00-000001, 00-000002, …). Name one: {tmp_path / '00-000000'}" in refused(
        tmp_path
    )
    (tmp_path / "empty" / "sequences" / "00" / "velodyne").mkdir(parents=True)
    assert "holds no scan" in refused(tmp_path / "empty")


@pytest.mark.filterwarnings("error")
def test_damage_is_refused_or_read_around(tmp_path: Path) -> None:
    write_semantickitti(tmp_path / "data", sequences=("08",), num_scans=1)
    outcome = fuzz(tmp_path / "data", tmp_path / "data", 5, 80)
    assert outcome["refused"] > 10 and outcome["read"] > 10


@pytest.mark.shared_data
def test_the_shared_scans(shared_data: Path) -> None:
    source = open_source(shared_data / "lidar" / "semantickitti")
    assert list(source.ids) == ["00-000000", "00-000001", "00-000002"] and source.splits == {"train": source.ids}
    scenes = [source[k] for k in range(3)]
    assert [len(scene.cloud) for scene in scenes] == [124_668, 124_605, 124_478]  # type: ignore[arg-type]
    assert all(scene.frames == () and scene.notes == () for scene in scenes)
    sweeps = [scene.sweep for scene in scenes]
    assert [sweep.time for sweep in sweeps if sweep] == [0, 103_736, 207_338]
    # The car drives forward, which is x for the LiDAR.
    forward = [sweep.global_from_lidar[:3, 3] for sweep in sweeps if sweep]
    np.testing.assert_allclose(forward[2] - forward[0], [1.37, 0.03, 0.0], atol=0.03)
    cloud = scenes[0].cloud
    assert cloud is not None and cloud.labels is not None and cloud.instances is not None
    present = {scenes[0].classes[label] for label in np.unique(cloud.labels[cloud.labels != IGNORE])}
    assert {"car", "road", "building", "pole", "motorcyclist"} <= present
    assert {scenes[0].classes[one >> 16] for one in np.unique(cloud.instances[cloud.instances >= 0])} == {
        "car", "motorcyclist"
    }  # fmt: skip
