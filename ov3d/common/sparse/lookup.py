"""Look up the rows of voxels: tables that answer for many cells at once with one or two gathers.

A binary search over sorted keys costs about 50 ns per lookup, a gather from a table 2 to 10 ns. `DenseTable` holds one
int32 per cell of the bounding box. If that box is too sparse (a street at 5 cm), `BlockTable` holds a cell table
only for the 8×8×8 blocks that contain a voxel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ov3d.common.base.shapes import Int32, Int64
from ov3d.common.sparse.kernel_shape import Shift

MAX_DENSE_CELLS = 1 << 26
DENSE_CELLS_A_VOXEL = 128
"""Filling a cell costs a hundredth of a gather: up to about this many cells per voxel the dense table is faster."""

_BLOCK_BITS = 3
_BLOCK_CELLS = 1 << (3 * _BLOCK_BITS)
_LOW = (1 << _BLOCK_BITS) - 1


class Box:
    """The bounding box of voxels with a margin, and the linear address of a cell in it.

    Args:
        coords: batch, x, y, z; at least one.
        margin: cells added on every side, so that a shift by at most that much stays in the box.
        align: round the box up to multiples of this.
    """

    def __init__(self, coords: Int32[Tensor, "n 4"], margin: Shift, align: int = 1) -> None:
        low, high = (bound.tolist() for bound in torch.aminmax(coords, dim=0))
        self.origin = [low[0], *(value - pad for value, pad in zip(low[1:], margin, strict=True))]
        sizes = [top + pad - start + 1 for top, pad, start in zip(high[1:], margin, self.origin[1:], strict=True)]
        self.sizes = [high[0] - low[0] + 1, *(-(-size // align) * align for size in sizes)]

    @property
    def num_cells(self) -> int:
        """Cells of the whole box."""
        batch, x, y, z = self.sizes
        return batch * x * y * z


class DenseTable:
    """One int32 per cell of the box."""

    def __init__(self, coords: Int32[Tensor, "n 4"], box: Box) -> None:
        _, size_x, size_y, size_z = box.sizes
        self._strides = (size_x * size_y * size_z, size_y * size_z, size_z, 1)
        self._origin = box.origin
        self._rows = torch.full((box.num_cells,), -1, dtype=torch.int32, device=coords.device)
        rows = torch.arange(len(coords), dtype=torch.int32, device=coords.device)
        self._rows.scatter_(0, self.prepare(coords), rows)

    def prepare(self, coords: Int32[Tensor, "n 4"]) -> Int64[Tensor, " n"]:
        """The input of `rows` for cells inside the box: their addresses."""
        address = torch.zeros(len(coords), dtype=torch.int64, device=coords.device)
        for axis, (stride, origin) in enumerate(zip(self._strides, self._origin, strict=True)):
            address.add_(coords[:, axis] - origin, alpha=stride)
        return address

    def rows(self, prepared: Int64[Tensor, " n"], shift: Shift) -> Int32[Tensor, " n"]:
        """Rows of the voxels at the prepared cells plus `shift`, -1 for empty cells."""
        step = sum(stride * delta for stride, delta in zip(self._strides[1:], shift, strict=True))
        return self._rows.index_select(0, prepared + step)


class BlockTable:
    """A table of blocks, and one int32 per cell of the non-empty blocks.

    The block table is dense if the box allows it, else the sorted block numbers are searched.
    """

    def __init__(self, coords: Int32[Tensor, "n 4"], box: Box) -> None:
        self._origin = box.origin
        self._sizes = [box.sizes[0], *(size >> _BLOCK_BITS for size in box.sizes[1:])]
        block, cell = self._address(self.prepare(coords), (0, 0, 0))
        self._blocks, owner = torch.unique(block, sorted=True, return_inverse=True)
        self._dense: Tensor | None = None
        num_blocks = self._sizes[0] * self._sizes[1] * self._sizes[2] * self._sizes[3]
        if num_blocks <= MAX_DENSE_CELLS // 4:
            # Entry 0 is the empty block, shared by all blocks without voxels.
            self._dense = torch.zeros(num_blocks, dtype=torch.int64, device=coords.device)
            self._dense[self._blocks] = torch.arange(1, len(self._blocks) + 1, device=coords.device)
        self._rows = torch.full((_BLOCK_CELLS * (len(self._blocks) + 1),), -1, dtype=torch.int32, device=coords.device)
        rows = torch.arange(len(coords), dtype=torch.int32, device=coords.device)
        self._rows.scatter_(0, (owner + 1) * _BLOCK_CELLS + cell, rows)

    def prepare(self, coords: Int32[Tensor, "n 4"]) -> Int64[Tensor, "4 n"]:
        """The input of `rows` for cells inside the box: batch, x, y, z relative to the box's corner."""
        origin = torch.tensor(self._origin, device=coords.device)
        return (coords.long() - origin).t().contiguous()

    def rows(self, prepared: Int64[Tensor, "4 n"], shift: Shift) -> Int32[Tensor, " n"]:
        """Rows of the voxels at the prepared cells plus `shift`, -1 for empty cells."""
        block, cell = self._address(prepared, shift)
        return self._rows.index_select(0, self._entry(block).mul_(_BLOCK_CELLS).add_(cell))

    def _entry(self, block: Tensor) -> Tensor:
        if self._dense is not None:
            return self._dense.index_select(0, block)
        found = torch.searchsorted(self._blocks, block).clamp_(max=len(self._blocks) - 1)
        return torch.where(self._blocks[found] == block, found + 1, 0)

    def _address(self, prepared: Tensor, shift: Shift) -> tuple[Tensor, Tensor]:
        block, cell = prepared[0], torch.zeros_like(prepared[0])
        for axis, delta in enumerate(shift, start=1):
            position = prepared[axis] + delta
            block = block * self._sizes[axis] + (position >> _BLOCK_BITS)
            cell = (cell << _BLOCK_BITS) + (position & _LOW)
        return block, cell


def lookup_table(coords: Int32[Tensor, "n 4"], margin: Shift) -> DenseTable | BlockTable:
    """The cheaper table for these voxels; it covers cells up to `margin` outside their bounding box.

    Args:
        coords: batch, x, y, z; at least one voxel.
        margin: the largest shift along each axis.
    """
    box = Box(coords, margin)
    if box.num_cells <= min(MAX_DENSE_CELLS, DENSE_CELLS_A_VOXEL * len(coords) + (1 << 16)):
        return DenseTable(coords, box)
    return BlockTable(coords, Box(coords, margin, align=1 << _BLOCK_BITS))
