"""Tables against trilinear interpolation corner by corner, and gradients against differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ov3d.nerf.field import RadianceField, VectorMatrix, resolution_for, voxel_schedule
from ov3d.nerf.lookup import Taps, products, scatter, sum_of_products
from tests.nerf.twins import products_at, small_field


def _points(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    inside = torch.rand(count, 3, generator=generator)
    return torch.cat((inside, torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.5, 1.0, 0.0]])))


def test_products_equal_the_twin() -> None:
    field, unit = small_field(), _points(20)
    taps = field.taps(unit)
    for grid in (field.density_grid, field.appearance_grid):
        expected = np.array([products_at(grid, point) for point in unit.double().numpy()])
        np.testing.assert_allclose(grid.products(taps).detach().numpy(), expected, atol=1e-4)
        np.testing.assert_allclose(grid.total(taps).detach().numpy(), expected.sum(1), atol=1e-4)
    density = field.density(taps).detach().numpy()
    assert (density >= 0).all()
    assert (density > 0).any()


@pytest.mark.parametrize("function", [products, sum_of_products])
def test_gradients_equal_differences(function: Callable[..., torch.Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = [(12, 3), (15, 1), (20, 2), (5, 3), (4, 1), (3, 2)]
    tables = [torch.randn(*size, generator=generator, dtype=torch.float64, requires_grad=True) for size in sizes]
    taps = Taps(5 * torch.rand(6, 3, generator=generator, dtype=torch.float64), (3, 4, 5))
    assert torch.autograd.gradcheck(lambda *given: function(given[:3], given[3:], taps), tables)


def test_points_without_a_gradient_change_nothing() -> None:
    """The quick sum over components against the products that autograd sums, half of the gradient zero."""
    grid = small_field().density_grid
    taps = Taps(_points(40) * 5, grid.resolution)
    grad = torch.randn(43, generator=torch.Generator().manual_seed(0))
    grad[::2] = 0
    found = []
    for total in (grid.total(taps), grid.products(taps).sum(1)):
        grid.zero_grad()
        total.backward(grad)
        found.append([table.grad for table in grid.parameters()])
    for quick, slow in zip(*found, strict=True):
        torch.testing.assert_close(quick, slow, atol=1e-5, rtol=1e-4)


def test_scattering_adds_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(12, (30, 4), generator=generator, dtype=torch.int32)
    weight, grad = torch.rand(30, 4, generator=generator), torch.randn(30, 5, generator=generator)
    dense = torch.zeros(12, 5).index_add_(0, index.flatten().long(), (weight[:, :, None] * grad[:, None]).flatten(0, 1))
    np.testing.assert_allclose(scatter(index, weight, grad, 12).numpy(), dense.numpy(), atol=1e-5)


def test_no_points_are_fine() -> None:
    field = small_field()
    taps = field.taps(torch.zeros(0, 3))
    assert field.density(taps).shape == (0,)
    field.code(taps).sum().backward()
    assert float(field.appearance_grid.planes[0].grad.abs().sum()) == 0


def test_slabs_are_the_values_at_the_places() -> None:
    field = small_field()
    x, y, z = field.resolution
    places = torch.stack(torch.meshgrid(*(torch.linspace(0, 1, n) for n in (x, y, z)), indexing="ij"), -1)
    expected = field.density_grid.total(field.taps(places.reshape(-1, 3))).view(x, y, z)
    found = torch.cat((field.density_grid.slab(0, 3), field.density_grid.slab(3, x)))
    torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=1e-4)


def test_resampling_keeps_the_field() -> None:
    """A grid of twice the places holds the old one exactly; a smaller box reads its part of it."""
    field, unit = small_field(), _points(50)
    old = field.density_grid.total(field.taps(unit)).detach()
    x, y, z = field.resolution
    field.resample((2 * x - 1, 2 * y - 1, 2 * z - 1), torch.zeros(3), torch.ones(3))
    torch.testing.assert_close(field.density_grid.total(field.taps(unit)).detach(), old, atol=1e-5, rtol=1e-4)
    low, high = torch.tensor([0.25, 0.0, 0.5]), torch.tensor([0.75, 0.5, 1.0])
    whole = field.density_grid.total(field.taps(low + unit * (high - low))).detach()
    field.resample((7, 9, 6), low, high)  # half of the box, half of the places: the same voxels
    torch.testing.assert_close(field.density_grid.total(field.taps(unit)).detach(), whole, atol=1e-4, rtol=1e-3)


def test_the_same_seed_gives_the_same_field() -> None:
    first, second = small_field(seed=3).state_dict(), small_field(seed=3).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_schedules() -> None:
    np.testing.assert_allclose(voxel_schedule(1e3, 1e6, 3), [1e4, 1e5, 1e6])
    assert voxel_schedule(1e3, 1e6, 0) == []
    x, y, z = resolution_for(128**3, torch.tensor([2.0, 2.0, 1.0]))
    assert x == y
    assert abs(x - 2 * z) <= 1
    assert abs(x * y * z / 128**3 - 1) < 0.05


def test_factored_networks_have_the_stated_size() -> None:
    field = RadianceField((8, 8, 8))
    assert field.basis.weight.shape == (27, 72)
    colours = field.colour(torch.zeros(5000, 27), torch.zeros(5000, 3))
    assert colours.shape == (5000, 3)
    assert VectorMatrix((4, 5, 6), (1, 2, 3)).planes[2].shape == (30, 3)


@pytest.mark.parametrize("resolution", [(2, 2, 2), (3, 2, 5)])
def test_taps_stay_inside_the_tables(resolution: tuple[int, int, int]) -> None:
    taps = Taps(torch.tensor([[-3.0, 9.0, 1.0], [0.2, 0.9, 4.0]]), resolution)
    for k, (a, b) in enumerate(((0, 1), (0, 2), (1, 2))):
        (rows, _), (places, _) = taps.plane(k), taps.line(k)
        assert int(rows.min()) >= 0
        assert int(rows.max()) < resolution[a] * resolution[b]
        assert int(places.min()) >= 0
        assert int(places.max()) < resolution[2 - k]
        for _, weight in (taps.plane(k), taps.line(k)):
            torch.testing.assert_close(weight.sum(1), torch.ones(2))
