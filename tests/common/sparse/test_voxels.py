from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.sparse.voxels import (
    COORDINATE_LIMIT,
    MAX_BATCHES,
    SparseTensor,
    average_by_voxel,
    pack_keys,
    sparse_tensor,
    unpack_keys,
    voxelise,
)

AXIS = st.integers(-COORDINATE_LIMIT, COORDINATE_LIMIT - 1)
VOXELS = st.lists(st.tuples(st.integers(0, MAX_BATCHES - 1), AXIS, AXIS, AXIS), min_size=1, max_size=20)


@settings(max_examples=50, deadline=None)
@given(VOXELS)
def test_keys_hold_every_voxel_and_sort_like_it(voxels: list[tuple[int, int, int, int]]) -> None:
    coords = torch.tensor(voxels, dtype=torch.int32)
    keys = pack_keys(coords)
    assert torch.equal(unpack_keys(keys), coords)
    assert [voxels[i] for i in keys.argsort(stable=True).tolist()] == sorted(voxels)


@pytest.mark.parametrize(
    "row", [(0, COORDINATE_LIMIT, 0, 0), (0, 0, 0, -COORDINATE_LIMIT - 1), (-1, 0, 0, 0), (MAX_BATCHES, 0, 0, 0)]
)
def test_what_does_not_fit_a_key_is_an_error(row: tuple[int, int, int, int]) -> None:
    with pytest.raises(DataError):
        pack_keys(torch.tensor([row]))


def test_voxelise_gives_unique_cells_and_the_way_back() -> None:
    clouds = [torch.randn(200, 3), torch.randn(50, 3) - 5]
    grid, inverse = voxelise(clouds, 0.4)
    cells = torch.cat([torch.floor(cloud / 0.4) for cloud in clouds]).int()
    batch = torch.cat([torch.zeros(200), torch.ones(50)]).int()
    assert torch.equal(grid.coords[inverse], torch.cat([batch[:, None], cells], 1))
    assert len(torch.unique(grid.coords, dim=0)) == grid.num_voxels
    assert torch.equal(torch.unique(grid.coords, dim=0), grid.coords)
    assert grid.num_batches == 2


def test_voxelise_counts_empty_clouds() -> None:
    grid, inverse = voxelise([torch.zeros(0, 3), torch.ones(1, 3), torch.zeros(0, 3)], 1.0)
    assert grid.num_batches == 3 and grid.coords.tolist() == [[1, 1, 1, 1]] and inverse.tolist() == [0]
    assert grid.batch_counts().tolist() == [0, 1, 0]
    assert voxelise([], 1.0)[0].num_voxels == 0


def test_voxelise_refuses_what_it_cannot_do() -> None:
    with pytest.raises(UsageError, match="must be positive"):
        voxelise(torch.zeros(1, 3), 0.0)
    with pytest.raises(DataError, match="not finite"):
        voxelise(torch.tensor([[0.0, float("inf"), 0.0]]), 1.0)
    with pytest.raises(DataError, match="larger voxels"):
        voxelise(torch.tensor([[5e5, 0.0, 0.0]]), 0.01)


def test_average_by_voxel() -> None:
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [10.0, 20.0]])
    assert average_by_voxel(values, torch.tensor([2, 2, 0]), 3).tolist() == [[10, 20], [0, 0], [2, 3]]


def test_sparse_tensor_sorts_rows_with_their_voxels() -> None:
    coords = torch.tensor([[1, 0, 0, 0], [0, 2, 0, 0], [0, -1, 5, 0]])
    x, order = sparse_tensor(coords, torch.tensor([[1.0], [2.0], [3.0]]))
    assert x.feats[:, 0].tolist() == [3.0, 2.0, 1.0] and order.tolist() == [2, 1, 0]
    assert x.coords.tolist() == [[0, -1, 5, 0], [0, 2, 0, 0], [1, 0, 0, 0]]


def test_sparse_tensor_checks_its_voxels() -> None:
    feats = torch.zeros(2, 1)
    with pytest.raises(DataError, match="twice"):
        sparse_tensor(torch.zeros(2, 4, dtype=torch.int32), feats)
    coords = torch.tensor([[0, 0, 0, 0], [0, 4, 0, 0]])
    with pytest.raises(DataError, match="are outside the grid"):
        sparse_tensor(coords, feats, extent=(4, 4, 4))
    with pytest.raises(UsageError, match="num_batches"):
        sparse_tensor(coords, feats, num_batches=0)
    x, _ = sparse_tensor(coords, feats, extent=(5, 1, 1))
    with pytest.raises(UsageError, match="one row per voxel"):
        SparseTensor(x.grid, torch.zeros(3, 1))
