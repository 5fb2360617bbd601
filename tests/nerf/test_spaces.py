"""Ways into the box: there and back again, straight lines, and the choice from the poses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.scenes.cameras import Camera, look_at
from ov3d.common.scenes.scene import Frame, Scene
from ov3d.nerf.scene_type import choose_space
from ov3d.nerf.spaces import Space, contract, uncontract
from tests.common.small_scenes import box_scene

CAMERA = Camera(40, 30, 36.0, 36.0, 20.0, 15.0)


def _scene(poses: list[np.ndarray], layout: str = "test", depth_range: tuple[float, float] | None = None) -> Scene:
    frames = [Frame(str(k), Path("x.png"), CAMERA, pose, depth_range=depth_range) for k, pose in enumerate(poses)]
    return Scene("s", Path(), layout, tuple(frames))


def _ring(count: int = 8, radius: float = 3.0) -> list[np.ndarray]:
    angles = 2 * np.pi * np.arange(count) / count
    return [look_at(radius * np.array([np.cos(a), np.sin(a), 0.4]), np.array([0.5, 0.2, 0.0])) for a in angles]


def _grid() -> list[np.ndarray]:
    return [look_at(np.array([x, 0.1 * x, z]), np.array([x * 0.8, 5.0, z])) for x in (-0.5, 0, 0.5) for z in (0, 0.3)]


def test_contraction_and_back() -> None:
    x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)).double() * 4
    q = contract(x)
    assert float(q.abs().max()) < 2
    torch.testing.assert_close(uncontract(q), x, rtol=1e-6, atol=1e-6)
    near = x[(x.abs() <= 1).all(1)]
    torch.testing.assert_close(contract(near), near)


@pytest.mark.parametrize("kind", ["box", "forward", "contraction"])
def test_points_of_a_ray_come_back_to_the_world(kind: str) -> None:
    space = choose_space(_scene(_grid(), depth_range=(2.0, 9.0)), kind).space  # type: ignore[arg-type]
    origin = torch.tensor([[0.1, 0.05, 0.1]], dtype=torch.float64).expand(20, 3)
    direction = torch.tensor([[0.1, 1.0, -0.05]], dtype=torch.float64).expand(20, 3)
    direction = direction / direction.norm(dim=1, keepdim=True)
    lines = space.lines(origin, direction)
    distance = lines.near + (lines.far - lines.near) * torch.linspace(0.02, 0.9, 20).double()
    world = space.to_world(space.points(lines, torch.arange(20), distance))
    along = ((world - origin) * direction).sum(1)
    torch.testing.assert_close(world, origin + along[:, None] * direction, atol=1e-6, rtol=1e-6)
    assert (along.diff() > 0).all()
    assert (along > 0).all()
    unit = space.unit(space.points(lines, torch.arange(20), distance))
    assert ((unit > -1e-6) & (unit < 1 + 1e-6)).all()


def test_forward_space_puts_the_near_plane_at_minus_one() -> None:
    space = choose_space(_scene(_grid(), depth_range=(2.0, 9.0)), "forward").space
    ray = torch.tensor([[0.0, 0.05, 0.0]], dtype=torch.float64), torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    lines = space.lines(*ray)
    points = space.points(lines, torch.zeros(2, dtype=torch.long), torch.cat((lines.near, lines.far)))
    assert points[:, 2].tolist() == pytest.approx([-1, 1], abs=1e-6)
    scale = 1 / (0.75 * 2)
    assert space.scale == pytest.approx(scale)


def test_captures_choose_their_space(tmp_path: Path) -> None:
    assert choose_space(box_scene(tmp_path / "b")).space.kind == "box"
    assert choose_space(_scene(_grid(), depth_range=(2.0, 9.0))).space.kind == "forward"
    assert choose_space(_scene(_ring())).space.kind == "contraction"
    assert choose_space(_scene(_ring(), layout="blender")).space.kind == "box"
    assert "contracted" in choose_space(_scene(_ring())).why
    assert choose_space(box_scene(tmp_path / "b"), "contraction").space.kind == "contraction"


def test_the_box_holds_what_was_measured(tmp_path: Path) -> None:
    scene = box_scene(tmp_path / "b")
    for known in (scene, replace(scene, cloud=None)):
        space = choose_space(known).space
        assert scene.cloud is not None
        unit = space.unit(
            torch.from_numpy(scene.cloud.xyz.astype(np.float64) @ space.from_world[:3, :3].T + space.from_world[:3, 3])
        )
        assert ((unit > 0) & (unit < 1)).all(1).double().mean() > 0.98
        assert space.near > 0
        assert space.size.max() == pytest.approx(2)


def test_the_contraction_centres_on_what_the_cameras_look_at() -> None:
    space = choose_space(_scene(_ring())).space
    centre = np.linalg.inv(space.from_world)[:3, 3]
    np.testing.assert_allclose(centre, [0.5, 0.2, 0.0], atol=1e-6)


def test_bad_cameras_are_named() -> None:
    with pytest.raises(DataError, match="All 3 cameras are at one point"):
        choose_space(_scene([_ring()[0]] * 3))
    mirrored = _ring()
    mirrored[2] = mirrored[2] @ np.diag([-1.0, 1.0, 1.0, 1.0])
    with pytest.raises(DataError, match="pose of 2 cannot be used: its rotation reflects"):
        choose_space(_scene(mirrored))
    with pytest.raises(UsageError, match="in all directions"):
        choose_space(_scene(_ring(), depth_range=(1.0, 2.0)), "forward")
    with pytest.raises(UsageError, match="distance of the nearest object"):
        choose_space(_scene(_grid()), "forward")


def test_a_space_is_read_back() -> None:
    space = choose_space(_scene(_grid(), depth_range=(2.0, 9.0))).space
    again = Space.from_json(space.to_json())
    assert again.to_json() == space.to_json()
    np.testing.assert_array_equal(again.from_world, space.from_world)
