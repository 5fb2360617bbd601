"""Cylindrical voxels: equal to a scalar loop, bounded, and the same in any batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ov3d.common.base.errors import DataError
from ov3d.common.sparse.cylinder import CylinderGrid

GRID = CylinderGrid()


def _points(count: int, seed: int = 0) -> torch.Tensor:
    scale = torch.tensor([40.0, 40.0, 3.0], dtype=torch.float64)
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def test_cells_are_those_of_a_scalar_loop() -> None:
    points = _points(500)
    expected = []
    for x, y, z in points.tolist():
        values = (math.hypot(x, y), math.atan2(y, x), z)
        cell = []
        for value, (low, high), count in zip(values, (GRID.rho, GRID.phi, GRID.z), GRID.extent, strict=True):
            cell.append(math.floor((min(max(value, low), high) - low) / ((high - low) / (count - 1))))
        expected.append(cell)
    assert torch.stack(GRID.cells(points), dim=1).tolist() == expected


def test_voxels_are_distinct_sorted_and_lead_back() -> None:
    clouds = [_points(2000), _points(0), _points(700, seed=1).float()]
    grid, inverse = GRID.voxelise(clouds)
    rows = [
        torch.column_stack([torch.full((len(cloud),), batch), *GRID.cells(cloud)]) for batch, cloud in enumerate(clouds)
    ]
    assert torch.equal(grid.coords[inverse].long(), torch.cat(rows))
    assert torch.equal(torch.unique(torch.cat(rows), dim=0), grid.coords.long())
    assert grid.num_batches == 3 and grid.extent == GRID.extent and grid.coords.dtype == torch.int32
    alone, _ = GRID.voxelise(clouds[2])
    assert torch.equal(alone.coords[:, 1:], grid.coords[grid.coords[:, 0] == 2][:, 1:])


def test_long_keys_give_the_same_voxels() -> None:
    """A grid whose keys need more than 31 bits."""
    fine, points = CylinderGrid(extent=(4096, 4096, 512)), _points(3000)
    grid, inverse = fine.voxelise(points)
    assert torch.equal(grid.coords[inverse, 1:].long(), torch.stack(fine.cells(points), dim=1))


def test_what_is_outside_goes_into_the_outermost_cells() -> None:
    points = torch.tensor([[1000.0, 0.0, 99.0], [0.0, 0.0, -99.0], [-1e-9, 0.0, 0.0], [49.99, -1e-9, 1.9]])
    rho, _, z = (axis.tolist() for axis in GRID.cells(points))
    assert rho == [479, 0, 0, 478] and z == [31, 0, 20, 30]
    np.testing.assert_allclose(GRID.size, (50 / 479, 2 * math.pi / 359, 6 / 31))


def test_nothing_and_what_is_not_finite() -> None:
    grid, inverse = GRID.voxelise([])
    assert grid.num_voxels == grid.num_batches == len(inverse) == 0
    grid, inverse = GRID.voxelise(torch.zeros(0, 3))
    assert (grid.num_voxels, grid.num_batches, len(inverse)) == (0, 1, 0)
    with pytest.raises(DataError, match="not finite"):
        GRID.voxelise(torch.tensor([[0.0, float("nan"), 0.0]]))
