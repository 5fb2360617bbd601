"""What doctor finds in a LiDAR sweep: shares, times, and the camera that was turned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ov3d.common.checks.edges import MAX_GAP, EdgeImage, edge_points, turn
from ov3d.common.checks.machine import Fact
from ov3d.common.checks.scene import describe_scene
from ov3d.common.readers.kitti_object import open_frames
from ov3d.common.readers.nuscenes import open_keyframes
from ov3d.common.scenes.cameras import invert_pose, transform
from ov3d.common.scenes.scene import PointCloud, Scene
from ov3d.common.worlds.nuscenes_writer import write_nuscenes
from ov3d.common.worlds.street import StreetConfig


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("street") / "nuscenes"
    return open_keyframes(write_nuscenes(folder, {"val": [StreetConfig(seed=3, num_sweeps=1)]}))[0]


def _turned(scene: Scene, name: str, axis: int, degrees: float) -> Scene:
    """The scene with one camera's extrinsic turned about one of the camera's axes."""
    frames = tuple(
        replace(frame, world_from_camera=frame.world_from_camera @ turn(axis, degrees)) if frame.name == name else frame
        for frame in scene.frames
    )
    return replace(scene, frames=frames)


def _extrinsics(scene: Scene, state: str) -> list[str]:
    return [fact.value for fact in describe_scene(scene) if fact.name == "extrinsics" and fact.state == state]


def _facts(scene: Scene) -> dict[str, Fact]:
    return {fact.name: fact for fact in describe_scene(scene)}


def test_a_generated_sweep_has_no_fault(street: Scene) -> None:
    facts = describe_scene(street)
    assert {fact.state for fact in facts} == {"ok"}
    found = {fact.name: fact.value for fact in facts}
    assert found["offsets"].startswith("CAM_BACK -10 ms, CAM_BACK_LEFT -1 ms, CAM_BACK_RIGHT -20 ms, CAM_FRONT -35 ms")
    assert found["extrinsics"].startswith("edges fit best as given, scores: CAM_BACK 0.")
    assert street.cloud is not None
    seen = np.zeros(len(street.cloud), np.int64)
    for frame in street.frames:
        uv, z = frame.camera.project(transform(invert_pose(frame.world_from_camera), street.cloud.xyz))
        size = (frame.camera.width, frame.camera.height)
        seen += (z > 1) & (uv > 1.5).all(axis=1) & (uv < np.array(size) - 0.5).all(axis=1)
    shares = f"{(seen > 0).mean():.1%} of the points, {(seen > 1).mean():.1%} in two or more; CAM_BACK "
    assert found["in images"].startswith(shares) and (seen > 0).mean() > 0.5
    assert "seen" not in found and street.sweep is not None and street.sweep.token in found["sweep"]


@pytest.mark.parametrize(
    ("name", "axis", "degrees", "seems"),
    [("CAM_FRONT", 1, 5.0, "+5 degrees about its y"), ("CAM_BACK_LEFT", 0, -5.0, "-5 degrees about its x")],
)
def test_a_turned_camera_of_a_street_is_named(street: Scene, name: str, axis: int, degrees: float, seems: str) -> None:
    (fault,) = _extrinsics(_turned(street, name, axis, degrees), "fault")
    assert fault.startswith(f"{name} seems turned by {seems} axis")
    (fitting,) = _extrinsics(_turned(street, name, axis, degrees), "ok")
    assert fitting.count("CAM_") == 5 and f"{name} " not in fitting


@pytest.mark.shared_data
def test_the_turned_camera_of_the_nuscenes_keyframe_is_named(shared_data: Path) -> None:
    scene = open_keyframes(shared_data / "lidar" / "nuscenes")[0]
    facts = describe_scene(scene)
    assert {fact.state for fact in facts} == {"ok"}
    assert _facts(scene)["in images"].value.startswith("58.2% of the points, 5.5% in two or more; CAM_BACK 13.9%, ")
    for number, frame in enumerate(scene.frames):
        axis, degrees = number % 3, 5.0 if number < 3 else -5.0
        (fault,) = _extrinsics(_turned(scene, frame.name, axis, degrees), "fault")
        assert fault.startswith(f"{frame.name} seems turned by {'+' if degrees > 0 else '-'}"), fault
        assert f"about its {'xyz'[axis]} axis" in fault


@pytest.mark.shared_data
def test_a_kitti_frame_has_no_clock_and_no_fault(shared_data: Path) -> None:
    scene = open_frames(shared_data / "lidar" / "kitti-object")[0]
    facts = _facts(scene)
    assert {name for name, fact in facts.items() if fact.state != "ok"} == {"offsets"}
    assert facts["offsets"].value == "the data set gives no times" and facts["offsets"].state == "absent"
    assert facts["in images"].value == "15.4% of the points; image_2 15.4%"
    (fault,) = _extrinsics(_turned(scene, "image_2", 1, 5.0), "fault")
    assert "about its y axis (yaw)" in fault


def test_a_photograph_of_another_sweep_is_a_fault(street: Scene) -> None:
    sweep = street.sweep
    assert sweep is not None
    times = {**sweep.camera_times, "CAM_BACK": sweep.time + 500_000}
    fact = _facts(replace(street, sweep=replace(sweep, camera_times=times)))["offsets"]
    assert fact.state == "fault" and "CAM_BACK +500 ms" in fact.value and "CAM_BACK belongs" in fact.hint


def test_cameras_that_see_nothing_are_a_fault(street: Scene) -> None:
    away = np.eye(4)
    away[2, 3] = 500.0
    frames = tuple(replace(frame, world_from_camera=away @ frame.world_from_camera) for frame in street.frames[:1])
    facts = _facts(replace(street, frames=frames))
    assert facts["in images"].state == "fault" and facts["in images"].value.startswith("0.0% of the points; ")
    assert facts["extrinsics"].state == "absent" and facts["extrinsics"].value.endswith("to tell: CAM_BACK")


def test_points_left_out_are_counted_and_broken_photographs_do_not_stop_the_others(
    street: Scene, tmp_path: Path
) -> None:
    sweep, broken = street.sweep, tmp_path / "broken.jpg"
    assert sweep is not None and street.cloud is not None
    broken.write_bytes(b"no image")
    frames = (replace(street.frames[0], image_path=broken), *street.frames[1:])
    rows = np.arange(len(street.cloud)) + 3
    facts = _facts(
        replace(street, frames=frames, sweep=replace(sweep, file_rows=rows, num_file_rows=len(street.cloud) + 3))
    )
    assert facts["sweep"].value.endswith(f", 3 of {len(street.cloud) + 3:,} points left out")
    assert facts["image"].state == "fault"
    assert "CAM_BACK " not in facts["extrinsics"].value and facts["extrinsics"].value.count("CAM_") == 5


def _wall_and_post() -> PointCloud:
    """One ring: a wall 20 m away with a bright stripe, and a post before it."""
    angles = np.radians(np.arange(-30, 30, 0.3))
    distance = np.full(len(angles), 20.0)
    distance[95:99] = 8.0
    intensity = np.full(len(angles), 10.0, np.float32)
    intensity[40:44] = 200.0
    xyz = np.column_stack([np.cos(angles), np.sin(angles), np.zeros(len(angles))]) * distance[:, None]
    return PointCloud(xyz.astype(np.float32), intensity=intensity)


def test_edges_are_the_nearer_points_of_jumps_and_the_darker_of_stripes() -> None:
    cloud = _wall_and_post()
    reach = int(np.degrees(MAX_GAP) / 0.3)
    found = set(edge_points(cloud).tolist())
    assert {95, 98} <= found <= {*range(95, 99), *range(40 - reach, 44 + reach)} - {*range(40, 44)}
    assert {39, 44} <= found
    assert set(edge_points(PointCloud(cloud.xyz)).tolist()) <= {*range(95, 99)}
    assert not len(edge_points(PointCloud(cloud.xyz[:3])))


def test_the_score_peaks_at_the_true_rotation(street: Scene) -> None:
    assert street.cloud is not None
    xyz, frame = street.cloud.xyz[edge_points(street.cloud)], street.frame("CAM_BACK")
    edges, pose = EdgeImage.of(frame), invert_pose(frame.world_from_camera)
    scores = {degrees: edges.fit(xyz, pose, 1, degrees).score for degrees in (-4.0, -2.0, 0.0, 2.0, 4.0)}
    assert max(scores, key=lambda one: scores[one]) == 0.0
    assert scores[0.0] > max(scores[-4.0], scores[4.0]) + 0.2


def test_turns_are_right_handed() -> None:
    for axis in range(3):
        quarter = turn(axis, 90.0)[:3, :3]
        np.testing.assert_allclose(quarter @ np.eye(3)[(axis + 1) % 3], np.eye(3)[(axis + 2) % 3], atol=1e-12)
        assert np.isclose(np.linalg.det(quarter), 1)
