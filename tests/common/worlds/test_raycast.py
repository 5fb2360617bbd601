"""The ray caster against marching along each ray until a point lies inside a solid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ov3d.common.scenes.cameras import Camera, look_at
from ov3d.common.scenes.scene import IGNORE
from ov3d.common.worlds.primitives import Primitive, normals, solid
from ov3d.common.worlds.raycast import cast, rays, render
from ov3d.common.worlds.textures import Material, Texture

CAMERA = Camera(24, 18, 20.0, 21.0, 12.3, 8.7)
GREY = Material((0.5, 0.5, 0.5))


def _inside(primitive: Primitive) -> Callable[[np.ndarray], np.ndarray]:
    """Membership of points [n, 3] of the world, straight from the definition of the unit shape."""
    inverse = np.linalg.inv(primitive.world_from_local)

    def test(points: np.ndarray) -> np.ndarray:
        x, y, z = (points @ inverse[:3, :3].T + inverse[:3, 3]).T
        if primitive.shape == "box":
            return np.maximum(np.maximum(abs(x), abs(y)), abs(z)) <= 1
        if primitive.shape == "ellipsoid":
            return x * x + y * y + z * z <= 1
        radius = 1 + (primitive.taper - 1) * (z + 1) / 2
        return (abs(z) <= 1) & (np.hypot(x, y) <= radius)

    return test


def _march(primitives: list[Primitive], eye: np.ndarray, direction: np.ndarray) -> tuple[float, int]:
    """First entry along one ray by small steps, then halving; a rectangle by its plane."""
    best, which = np.inf, -1
    steps = np.linspace(0.01, 8.0, 6000)
    for number, primitive in enumerate(primitives):
        if primitive.shape == "rectangle":
            pose = primitive.world_from_local
            normal = np.cross(pose[:3, 0], pose[:3, 1])
            t = float(normal @ (pose[:3, 3] - eye) / (normal @ direction))
            local = np.linalg.inv(pose) @ np.append(eye + t * direction, 1.0)
            entry = t if t > 0 and abs(local[0]) <= 1 and abs(local[1]) <= 1 else np.inf
        else:
            test = _inside(primitive)
            hit = np.flatnonzero(test(eye + steps[:, None] * direction))
            if len(hit) == 0:
                continue
            low, high = steps[max(hit[0] - 1, 0)], steps[hit[0]]
            for _ in range(40):
                middle = (low + high) / 2
                low, high = (low, middle) if test((eye + middle * direction)[None])[0] else (middle, high)
            entry = high
        if entry < best:
            best, which = entry, number
    return best, which


def _turned(primitive: Primitive, *angles: float) -> Primitive:
    a, b = angles
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    pose = primitive.world_from_local.copy()
    pose[:3, :3] = about_z @ about_x @ pose[:3, :3]
    return replace(primitive, world_from_local=pose)


WORLD = [
    replace(solid("rectangle", (0, 0, 0), (6, 6, 2), GREY), label=0),
    replace(_turned(solid("box", (-0.7, 0.3, 0.5), (0.6, 0.9, 0.7), GREY), 0.4, 0.3), label=1, instance=1),
    replace(_turned(solid("ellipsoid", (0.6, 0.1, 0.6), (0.9, 0.5, 0.7), GREY), 0.9, -0.5), label=2, instance=2),
    replace(
        _turned(solid("frustum", (0.0, 0.9, 0.6), (0.6, 0.6, 1.2), GREY, taper=0.3), 0.0, 0.2), label=3, instance=3
    ),
    replace(_turned(solid("frustum", (0.2, -0.7, 0.4), (0.3, 0.4, 0.5), GREY), 0.2, 1.2), label=4, instance=4),
]
POSE = look_at(np.array([0.3, -2.6, 1.7]), np.array([0.0, 0.2, 0.5]))


def test_equals_marching() -> None:
    view = render(WORLD, CAMERA, POSE)
    eye, directions = rays(CAMERA, POSE, CAMERA.pixel_centres())
    expected = [_march(WORLD, eye[0], direction) for direction in directions]
    which = np.array([number for _, number in expected])
    t = np.array([entry for entry, _ in expected])
    labels = view.labels.ravel()
    same = labels == which
    assert (~same).sum() <= 2  # marching steps over the thinnest corners
    assert set(which) == {-1, 0, 1, 2, 3, 4}
    seen = same & (which >= 0)
    np.testing.assert_allclose(view.depth.ravel()[seen], t[seen], atol=2e-6)
    assert (view.depth.ravel()[which < 0] == 0).all()
    assert (view.instances.ravel()[same] == np.where(which <= 0, IGNORE, which)[same]).all()


def test_culling_by_the_screen_changes_nothing() -> None:
    eye, directions = rays(CAMERA, POSE, CAMERA.pixel_centres())
    every = cast(WORLD, eye, directions)
    view = render(WORLD, CAMERA, POSE)
    assert np.array_equal(np.where(np.isfinite(every.t), every.t, 0).astype(np.float32), view.depth.ravel())


@pytest.mark.parametrize("where", [(0.0, -0.2, 0.6), (-0.2, 0.35, 1.3), (0.25, 0.2, 0.15)])
def test_solids_beside_and_behind_the_eye_are_culled_rightly(where: tuple[float, float, float]) -> None:
    for angle in np.linspace(0, 6, 7):
        pose = look_at(np.array(where), np.array(where) + (np.cos(angle), np.sin(angle), -0.2))
        eye, directions = rays(CAMERA, pose, CAMERA.pixel_centres())
        every = cast(WORLD, eye, directions)
        assert np.array_equal(every.t[np.isfinite(every.t)].astype(np.float32), _seen_depth(pose))


def _seen_depth(pose: np.ndarray) -> np.ndarray:
    depth = render(WORLD, CAMERA, pose).depth.ravel()
    return depth[depth > 0]


def test_a_rigid_motion_of_the_world_changes_no_picture() -> None:
    motion = _turned(solid("box", (5, -3, 2), (2, 2, 2), GREY), 1.1, 0.7).world_from_local
    moved = [replace(p, world_from_local=motion @ p.world_from_local) for p in WORLD]
    here, there = render(WORLD, CAMERA, POSE), render(moved, CAMERA, motion @ POSE)
    np.testing.assert_allclose(there.depth, here.depth, atol=1e-6)
    assert np.array_equal(there.labels, here.labels)


def test_normals_point_outwards_and_are_square_to_the_surface() -> None:
    eye, directions = rays(CAMERA, POSE, CAMERA.pixel_centres())
    for primitive in WORLD[1:]:
        hits = cast([primitive], eye, directions)
        met = np.isfinite(hits.t)
        points = eye + hits.t[met, None] * directions[met]
        normal, local = normals(primitive, points)
        test, step = _inside(primitive), 1e-4
        assert (np.abs(local) <= 1 + 1e-9).all()
        np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1.0)
        assert not test(points + step * normal).any()
        assert test(points - step * normal).mean() > 0.97  # but for the last hair before an edge


def test_a_picture_hangs_upright_and_unmirrored() -> None:
    image = np.zeros((40, 60, 3), np.float32)
    image[:20, :30] = (1, 0, 0)  # red on the upper left, green on the upper right, blue below
    image[:20, 30:] = (0, 1, 0)
    image[20:] = (0, 0, 1)
    picture = Material((0.2, 0.2, 0.2), Texture.of(image, tiles=False), 0.0, matte=1.0)
    board = solid("box", (0, 0, 0), (1.2, 0.8, 0.02), picture)
    camera = Camera(60, 40, 60.0, 60.0, 30.0, 20.0)
    view = render([board], camera, look_at(np.array([0.0, 0.0, 1.3]), np.zeros(3), (0.0, 1.0, 0.0)))
    assert view.rgb[10, 15].argmax() == 0
    assert view.rgb[10, 45].argmax() == 1
    assert view.rgb[30, 15].argmax() == view.rgb[30, 45].argmax() == 2


def test_a_texture_seen_small_is_its_mean_and_seen_large_is_itself() -> None:
    rng = np.random.default_rng(0)
    texture = Texture.of(rng.random((64, 96, 3)).astype(np.float32), tiles=False)
    centres = (np.stack([np.arange(96) + 0.5, np.full(96, 10.5)], axis=1)) / (96, 64)
    np.testing.assert_allclose(texture.sample(centres, np.full(96, 1e-4)), texture.levels[0][10], atol=1e-6)
    far = texture.sample(np.array([[0.5, 0.5]]), np.array([1.0]))
    np.testing.assert_allclose(far[0], texture.levels[0].mean(axis=(0, 1)), atol=0.02)
    tiling = Texture.of(texture.levels[0], tiles=True)
    once = tiling.sample(np.array([[0.3, 0.4]]), np.array([0.02]))
    np.testing.assert_allclose(tiling.sample(np.array([[4.3, -2.6]]), np.array([0.02])), once, atol=1e-5)


def test_outlines_are_smooth() -> None:
    white = solid("box", (0, 0, 0), (1.0, 1.0, 1.0), Material((1.0, 1.0, 1.0), matte=1.0))
    black = solid("rectangle", (0, 0, -3), (50, 50, 1), Material((0.0, 0.0, 0.0)))
    tilted = look_at(np.array([0.13, 0.07, 2.0]), np.array([0.13, 0.07, 0.0]), (0.3, 1.0, 0.0))
    rgb = render([white, black], Camera(40, 40, 60.0, 60.0, 20.0, 20.0), tilted).rgb[..., 0]
    between = np.unique(rgb[(rgb > 0) & (rgb < 255)])
    assert set(between.tolist()) == {64, 128, 191}  # a quarter, a half, three quarters of a pixel
