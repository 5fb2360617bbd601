"""KITTI's object frames: where points meet pixels, splits, faults in one line each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ov3d.common.base.errors import DataError
from ov3d.common.readers import load_scene, open_source
from ov3d.common.scenes.cameras import transform
from tests.common.readers.sweep_writers import P2, R0, TR, sweep_rows, write_kitti_object
from tests.common.readers.test_damage import fuzz


def test_frames_and_splits(tmp_path: Path) -> None:
    source = open_source(write_kitti_object(tmp_path))
    assert list(source.ids) == ["training-000000", "training-000003", "testing-000000"]
    assert source.splits == {"training": ("training-000000", "training-000003"), "testing": ("testing-000000",)}
    scene = load_scene(tmp_path, "training-000003")
    cloud, sweep, rows = scene.cloud, scene.sweep, sweep_rows(60, 4, 3)
    assert cloud is not None and sweep is not None and cloud.labels is None and scene.classes == ()
    assert np.array_equal(cloud.xyz, rows[:, :3]) and np.array_equal(cloud.intensity, rows[:, 3])
    assert (scene.path, scene.layout, sweep.token, sweep.sequence) == (tmp_path, "kitti-object", "000003", "training")
    assert list(open_source(tmp_path / "testing").ids) == ["testing-000000"]
    assert load_scene(tmp_path / "training" / "training-000003").name == "training-000003"


def test_points_meet_pixels_as_the_formula_says(tmp_path: Path) -> None:
    scene = load_scene(write_kitti_object(tmp_path), "training-000000")
    assert scene.cloud is not None
    (frame,) = scene.frames
    rectified = np.column_stack([transform(np.vstack([TR, (0, 0, 0, 1)]), scene.cloud.xyz) @ R0.T, np.ones(60)])
    pixels = rectified @ P2.T
    uv, z = frame.camera.project(transform(np.linalg.inv(frame.world_from_camera), scene.cloud.xyz))
    np.testing.assert_allclose(z, pixels[:, 2], rtol=1e-10)
    np.testing.assert_allclose(uv, pixels[:, :2] / pixels[:, 2:] + 0.5, rtol=1e-8)


@pytest.mark.parametrize("name", ["P2", "R0_rect", "Tr_velo_to_cam"])
def test_a_missing_line_is_named(tmp_path: Path, name: str) -> None:
    path = write_kitti_object(tmp_path) / "training" / "calib" / "000003.txt"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith(name)))
    with pytest.raises(DataError, match=f"000003.txt has no line {name}.*It has: .*Tr_imu_to_velo"):
        load_scene(tmp_path, "training-000003")


def test_a_missing_photograph_is_noted(tmp_path: Path) -> None:
    (write_kitti_object(tmp_path) / "training" / "image_2" / "000003.png").unlink()
    scene = load_scene(tmp_path, "training-000003")
    assert scene.frames == () and scene.notes == ("photograph 000003 of image_2 is missing",)


@pytest.mark.filterwarnings("error")
def test_damage_is_refused_or_read_around(tmp_path: Path) -> None:
    write_kitti_object(tmp_path / "data")
    for name in ("velodyne", "calib", "image_2"):
        for path in (
            *(tmp_path / "data" / "testing" / name).iterdir(),
            *(tmp_path / "data" / "training" / name).glob("*3.*"),
        ):
            path.unlink()
    outcome = fuzz(tmp_path / "data", tmp_path / "data", 3, 60)
    assert outcome["refused"] > 10 and outcome["read"] > 10


@pytest.mark.shared_data
def test_the_shared_frame(shared_data: Path) -> None:
    root = shared_data / "lidar" / "kitti-object"
    scene = load_scene(root)
    assert (scene.name, len(scene.cloud)) == ("training-000001", 120_268)  # type: ignore[arg-type]
    assert scene.cloud is not None
    (frame,) = scene.frames
    lines = dict(
        line.split(":", 1) for line in (root / "training/calib/000001.txt").read_text().splitlines() if ":" in line
    )
    values = {name: np.array(numbers.split(), float) for name, numbers in lines.items()}
    points = transform(np.vstack([values["Tr_velo_to_cam"].reshape(3, 4), (0, 0, 0, 1)]), scene.cloud.xyz)
    points = np.column_stack([points @ values["R0_rect"].reshape(3, 3).T, np.ones(len(points))])
    pixels = points @ values["P2"].reshape(3, 4).T
    inside = (pixels[:, 2] > 0) & (pixels[:, :2] / pixels[:, 2:] >= -0.5).all(axis=1)
    inside &= (pixels[:, :2] / pixels[:, 2:] < np.array([frame.camera.width, frame.camera.height]) - 0.5).all(axis=1)
    uv, z = frame.camera.project(transform(np.linalg.inv(frame.world_from_camera), scene.cloud.xyz))
    ours = (z > 0) & (uv >= 0).all(axis=1) & (uv < (frame.camera.width, frame.camera.height)).all(axis=1)
    assert np.array_equal(inside, ours) and inside.sum() > 15_000
