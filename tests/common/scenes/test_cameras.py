"""Cameras and poses: projection undoes unprojection, resizing keeps rays, faults have names."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ov3d.common.base.errors import DataError
from ov3d.common.scenes.cameras import Camera, invert_pose, look_at, orthonormalised, pose_fault, transform

focal = st.floats(50, 5000)
cameras = st.builds(
    lambda w, h, fx, fy, a, b: Camera(w, h, fx, fy, a * w, b * h),
    st.integers(1, 4000),
    st.integers(1, 4000),
    focal,
    focal,
    st.floats(0.1, 0.9),
    st.floats(0.1, 0.9),
)
pixels = st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(1e-3, 1e4))


@given(cameras, st.lists(pixels, min_size=1, max_size=5))
def test_project_undoes_unproject(camera: Camera, places: list[tuple[float, float, float]]) -> None:
    values = np.array(places)
    uv = values[:, :2] * (camera.width, camera.height)
    back, z = camera.project(camera.unproject(uv, values[:, 2]))
    np.testing.assert_allclose(back, uv, atol=1e-8 * max(camera.width, camera.height))
    np.testing.assert_allclose(z, values[:, 2])


@given(cameras, pixels, st.integers(1, 4000), st.integers(1, 4000))
def test_a_resized_camera_sees_a_point_at_the_same_place_of_the_image(
    camera: Camera, place: tuple[float, float, float], width: int, height: int
) -> None:
    point = camera.unproject(np.array([[place[0] * camera.width, place[1] * camera.height]]), np.array([place[2]]))
    resized = camera.resized(width, height)
    uv, _ = resized.project(point)
    np.testing.assert_allclose(uv / (width, height), [place[:2]], atol=1e-9)


def test_pixel_centres_go_row_by_row_at_half() -> None:
    centres = Camera(3, 2, 1.0, 1.0, 1.5, 1.0).pixel_centres()
    assert centres.tolist() == [[0.5, 0.5], [1.5, 0.5], [2.5, 0.5], [0.5, 1.5], [1.5, 1.5], [2.5, 1.5]]
    assert Camera(5, 3, 1.0, 1.0, 2.0, 1.0).pixel_centres(2).tolist() == [
        [0.5, 0.5], [2.5, 0.5], [4.5, 0.5], [0.5, 2.5], [2.5, 2.5], [4.5, 2.5],
    ]  # fmt: skip


@given(st.lists(st.floats(-50, 50), min_size=6, max_size=6))
def test_look_at_is_a_rotation_that_looks_there(numbers: list[float]) -> None:
    eye, target = np.array(numbers[:3]), np.array(numbers[3:])
    if np.linalg.norm(np.cross(target - eye, (0, 0, 1))) < 1e-3:
        return  # straight up or down has no horizon
    pose = look_at(eye, target)
    assert pose_fault(pose) == ""
    seen = transform(invert_pose(pose), target[None])[0]
    np.testing.assert_allclose(seen, (0, 0, np.linalg.norm(target - eye)), atol=1e-9)
    above = transform(invert_pose(pose), (target + (0, 0, 1.0))[None])[0]
    assert above[1] < 1e-9  # up in the world is up in the image, where y points down


def test_invert_pose_and_transform() -> None:
    pose = look_at(np.array([1.0, 2.0, 3.0]), np.array([4.0, -1.0, 2.0]))
    np.testing.assert_allclose(invert_pose(pose) @ pose, np.eye(4), atol=1e-12)
    points = np.random.default_rng(0).normal(size=(5, 3))
    one_by_one = [(pose @ np.append(p, 1.0))[:3] for p in points]
    np.testing.assert_allclose(transform(pose, points), one_by_one)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p[:3], "shape 3x4"),
        (lambda p: p * np.nan, "not finite"),
        (lambda p: np.diag([1.0, 1.0, -1.0, 1.0]) @ p, "reflects"),
        (lambda p: p @ np.diag([2.0, 2.0, 2.0, 1.0]), "not orthonormal"),
        (lambda p: p + np.eye(4)[3][:, None], "last row"),
    ],
)
def test_a_bad_pose_is_named(change, words: str) -> None:
    pose = look_at(np.array([1.0, 2.0, 3.0]), np.zeros(3))
    assert pose_fault(pose) == ""
    assert words in pose_fault(change(pose))


def test_a_rounded_pose_passes_and_is_orthonormalised() -> None:
    pose = look_at(np.array([1.0, 2.0, 3.0]), np.zeros(3))
    rounded = np.round(pose, 4)
    assert pose_fault(rounded) == ""
    clean = orthonormalised(rounded)
    np.testing.assert_allclose(clean[:3, :3] @ clean[:3, :3].T, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(clean, pose, atol=1e-3)


@pytest.mark.parametrize("bad", [{"fx": 0.0}, {"fy": float("nan")}, {"width": 0}])
def test_an_impossible_camera_is_refused(bad: dict[str, float]) -> None:
    good = {"width": 4, "height": 3, "fx": 2.0, "fy": 2.0, "cx": 2.0, "cy": 1.5}
    with pytest.raises(DataError, match="cannot form an image"):
        Camera(**(good | bad))
