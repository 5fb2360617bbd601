from __future__ import annotations

import itertools

import pytest
import torch

from ov3d.common.base.errors import UsageError
from ov3d.common.sparse import lookup, strided
from ov3d.common.sparse.kernel_map import KernelMap, kernel_map
from ov3d.common.sparse.kernel_shape import KernelShape
from ov3d.common.sparse.lookup import BlockTable, Box, DenseTable, lookup_table
from ov3d.common.sparse.schedule import Pairs, build_schedule
from ov3d.common.sparse.voxels import VoxelGrid, voxelise


def scattered(seed: int, count: int = 300, spread: float = 6.0) -> VoxelGrid:
    generator = torch.Generator().manual_seed(seed)
    return voxelise([torch.randn(count, 3, generator=generator) * spread for _ in range(2)], 1.0)[0]


def brute_force_pairs(kernel: KernelMap) -> list[set[tuple[int, int]]]:
    """(input, output) pairs an offset, straight from the definition i = o * stride - padding + k * dilation."""
    rows = {tuple(voxel): row for row, voxel in enumerate(kernel.source.coords.tolist())}
    shape, pairs = kernel.shape, []
    for cells in itertools.product(*map(range, shape.size)):
        met = set()
        for out, (batch, *position) in enumerate(kernel.target.coords.tolist()):
            steps = zip(position, shape.stride, shape.padding, cells, shape.dilation, strict=True)
            at = (batch, *(o * s - p + k * d for o, s, p, k, d in steps))
            if at in rows:
                met.add((rows[at], out))
        pairs.append(met)
    return pairs


SHAPES = [
    KernelShape.of_submanifold(3),
    KernelShape.of_submanifold((1, 3, 5), 2),
    KernelShape((2, 2, 2), (2, 2, 2)),
    KernelShape((2, 2, 1), (2, 2, 1)),
    KernelShape((3, 3, 3), (2, 2, 1), padding=(1, 1, 1)),
    KernelShape((3, 2, 1), (1, 2, 3), dilation=(2, 3, 1), padding=(0, 1, 0)),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_pairs_are_those_of_the_definition_also_at_negative_cells(shape: KernelShape) -> None:
    kernel = kernel_map(scattered(0), shape)
    expected = brute_force_pairs(kernel)
    for offset, part in enumerate(kernel.pairs):
        found = set(zip(part.source.tolist(), part.destination.tolist(), strict=True))
        if offset == kernel.centre:
            assert not found and len(expected[offset]) == kernel.source.num_voxels
        else:
            assert found == expected[offset] and len(part) == len(found)
        assert (part.destination.diff() > 0).all() and (part.source.diff() > 0).all()
    assert kernel.num_pairs == sum(map(len, expected))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_table_gives_the_same_map(shape: KernelShape, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = kernel_map(scattered(1), shape)
    monkeypatch.setattr(lookup, "DENSE_CELLS_A_VOXEL", 0)
    monkeypatch.setattr(lookup, "MAX_DENSE_CELLS", 1 << 14)
    monkeypatch.setattr(strided, "MAX_MARKED_CELLS", 0)
    blocks = kernel_map(scattered(1), shape)
    monkeypatch.setattr(lookup, "MAX_DENSE_CELLS", 0)
    searched = kernel_map(scattered(1), shape)
    for other in (blocks, searched):
        assert torch.equal(dense.target.coords, other.target.coords)
        for one, two in zip(dense.pairs, other.pairs, strict=True):
            assert torch.equal(one.source, two.source) and torch.equal(one.destination, two.destination)


def test_the_table_follows_the_box() -> None:
    assert isinstance(lookup_table(scattered(2).coords, (1, 1, 1)), DenseTable)
    wide = torch.tensor([[0, -130000, 0, 0], [0, 0, 0, 0], [0, 0, 130000, 7]], dtype=torch.int32)
    table = lookup_table(wide, (1, 1, 1))
    assert isinstance(table, BlockTable)
    assert table.rows(table.prepare(wide), (0, 0, 0)).tolist() == [0, 1, 2]
    assert table.rows(table.prepare(wide), (1, 0, 0)).tolist() == [-1, -1, -1]
    assert table.rows(table.prepare(wide - torch.tensor([0, 0, 0, 1], dtype=torch.int32)), (0, 0, 1)).tolist() == [
        0,
        1,
        2,
    ]


def test_box_counts_its_cells() -> None:
    box = Box(torch.tensor([[1, 0, 0, -1], [2, 3, 0, 1]], dtype=torch.int32), (1, 0, 2))
    assert box.sizes == [2, 6, 1, 7] and box.num_cells == 84 and box.origin == [1, -1, 0, -3]


def test_maps_are_built_once_and_shared() -> None:
    grid = scattered(3)
    shape = KernelShape.of_submanifold(3)
    first = kernel_map(grid, shape)
    assert kernel_map(grid, KernelShape.of_submanifold((3, 3, 3))) is first
    assert kernel_map(grid, KernelShape.of_submanifold(3, 2)) is not first
    assert first.schedule("forward")[0] is first.schedule("transposed")[0]
    assert len(grid.maps) == 2


def test_a_map_takes_eight_bytes_a_pair() -> None:
    """Symmetry halves the pairs: 4 bytes a pair for both sides, 4 for its position, 4 a row."""
    grid = scattered(4, count=2000)
    kernel = kernel_map(grid, KernelShape.of_submanifold(3))
    kernel.schedule("forward")
    assert kernel.num_bytes() == 8 * (kernel.num_pairs - grid.num_voxels) + 4 * grid.num_voxels


def test_schedule_positions_cover_every_product_once() -> None:
    kernel = kernel_map(scattered(5, count=4000), KernelShape.of_submanifold(3))
    schedule, order = kernel.schedule("forward")
    assert order == list(range(27)) and len(schedule.blocks) > 1
    for block in schedule.blocks:
        positions = schedule.positions[block.start : block.start + block.num_products]
        assert positions.sort().values.tolist() == list(range(sum(block.sizes)))
    assert [block.first for block in schedule.blocks[1:]] == [block.last for block in schedule.blocks[:-1]]


def test_schedule_without_pairs() -> None:
    empty = torch.zeros(0, dtype=torch.int32)
    assert build_schedule([Pairs(empty, empty)], 0).blocks == []
    (block,) = build_schedule([Pairs(empty, empty)], 5).blocks
    assert (block.first, block.last, block.num_products) == (0, 5, 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: KernelShape.of_submanifold(2),
        lambda: KernelShape((0, 1, 1)),
        lambda: KernelShape((3, 3, 3), padding=(-1, 0, 0)),
        lambda: KernelShape((5, 1, 1)).strided_extent((4, 4, 4)),
    ],
)
def test_impossible_kernels_are_refused(make: object) -> None:
    with pytest.raises(UsageError):
        make()  # type: ignore[operator]
