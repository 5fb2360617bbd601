"""Paths among photographs: closed, smooth, never far from where a photograph was taken, looking at what they show."""

from __future__ import annotations

import numpy as np
import pytest

from ov3d.common.base.errors import DataError
from ov3d.common.exporters.camera_path import looked_at, orbit_path, ring_path
from ov3d.common.scenes.cameras import Camera, look_at, pose_fault

CAMERA = Camera(64, 48, 60.0, 60.0, 32.0, 24.0)
UP = (0.0, 0.0, 1.0)


def ring(num: int, share: float = 1.0, *, outward: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Cameras on (part of) a circle of radius 2 at height 1, that look at its middle or away from it; and at what."""
    angles = 2 * np.pi * share * np.arange(num) / num
    eyes = np.column_stack([2 * np.cos(angles), 2 * np.sin(angles), np.ones(num)])
    targets = eyes * (2, 2, 1) if outward else np.zeros((num, 3))
    return np.stack([look_at(eye, target) for eye, target in zip(eyes, targets, strict=True)]), targets


def steps(poses: np.ndarray) -> np.ndarray:
    """Distances between neighbouring frames, round the end."""
    return np.linalg.norm(np.diff(poses[:, :3, 3], axis=0, append=poses[:1, :3, 3]), axis=1)


def turned(poses: np.ndarray) -> np.ndarray:
    """Azimuths of the directions of view, unwrapped."""
    return np.unwrap(np.arctan2(poses[:, 1, 2], poses[:, 0, 2]))


@pytest.mark.parametrize("outward", [False, True])
def test_all_round_it_goes_all_round(outward: bool) -> None:
    path = orbit_path(*ring(12, outward=outward), UP, 24)
    assert not any(pose_fault(pose) for pose in path)
    assert abs(turned(path)[-1] - turned(path)[0]) == pytest.approx(2 * np.pi * 23 / 24, rel=0.05)
    assert steps(path).max() < 0.7
    assert steps(path).max() < 1.6 * steps(path).min()
    radius = np.linalg.norm(path[:, :2, 3], axis=1)
    assert radius.min() > 1.6  # the mean of neighbours lies a little inside
    assert radius.max() <= 2
    np.testing.assert_allclose(path[:, 2, 3], 1)


def test_along_an_arc_it_goes_there_and_back() -> None:
    poses, targets = ring(10, 0.4)
    path = orbit_path(poses, targets, UP, 20)
    there, back = path[1:10, :3, 3], path[19:10:-1, :3, 3]
    np.testing.assert_allclose(there, back, atol=1e-9)
    assert np.ptp(turned(path)) > 0.7 * np.ptp(turned(poses))
    nearest = np.linalg.norm(path[:, None, :3, 3] - poses[:, :3, 3], axis=2).min(axis=1)
    assert nearest.max() < 0.6


def test_before_a_shelf_it_sways() -> None:
    eyes = np.array([(x, -2.0, z) for x in (-0.3, 0, 0.3) for z in (0.9, 1.0, 1.1)])
    poses = np.stack([look_at(eye, np.array([0, 0, 1.0])) for eye in eyes])
    path = orbit_path(poses, np.tile([0, 0, 1.0], (9, 1)), UP, 16)
    assert np.ptp(path[:, 0, 3]) == pytest.approx(2 * 1.2 * eyes[:, 0].std(), rel=0.01)
    assert np.ptp(path[:, 2, 3]) == pytest.approx(2 * 0.12, rel=0.01)  # hardly any height: as much as shows depth
    ahead = path[:, :3, 2]
    towards = np.array([0, 0, 1.0]) - path[:, :3, 3]
    np.testing.assert_allclose(ahead, towards / np.linalg.norm(towards, axis=1, keepdims=True), atol=1e-9)
    assert steps(path).max() < 0.25


def test_photographs_that_lean_keep_leaning() -> None:
    """Phones are held at an angle, and some captures do not know where up is."""
    tilted = look_at(np.array([0, -2.0, 0]), np.zeros(3), (1.0, 0.0, 0.0))
    path = orbit_path(tilted[None], np.zeros((1, 3)), UP, 8)
    np.testing.assert_allclose(path[:, :3, 1].mean(axis=0), tilted[:3, 1], atol=0.01)
    assert steps(path).min() > 0.01


def test_straight_down_there_is_no_horizon() -> None:
    poses = np.stack([look_at(np.array([x, 0, 3.0]), np.array([x, 0, 0.0]), (0.0, 1.0, 0.0)) for x in (-1.0, 0.0, 1.0)])
    assert not any(pose_fault(pose) for pose in orbit_path(poses, poses[:, :3, 3] * (1, 1, 0), UP, 8))


def test_round_a_cloud() -> None:
    xyz = np.random.default_rng(0).uniform((3, 4, 0), (5, 6, 1), (500, 3)).astype(np.float32)
    path = ring_path(np.append(xyz, [[np.nan] * 3], axis=0).astype(np.float32), UP, 12)
    assert not any(pose_fault(pose) for pose in path)
    targets = looked_at([CAMERA] * 12, path, xyz)
    np.testing.assert_allclose(targets, np.tile([4, 5, 0.5], (12, 1)), atol=0.4)
    assert (path[:, 2, 3] > 1).all()
    assert np.ptp(steps(path)) < 1e-9
    with pytest.raises(DataError, match="at least one finite point"):
        ring_path(np.zeros((0, 3), np.float32), UP, 4)


def test_what_photographs_look_at() -> None:
    pose = np.stack([np.eye(4), np.diag([-1.0, 1, -1, 1])])
    xyz = np.array([[0, 0, 2], [0.1, 0, 3], [0, 0.1, 4], [50, 0, 1]], np.float32)
    np.testing.assert_allclose(looked_at([CAMERA] * 2, pose, xyz), [[0, 0, 3], [0, 0, -3]])  # the second sees none
    np.testing.assert_allclose(looked_at([CAMERA], pose[:1], xyz[:0]), [[0, 0, 1]])
    with pytest.raises(DataError, match="at least one"):
        orbit_path(pose[:0], np.zeros((0, 3)), UP, 4)
