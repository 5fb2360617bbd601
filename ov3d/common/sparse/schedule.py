"""The order in which the pairs of a kernel map are processed, so that the working set stays in the cache.

A sparse convolution adds, for every offset k of the kernel, rows of the input times W_k onto rows of the output. The
destination rows are cut into blocks. Inside a block the products of all offsets are written consecutively into a
small buffer that stays in the cache; then each destination row is the sum of its products. No two products are ever
added to memory in a race, so the result does not depend on how threads are scheduled.

For every destination row, a schedule stores the positions of its products in the buffer of its block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ov3d.common.base.shapes import Int32

MAX_BLOCK_ROWS = 4096
MIN_BLOCK_ROWS = 256
MAX_BLOCK_PAIRS = 1 << 16
"""Most products per block: 8 MB at 32 channels of fp32."""

_PRODUCTS_A_ROW = 0.8
"""Products in the buffer per destination row of the whole level: keeps the buffer below the size of the features."""

_MIN_BLOCK_PAIRS = 1 << 15
"""Products any block may hold: 4 MB at 32 channels. With smaller blocks, small levels would be dominated by call overhead."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """For one offset of the kernel: which source row contributes to which destination row.

    Attributes:
        source: rows that are multiplied.
        destination: rows they are added to; strictly increasing.
    """

    source: Int32[Tensor, " p"]
    destination: Int32[Tensor, " p"]

    def __len__(self) -> int:
        return len(self.source)

    def swapped(self) -> Pairs:
        """The same pairs seen from the other side."""
        return Pairs(self.destination, self.source)


def no_pairs(device: torch.device) -> Pairs:
    """The pairs of an offset under which no voxels meet."""
    empty = torch.zeros(0, dtype=torch.int32, device=device)
    return Pairs(empty, empty)


@dataclass(frozen=True, eq=False)
class Block:
    """Destination rows `first` to `last`, and their products.

    Attributes:
        first: first row.
        last: one past the last row.
        sizes: products of each offset, in the order of the pairs.
        starts: where the block's pairs begin in the list of each offset.
        start: where the block's positions begin in the schedule's list.
        num_products: sum of the sizes.
    """

    first: int
    last: int
    sizes: list[int]
    starts: list[int]
    start: int
    num_products: int


@dataclass(frozen=True, eq=False)
class Schedule:
    """The order of work for one direction of a kernel map.

    Attributes:
        pairs: one entry per offset.
        blocks: the destination rows in order.
        positions: for every destination row in turn, the positions of its products in the buffer of its block.
        bag_start: for every destination row, where its positions start, relative to its block's start.
    """

    pairs: list[Pairs]
    blocks: list[Block]
    positions: Int32[Tensor, " p"]
    bag_start: Int32[Tensor, " n"]


def build_schedule(pairs: list[Pairs], num_rows: int) -> Schedule:
    """The schedule of these pairs.

    Args:
        pairs: one entry per offset, destinations strictly increasing.
        num_rows: destination rows, including those without pairs.
    """
    num_pairs = sum(map(len, pairs))
    device = pairs[0].destination.device if pairs else torch.device("cpu")
    if num_pairs == 0:
        return _empty_schedule(pairs, num_rows, device)
    rows = _block_rows(num_pairs, num_rows)
    first_slot = _first_slots(pairs, num_rows)
    starts = torch.arange(0, num_rows + rows, rows, dtype=torch.int32, device=device).clamp_(max=num_rows)
    bounds = torch.stack([torch.searchsorted(part.destination, starts) for part in pairs])
    sizes = bounds.diff(dim=1)
    position = _positions(bounds, sizes, num_pairs)
    positions = torch.empty(num_pairs, dtype=torch.int32, device=device)
    positions.scatter_(0, _slots(pairs, first_slot, num_pairs), position)
    block_slot = first_slot[starts.long()]
    block_of_row = torch.arange(num_rows, device=device) // rows
    bag_start = (first_slot[:-1] - block_slot[block_of_row]).int()
    blocks = [
        Block(first, last, of_offsets, from_pairs, slot, sum(of_offsets))
        for first, last, of_offsets, from_pairs, slot in zip(
            starts[:-1].tolist(),
            starts[1:].tolist(),
            sizes.t().tolist(),
            bounds[:, :-1].t().tolist(),
            block_slot[:-1].tolist(),
            strict=True,
        )
    ]
    return Schedule(pairs, blocks, positions, bag_start)


def _block_rows(num_pairs: int, num_rows: int) -> int:
    density = num_pairs / num_rows
    budget = min(MAX_BLOCK_PAIRS, max(_MIN_BLOCK_PAIRS, _PRODUCTS_A_ROW * num_rows))
    return min(max(int(budget / density), MIN_BLOCK_ROWS), MAX_BLOCK_ROWS)


def _first_slots(pairs: list[Pairs], num_rows: int) -> Tensor:
    counts = torch.bincount(torch.cat([part.destination for part in pairs]), minlength=num_rows)
    first = torch.zeros(num_rows + 1, dtype=torch.int64, device=counts.device)
    torch.cumsum(counts, 0, out=first[1:])
    return first


def _slots(pairs: list[Pairs], first_slot: Tensor, num_pairs: int) -> Tensor:
    """Where each pair's position is stored: pairs of one row are adjacent, in the order of the offsets."""
    cursor = first_slot[:-1].clone()
    slots = torch.empty(num_pairs, dtype=torch.int64, device=cursor.device)
    for part, out in zip(pairs, torch.split(slots, [len(part) for part in pairs]), strict=True):
        rows = part.destination.long()
        torch.index_select(cursor, 0, rows, out=out)
        cursor.scatter_(0, rows, out + 1)
    return slots


def _positions(bounds: Tensor, sizes: Tensor, num_pairs: int) -> Tensor:
    """The position of each pair, in the order of the offsets, in the buffer of its block."""
    num_of_offset = bounds[:, -1:]
    offset_start = num_of_offset.cumsum(0) - num_of_offset
    block_offset = sizes.cumsum(0) - sizes
    shift = (block_offset - bounds[:, :-1] - offset_start).flatten().int()
    shift = torch.repeat_interleave(shift, sizes.flatten(), output_size=num_pairs)
    return shift.add_(torch.arange(num_pairs, dtype=torch.int32, device=shift.device))


def _empty_schedule(pairs: list[Pairs], num_rows: int, device: torch.device) -> Schedule:
    """For no pairs at all: one empty block, so that an identity kernel and zeros still get written."""
    blocks = [Block(0, num_rows, [0] * len(pairs), [0] * len(pairs), 0, 0)] if num_rows else []
    empty = torch.zeros(0, dtype=torch.int32, device=device)
    return Schedule(pairs, blocks, empty, torch.zeros(num_rows, dtype=torch.int32, device=device))
