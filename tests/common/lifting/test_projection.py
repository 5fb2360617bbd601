"""Projection: equal to a scalar loop, inverse to unprojecting, and nothing is seen through anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ov3d.common.base.errors import DataError
from ov3d.common.checks.views import check_views, view_statistics
from ov3d.common.lifting import projection
from ov3d.common.lifting.projection import (
    MAX_SPLAT_LEVEL,
    SLOPE,
    SPLAT_SPACINGS,
    DepthMap,
    PointBlocks,
    VisibilityConfig,
    median_spacing,
    points_in_image,
    visible_in_frame,
    visible_points,
)
from ov3d.common.scenes.cameras import Camera, invert_pose, look_at, transform
from ov3d.common.scenes.scene import Frame, PointCloud, Scene
from tests.common.small_scenes import CAMERA, box_scene


def _slow_visible(
    xyz: np.ndarray, frame: Frame, depth: DepthMap | None, config: VisibilityConfig, spacing: float
) -> dict[int, tuple[float, float]]:
    """One point after the other, with Python numbers, as the module's docstring says it."""
    camera, inverse = frame.camera, np.linalg.inv(frame.world_from_camera)
    landed: dict[int, tuple[float, float, float]] = {}
    for idx, point in enumerate(xyz):
        x, y, z, _ = (float(value) for value in inverse @ [*(float(one) for one in point), 1.0])
        if z <= 0:
            continue
        u, v = camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy
        if 0 <= u < camera.width and 0 <= v < camera.height:
            landed[idx] = (u, v, z)
    levels = {}
    for idx, (_, _, z) in landed.items():
        footprint, level = SPLAT_SPACINGS * max(camera.fx, camera.fy) * spacing / z, 0
        while 2**level < footprint and level < MAX_SPLAT_LEVEL:
            level += 1
        levels[idx] = level
    nearest: dict[tuple[int, int, int], float] = {}
    for idx, (u, v, z) in landed.items():
        cell = (levels[idx], int(u) >> levels[idx], int(v) >> levels[idx])
        nearest[cell] = min(nearest.get(cell, np.inf), z)
    seen = {}
    border = config.border * camera.width / 320
    for idx, (u, v, z) in landed.items():
        if not (border <= u < camera.width - border and border <= v < camera.height - border):
            continue
        cells = [(level, int(u) >> level, int(v) >> level) for level in range(MAX_SPLAT_LEVEL + 1)]
        slack = [1 + config.depth_tolerance + SLOPE * 2**level / camera.fx for level, _, _ in cells]
        free = z <= min(nearest.get(cell, np.inf) * more for cell, more in zip(cells, slack, strict=True))
        if depth is None:
            ok = free
        else:
            own = depth.camera
            column = int(np.floor((u - camera.cx) * own.fx / camera.fx + own.cx))
            row = int(np.floor((v - camera.cy) * own.fy / camera.fy + own.cy))
            inside = 0 <= column < own.width and 0 <= row < own.height
            measured = float(depth.values[row, column]) if inside else 0.0
            if measured == 0:
                ok = config.missing_depth == "zbuffer" and free
            else:
                ok = abs(measured - z) <= config.depth_tolerance * measured
        if ok:
            seen[idx] = (u, v)
    return seen


@pytest.mark.parametrize("missing_depth", ["zbuffer", "drop"])
@pytest.mark.parametrize("with_depth", [True, False])
def test_equals_the_scalar_loop(tmp_path: Path, with_depth: bool, missing_depth: str) -> None:
    scene = box_scene(tmp_path, 3, with_depth=with_depth)
    assert scene.cloud is not None
    xyz = scene.cloud.xyz[::7]
    config = VisibilityConfig.model_validate({"missing_depth": missing_depth, "border": 4.0})
    spacing = median_spacing(xyz)
    for frame in scene.frames:
        depth = DepthMap.read(frame.depth) if frame.depth is not None else None
        if depth is not None:  # a stripe without measurements, and a depth camera of another size
            values = depth.values[::2, ::2].copy()
            values[:, 10:16] = 0
            depth = DepthMap(values, depth.camera.resized(32, 24))
        slow = _slow_visible(xyz, frame, depth, config, spacing)
        fast = visible_points(xyz, frame.camera, frame.world_from_camera, depth, config, spacing=spacing)
        assert fast.point_idx.tolist() == sorted(slow)
        assert len(fast) > 100
        np.testing.assert_allclose(fast.uv, [slow[idx] for idx in fast.point_idx], atol=1e-9)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_unprojected_pixels_project_to_themselves(seed: int) -> None:
    rng = np.random.default_rng(seed)
    camera = Camera(640, 480, *rng.uniform(200, 900, 2), *rng.uniform(200, 400, 2))
    pose = look_at(rng.uniform(-5, 5, 3), rng.uniform(6, 9, 3))
    pose[:3, 3] += rng.uniform(-1e6, 1e6, 3)  # a UTM position: fp32 would lose half a metre here
    uv = rng.uniform((0, 0), (640, 480), (50, 2))
    z = rng.uniform(0.3, 30, 50)
    idx, back, depth = points_in_image(transform(pose, camera.unproject(uv, z)), camera, pose)
    assert len(idx) >= 48  # one at the very edge may round out
    np.testing.assert_allclose(back, uv[idx], atol=1e-4)
    np.testing.assert_allclose(depth, z[idx], atol=1e-6)


def test_a_box_hides_what_is_behind_it_without_depth(tmp_path: Path) -> None:
    """The z-buffer against exact depth: what it lets through although the box hides it is a small share."""
    scene = box_scene(tmp_path, 4, camera=CAMERA.resized(256, 192))
    assert scene.cloud is not None
    config = VisibilityConfig(border=0)
    spacing = median_spacing(scene.cloud.xyz)
    for frame in scene.frames:
        exact = visible_in_frame(scene.cloud.xyz, frame, config, spacing=spacing)
        buffered = visible_in_frame(scene.cloud.xyz, replace(frame, depth=None), config, spacing=spacing)
        wrong = np.setdiff1d(buffered.point_idx, exact.point_idx)
        lost = np.setdiff1d(exact.point_idx, buffered.point_idx)
        assert len(wrong) < 0.05 * len(exact)
        assert len(lost) < 0.08 * len(exact)


def test_a_sparse_near_surface_hides_a_dense_far_one() -> None:
    """Points of the near plane land 9 pixels apart; a buffer of single pixels would let most of the far plane through."""
    camera = Camera(320, 240, 300.0, 300.0, 160.0, 120.0)
    near = np.stack(np.meshgrid(np.arange(-0.6, 0.6, 0.03), np.arange(-0.5, 0.5, 0.03)), -1).reshape(-1, 2)
    far = np.stack(np.meshgrid(np.arange(-1.5, 1.5, 0.03), np.arange(-1, 1, 0.03)), -1).reshape(-1, 2)
    xyz = np.concatenate([np.insert(near, 2, 1.0, 1), np.insert(far, 2, 4.0, 1)])
    seen = visible_points(xyz, camera, np.eye(4), None, VisibilityConfig(border=0), spacing=median_spacing(xyz))
    assert (seen.point_idx >= len(near)).mean() < 0.02
    assert (seen.point_idx < len(near)).sum() > 0.9 * len(near) * (320 * 240) / (1.2 * 300 * 1.0 * 300)


def test_spacing_of_a_grid() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(12) * 0.05] * 3), -1).reshape(-1, 3)
    assert median_spacing(grid) == pytest.approx(0.05)
    assert median_spacing(grid[:1]) == 0


def _with_poses(scene: Scene, change: object) -> Scene:
    assert callable(change)
    return replace(
        scene, frames=tuple(replace(one, world_from_camera=change(one.world_from_camera)) for one in scene.frames)
    )


def test_a_good_scene_passes_the_check(tmp_path: Path) -> None:
    scene = box_scene(tmp_path)
    assert scene.cloud is not None
    found = check_views(scene.name, scene.cloud, scene.frames)
    assert found.share_seen > 0.6
    assert found.share_seen_twice > 0.3
    assert found.median_depth_error < 0.03 * found.median_depth
    assert np.isnan(view_statistics(scene.cloud, [replace(one, depth=None) for one in scene.frames]).median_depth)


@pytest.mark.parametrize(
    ("cause", "change", "depth_scale"),
    [
        ("world-to-camera", invert_pose, 1.0),
        ("OpenGL's", lambda pose: pose @ np.diag([1.0, -1, -1, 1]), 1.0),
        ("world-to-camera with OpenGL", lambda pose: np.diag([1.0, -1, -1, 1]) @ invert_pose(pose), 1.0),
        ("1000 times too large", lambda pose: pose, 1000.0),
        ("1000 times too small", lambda pose: pose, 0.001),
        ("positions are in millimetres", lambda pose: pose * np.where(np.arange(4) == 3, [[1000]] * 3 + [[1]], 1), 1.0),
    ],
)
def test_the_cause_of_an_unseen_scene_is_named(tmp_path: Path, cause: str, change: object, depth_scale: float) -> None:
    scene = box_scene(tmp_path)
    assert scene.cloud is not None
    wrong = _with_poses(scene, change)
    frames = [
        replace(one, depth=replace(one.depth, scale=one.depth.scale * depth_scale))
        for one in wrong.frames
        if one.depth is not None
    ]
    with pytest.raises(DataError, match=r"Only \d\.\d% of the points of box .* likely cause") as caught:
        check_views(scene.name, scene.cloud, frames)
    assert cause in caught.value.message


def test_a_scene_that_nothing_explains_says_so(tmp_path: Path) -> None:
    scene = box_scene(tmp_path)
    assert scene.cloud is not None
    elsewhere = PointCloud(scene.cloud.xyz + np.float32(500))
    with pytest.raises(DataError, match=r"Only 0\.0% .*no common mistake"):
        check_views(scene.name, elsewhere, scene.frames)


@pytest.mark.parametrize("with_depth", [True, False])
def test_blocks_and_culling_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_depth: bool) -> None:
    scene = box_scene(tmp_path, 4, with_depth=with_depth)
    assert scene.cloud is not None
    spacing = median_spacing(scene.cloud.xyz)
    config = VisibilityConfig(border=2)
    whole = [visible_in_frame(PointBlocks(scene.cloud.xyz), frame, config, spacing=spacing) for frame in scene.frames]
    projected: list[int] = []
    landed = projection.points_in_image
    monkeypatch.setattr(
        projection, "points_in_image", lambda xyz, *rest: projected.append(len(xyz)) or landed(xyz, *rest)
    )
    monkeypatch.setattr(projection, "HELD_POINTS", 0)
    monkeypatch.setattr(projection, "SPACING_BLOCK", 1000)
    blocks = PointBlocks(scene.cloud.xyz, 61)
    for frame, expected in zip(scene.frames, whole, strict=True):
        seen = visible_in_frame(blocks, frame, config, spacing=spacing)
        np.testing.assert_array_equal(seen.point_idx, expected.point_idx)
        np.testing.assert_allclose(seen.uv, expected.uv, atol=1e-9)
    assert len(whole[0]) > 1000
    assert sum(projected) >= len(blocks)  # in blocks, indeed
    projected.clear()
    away = look_at(np.array([0.0, 5.0, 1.0]), np.array([0.0, 9.0, 1.0]))
    assert len(visible_points(blocks, CAMERA, away, None, config, spacing=spacing)) == 0
    assert projected == []  # boxes out of sight are not projected at all
    assert median_spacing(scene.cloud.xyz) == spacing


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_a_box_that_is_left_out_holds_no_seen_point(seed: int) -> None:
    rng = np.random.default_rng(seed)
    xyz = (rng.normal(size=(400, 3)) * rng.uniform(0.01, 3, 3) + rng.normal(size=3) * 2).astype(np.float32)
    pose = look_at(rng.normal(size=3) * 2, rng.normal(size=3))
    idx, uv, _ = points_in_image(xyz, CAMERA, pose)
    found = list(PointBlocks(xyz, 7).in_image(CAMERA, pose))
    assert np.array_equal(np.concatenate([part[0] for part in found]) if found else np.zeros(0), idx)
    assert len(idx) == 0 or np.allclose(np.concatenate([part[1] for part in found]), uv, atol=1e-6)
