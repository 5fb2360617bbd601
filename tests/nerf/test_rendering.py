"""Occupancy, march and compositing against their slow twins in fp64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from ov3d.nerf.field import RadianceField
from ov3d.nerf.occupancy import Occupancy, find_occupancy, full_occupancy
from ov3d.nerf.rendering import (
    DENSITY_FACTOR,
    FRONT_SAMPLES,
    accumulate,
    packed_weights,
    render_colour,
    running_sum,
    weigh,
)
from ov3d.nerf.sampling import Samples, march
from ov3d.nerf.spaces import Space
from tests.nerf.twins import place_value, products_at, small_field, weights_of

BOX = Space("box", np.eye(4), np.array([-1.0, -1.0, -0.8]), np.array([1.0, 1.2, 0.8]), 0.02)


def _rays(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    origin = torch.rand(count, 3, generator=generator) * 3 - 1.5
    direction = torch.rand(count, 3, generator=generator) - 0.5 - origin
    return origin, direction / direction.norm(dim=1, keepdim=True)


def _packed(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ray_idx = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return torch.rand(sum(lengths), generator=generator) * 2, ray_idx


def test_weights_equal_the_twin() -> None:
    thickness, ray_idx = _packed([5, 0, 1, 40, 3])
    thickness[7:12] = 50  # an opaque stretch
    found = packed_weights(thickness, ray_idx).numpy()
    for ray in range(5):
        mine = (ray_idx == ray).numpy()
        np.testing.assert_allclose(found[mine], weights_of(thickness.double().numpy()[mine]), atol=1e-6)


def test_weights_of_the_last_of_many_rays_lose_no_digits() -> None:
    ray_idx = torch.arange(20_000).repeat_interleave(8)
    thickness = torch.full((160_000,), 40.0)
    thickness[-8:] = torch.linspace(0.01, 0.08, 8)
    expected = weights_of(thickness[-8:].double().numpy())
    np.testing.assert_allclose(packed_weights(thickness, ray_idx)[-8:].numpy(), expected, atol=1e-6)


def test_gradients_of_weights_equal_differences() -> None:
    thickness, ray_idx = _packed([4, 0, 1, 6])
    thickness = thickness.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda tau: packed_weights(tau, ray_idx), (thickness,))


def test_running_sums() -> None:
    values, ray_idx = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0, 0, 2, 2])
    assert running_sum(values, ray_idx).tolist() == [1, 3, 3, 7]
    assert running_sum(values[:0], ray_idx[:0]).shape == (0,)


@pytest.mark.parametrize("threshold", [0.0, 0.02])
def test_occupancy_equals_the_twin(threshold: float) -> None:
    field = small_field((4, 5, 3))
    with torch.no_grad():
        field.density_grid.planes[0][:, 0], field.density_grid.lines[0][:, 0] = -0.95, 1.0
    found = find_occupancy(field, optical_step=0.2, threshold=threshold)
    grid = field.density_grid
    for cell in itertools.product(*(range(places - 1) for places in field.resolution)):
        corners = [tuple(np.add(cell, corner)) for corner in itertools.product((0, 1), repeat=3)]
        greatest = max(
            sum(place_value(grid, k, c, corner) for k, rank in enumerate(grid.ranks) for c in range(rank))  # type: ignore[arg-type]
            for corner in corners
        )
        opacity = 1 - np.exp(-0.2 * max(greatest, 0))
        if abs(opacity - threshold) > 1e-4:
            assert bool(found.cells[cell]) == (opacity > threshold)
    assert 0 < found.share < 1


def test_cells_of_fine_grids_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    field = small_field((12, 8, 9))
    fine = find_occupancy(field, optical_step=0.2, threshold=0.6)
    monkeypatch.setattr("ov3d.nerf.occupancy.MAX_CELLS", 4)
    joined = find_occupancy(field, optical_step=0.2, threshold=0.6)
    assert joined.cells.shape == (4, 4, 4)
    unit = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0))
    assert not (fine.lookup(unit) & ~joined.lookup(unit)).any()  # nothing is lost
    assert joined.lookup(unit).float().mean() < 1


def test_leaving_out_what_is_empty_changes_nothing() -> None:
    """Threshold 0 is exact: colours and gradients with and without occupancy are the same."""
    field, (origin, direction) = small_field(), _rays(60)
    lines = BOX.lines(origin, direction)
    results = []
    delta = 0.05
    for occupancy in (
        full_occupancy(field.resolution, torch.device("cpu")),
        find_occupancy(field, optical_step=DENSITY_FACTOR * delta, threshold=0.0),
    ):
        field.zero_grad()
        seen = weigh(field, march(BOX, lines, occupancy, delta))
        colour = render_colour(field, seen, direction, 0.3)
        colour.square().sum().backward()
        results.append((colour.detach(), field.density_grid.planes[0].grad.clone(), len(seen.samples)))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-4, rtol=1e-3)
    assert results[1][2] < results[0][2]


def test_rays_equal_the_twin() -> None:
    """Whole rays, sample by sample: march, density, compositing, opacity and distance."""
    field, (origin, direction) = small_field(), _rays(12, seed=4)
    with torch.no_grad():
        for table in field.density_grid.planes:
            table.mul_(0.2)  # light gets through
    delta = 0.07
    lines = BOX.lines(origin, direction)
    occupancy = find_occupancy(field, optical_step=DENSITY_FACTOR * delta, threshold=0.0)
    seen = weigh(field, march(BOX, lines, occupancy, delta))
    opacity = seen.opacity.detach().numpy()
    distance = accumulate(seen.weight, seen.samples.distance[:, None], seen.samples).detach().numpy()[:, 0]
    hits = 0
    for ray in range(12):
        near, far = float(lines.near[ray]), float(lines.far[ray])
        if far <= near:
            assert opacity[ray] == 0
            continue
        hits += 1
        at = np.arange(near + 0.5 * delta, far, delta)
        unit = (origin[ray].double().numpy() + at[:, None] * direction[ray].double().numpy() - BOX.low) / BOX.size
        density = [max(0.0, products_at(field.density_grid, point).sum()) for point in unit]
        weights = weights_of(DENSITY_FACTOR * delta * np.array(density))
        assert abs(weights.sum() - opacity[ray]) < 1e-4
        assert abs((weights * at).sum() - distance[ray]) < 2e-4
    assert hits >= 9


def test_an_opaque_front_hides_what_is_behind() -> None:
    field = small_field()
    with torch.no_grad():
        for grid in (field.density_grid.planes, field.density_grid.lines):
            for table in grid:
                table.fill_(3)
    origin = torch.tensor([[-2.0, 0.0, 0.0]])
    direction = torch.tensor([[1.0, 0.0, 0.0]])
    lines = BOX.lines(origin, direction)
    samples = march(BOX, lines, full_occupancy(field.resolution, torch.device("cpu")), 0.02)
    assert len(samples) > 90
    seen = weigh(field, samples)
    assert len(seen.samples) == FRONT_SAMPLES
    assert float(seen.opacity.detach()) == pytest.approx(1, abs=1e-4)


def test_nothing_occupied_shows_the_background() -> None:
    field, (origin, direction) = small_field(), _rays(5)
    nothing = torch.zeros(6, 8, 5, dtype=torch.bool)
    occupancy = Occupancy(nothing, nothing, 2, (6.0, 8.0, 5.0))
    seen = weigh(field, march(BOX, BOX.lines(origin, direction), occupancy, 0.05))
    assert len(seen.samples) == 0
    assert occupancy.bounds() is None
    torch.testing.assert_close(render_colour(field, seen, direction, 1.0), torch.ones(5, 3))


def test_bounds_of_what_is_occupied() -> None:
    cells = torch.zeros(10, 10, 10, dtype=torch.bool)
    cells[2:4, 5, 1:9] = True
    low, high = Occupancy(cells, cells, 2, (10.0, 10.0, 10.0)).bounds() or (None, None)
    torch.testing.assert_close(low, torch.tensor([0.2, 0.5, 0.1]))
    torch.testing.assert_close(high, torch.tensor([0.4, 0.6, 0.9]))


def test_selected_samples_keep_their_rays() -> None:
    field, (origin, direction) = small_field(), _rays(30)
    samples = march(BOX, BOX.lines(origin, direction), full_occupancy(field.resolution, torch.device("cpu")), 0.1)
    assert isinstance(samples, Samples)
    assert (samples.ray_idx.diff() >= 0).all()
    front = samples.front(3)
    assert int(torch.bincount(samples.ray_idx[front]).max()) == 3
    assert isinstance(field, RadianceField)
