"""Sweeps in photographs: equal to projecting camera by camera in fp64, whatever the precision and the order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ov3d.common.lifting import sweep_projection
from ov3d.common.lifting.sweep_projection import (
    SweepProjectionConfig,
    nearest_of_cells,
    project_sweep,
)
from ov3d.common.readers.kitti_object import open_frames
from ov3d.common.readers.nuscenes import open_keyframes
from ov3d.common.scenes.cameras import Camera, invert_pose, look_at
from ov3d.common.scenes.scene import Frame
from ov3d.common.worlds.street import StreetConfig, build_drive

ANYWHERE = SweepProjectionConfig(margin=(0.0, 0.0), min_depth=0.0)


def _devkit(xyz: np.ndarray, frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The devkit's test in its own pixels, whose centres are whole numbers: rows, pixels and depths, one camera in fp64."""
    points = np.linalg.inv(frame.world_from_camera) @ np.column_stack([xyz, np.ones(len(xyz))]).astype(np.float64).T
    matrix = frame.camera.matrix
    matrix[:2, 2] -= 0.5
    pixels = matrix @ points[:3]
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = pixels[:2] / pixels[2]
        seen = (points[2] > 1) & (u > 1) & (u < frame.camera.width - 1) & (v > 1) & (v < frame.camera.height - 1)
    rows = np.flatnonzero(seen)
    return rows, np.column_stack([u[rows], v[rows]]), points[2, rows]


def _equal_to_devkit(xyz: np.ndarray, frames: Sequence[Frame]) -> dict[str, int]:
    exact, rounded = project_sweep(xyz, frames), project_sweep(xyz, frames, dtype="float32")
    assert exact.names == rounded.names == tuple(frame.name for frame in frames)
    for frame, one, two in zip(frames, exact.views, rounded.views, strict=True):
        rows, uv, z = _devkit(xyz, frame)
        assert np.array_equal(one.point_idx, rows) and np.array_equal(two.point_idx, rows)
        np.testing.assert_allclose(one.uv, uv + 0.5, atol=1e-9)
        np.testing.assert_allclose(one.z, z, atol=1e-11)
        assert one.uv.dtype == np.float64 and two.uv.dtype == two.z.dtype == np.float32
        np.testing.assert_allclose(two.uv, one.uv, atol=2e-2)
        np.testing.assert_allclose(two.z, one.z, atol=1e-4)
    seen = np.zeros(len(xyz), np.int64)
    for view in exact.views:
        seen[view.point_idx] += 1
    assert np.array_equal(exact.num_views(), seen)
    return {name: len(view) for name, view in zip(exact.names, exact.views, strict=True)}


@pytest.mark.shared_data
def test_the_nuscenes_keyframe_has_the_devkits_counts(shared_data: Path) -> None:
    scene = open_keyframes(shared_data / "lidar" / "nuscenes")[0]
    assert scene.cloud is not None
    assert _equal_to_devkit(scene.cloud.xyz, scene.frames) == {
        "CAM_BACK": 4820,
        "CAM_BACK_LEFT": 4089,
        "CAM_BACK_RIGHT": 3369,
        "CAM_FRONT": 3053,
        "CAM_FRONT_LEFT": 3696,
        "CAM_FRONT_RIGHT": 3076,
    }


@pytest.mark.shared_data
def test_the_kitti_frame_has_the_devkits_count(shared_data: Path) -> None:
    scene = open_frames(shared_data / "lidar" / "kitti-object")[0]
    assert scene.cloud is not None
    assert _equal_to_devkit(scene.cloud.xyz, scene.frames) == {"image_2": 18564}


@pytest.mark.parametrize("rig", ["nuscenes", "semantickitti"])
def test_a_generated_street_has_the_devkits_counts(rig: Literal["nuscenes", "semantickitti"]) -> None:
    config = StreetConfig(seed=4, num_sweeps=1, rig=rig, columns=400, width=1600, height=900, reach=60.0)
    drive = build_drive(config)
    sweep = drive.sweep(0, photographs=False)
    lidar_from_world = invert_pose(sweep.world_from_ego @ sweep.ego_from_lidar)
    frames = [
        Frame(
            mount.name,
            Path(),
            mount.camera,
            lidar_from_world @ drive.world_from_ego(sweep.timestamp) @ mount.ego_from_camera,
        )
        for mount in drive.rig.cameras
    ]
    counts = _equal_to_devkit(sweep.xyz, frames)
    assert min(counts.values()) > 0.05 * len(sweep.xyz)


def _ring(num: int) -> list[Frame]:
    """Cameras around the origin."""
    camera = Camera(64, 48, 40.0, 42.0, 30.0, 25.0)
    angles = 2 * np.pi * np.arange(num) / max(num, 1)
    return [
        Frame(f"camera {k}", Path(), camera, look_at(np.zeros(3), np.array([np.cos(one), np.sin(one), 0.1])))
        for k, one in enumerate(angles)
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 300), st.integers(0, 5), st.sampled_from((1e-3, 1.0, 50.0, 1e6, 1e12)))
def test_any_points_land_where_a_scalar_loop_puts_them(seed: int, count: int, num: int, reach: float) -> None:
    rng = np.random.default_rng(seed)
    xyz = (rng.normal(size=(count, 3)) * reach).astype(np.float32)
    frames = _ring(num)
    for dtype in ("float64", "float32"):
        found = project_sweep(xyz, frames, ANYWHERE, dtype=dtype)
        assert len(found.views) == num and found.num_points == count
        for frame, view in zip(frames, found.views, strict=True):
            camera, inverse = frame.camera, np.linalg.inv(frame.world_from_camera)
            expected = []
            for row, point in enumerate(xyz):
                x, y, z, _ = (float(value) for value in inverse @ [*map(float, point), 1.0])
                if z > 0 and 0 < camera.fx * x / z + camera.cx < 64 and 0 < camera.fy * y / z + camera.cy < 48:
                    expected.append(row)
            assert view.point_idx.tolist() == expected


def test_points_on_a_border_are_decided_alike_in_both_precisions() -> None:
    """Points a hair inside and outside each border, far beyond what fp32 can tell apart."""
    (frame,) = _ring(1)
    camera = frame.camera
    for hair, inside in ((1e-7, True), (-1e-7, False)):
        edges = [(hair, 20.0), (64 - hair, 20.0), (20.0, hair), (20.0, 48 - hair)]
        local = camera.unproject(np.array(edges), np.full(4, 30.0))
        xyz = local @ frame.world_from_camera[:3, :3].T + frame.world_from_camera[:3, 3]
        for dtype in ("float64", "float32"):
            assert len(project_sweep(xyz, [frame], ANYWHERE, dtype=dtype).views[0]) == (4 if inside else 0)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    xyz = np.random.default_rng(0).normal(size=(1000, 3)) * 20
    whole = project_sweep(xyz, _ring(6))
    monkeypatch.setattr(sweep_projection, "BLOCK_POINTS", 7)
    for one, two in zip(whole.views, project_sweep(xyz, _ring(6)).views, strict=True):
        assert np.array_equal(one.point_idx, two.point_idx) and np.array_equal(one.uv, two.uv)
    assert sum(map(len, whole.views)) > 300


def test_points_that_are_not_finite_are_seen_nowhere_and_hurt_nobody() -> None:
    xyz = (np.random.default_rng(0).normal(size=(500, 3)) * 20).astype(np.float32)
    spoilt = xyz.copy()
    spoilt[::10] = (np.nan, 1, 2)
    spoilt[1::10] = (np.inf, 0, 0)
    with np.errstate(invalid="ignore"):
        for dtype in ("float64", "float32"):
            for clean, view in zip(
                project_sweep(xyz, _ring(4)).views, project_sweep(spoilt, _ring(4), dtype=dtype).views, strict=True
            ):
                assert view.point_idx.tolist() == [row for row in clean.point_idx.tolist() if row % 10 > 1]


def test_depths_and_margins_are_kept() -> None:
    (frame,) = _ring(1)
    local = np.array([[0.0, 0.0, z] for z in (0.5, 0.9, 1.5, 30.0, 30.5)])
    xyz = local @ frame.world_from_camera[:3, :3].T
    config = SweepProjectionConfig(min_depth=1.2, max_depth=30.2)
    assert project_sweep(xyz, [frame], config).views[0].point_idx.tolist() == [2, 3]
    assert len(project_sweep(xyz, [frame], SweepProjectionConfig(margin=(31.0, 0.0)))["camera 0"]) == 0
    assert len(project_sweep(xyz, [frame], SweepProjectionConfig(margin=(24.0, 22.0)))["camera 0"]) == 3
    assert len(project_sweep(xyz, [frame], SweepProjectionConfig(margin=(24.0, 24.0)))["camera 0"]) == 0


def test_what_stands_before_a_point_hides_it() -> None:
    """A wall with a hole before another one: seen are the near wall and, through the hole, the far one."""
    (frame,) = _ring(1)
    u, v = np.meshgrid(np.arange(2.25, 62, 0.5), np.arange(2.25, 46, 0.5))
    uv = np.column_stack([u.ravel(), v.ravel()])
    hole = (np.abs(uv - (32, 24)) < 8).all(axis=1)
    near, far = (
        frame.camera.unproject(uv[~hole], np.full((~hole).sum(), 5.0)),
        frame.camera.unproject(uv, np.full(len(uv), 12.0)),
    )
    xyz = np.vstack([near, far]) @ frame.world_from_camera[:3, :3].T
    plain, hidden = (project_sweep(xyz, [frame], SweepProjectionConfig(cell=cell)).views[0] for cell in (0.0, 4.0))
    assert len(plain) == len(xyz)
    expected = np.concatenate([np.ones(len(near), bool), hole])
    assert np.array_equal(np.isin(np.arange(len(xyz)), hidden.point_idx), expected)
    # Far walls within the tolerance are one surface.
    loose = SweepProjectionConfig(cell=4.0, tolerance=1.5)
    assert len(project_sweep(xyz, [frame], loose).views[0]) == len(xyz)


def test_the_nearest_of_a_cell_is_found_like_in_a_loop() -> None:
    rng = np.random.default_rng(1)
    uv, z = rng.uniform(0, 40, (400, 2)), rng.uniform(1, 50, 400)
    expected = []
    for (u, v), depth in zip(uv, z, strict=True):
        same = (np.floor(uv / 3.5) == np.floor(np.array([u, v]) / 3.5)).all(axis=1)
        expected.append(depth <= z[same].min() * 1.1)
    assert nearest_of_cells(uv, z, 3.5, 0.1).tolist() == expected
    assert len(nearest_of_cells(uv[:0], z[:0], 3.5, 0.1)) == 0


def test_most_points_that_a_street_hides_from_its_cameras_are_dropped() -> None:
    """Truth is the depth at the pixel and around it; a point on an outline counts as neither hidden nor visible."""
    sweep = build_drive(StreetConfig(seed=1, num_sweeps=1, reach=60.0)).sweep(0)
    lidar_from_world = invert_pose(sweep.world_from_ego @ sweep.ego_from_lidar)
    frames = [
        Frame(
            shot.mount.name,
            Path(),
            shot.mount.camera,
            lidar_from_world @ shot.world_from_ego @ shot.mount.ego_from_camera,
        )
        for shot in sweep.shots
    ]
    all_points, kept = (
        project_sweep(sweep.xyz, frames),
        project_sweep(sweep.xyz, frames, SweepProjectionConfig(cell=8.0)),
    )
    counts = np.zeros((2, 2), np.int64)
    for shot, before, after in zip(sweep.shots, all_points.views, kept.views, strict=True):
        column, row = before.uv.astype(np.int64).T
        padded = np.pad(shot.view.depth, 1, mode="edge")
        around = np.stack([padded[row + dy, column + dx] for dy in range(3) for dx in range(3)])
        hidden = (around < 0.9 * before.z).all(axis=0) & (around > 0).all(axis=0)
        visible = (np.abs(around - before.z) < 0.05 * before.z).all(axis=0)
        stays = np.isin(before.point_idx, after.point_idx)
        counts += [[(hidden & ~stays).sum(), hidden.sum()], [(visible & stays).sum(), visible.sum()]]
    (dropped, hidden_points), (seen, visible_points) = counts.tolist()
    assert hidden_points > 100 and visible_points > 5000
    assert dropped > 0.7 * hidden_points and seen > 0.94 * visible_points, counts
