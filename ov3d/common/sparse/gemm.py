"""Gather, multiply, sum: the arithmetic of a sparse convolution, one block of destination rows at a time.

    out[d] = Σ_k x[s(d, k)] W_k            (forward)
    grad W_k = Σ_pairs x[s]ᵀ g[d]          (weights)

Per block and offset the source rows are gathered into a small buffer and multiplied by W_k into the block's buffer of
products; one segmented sum (`embedding_bag`, which vendors tune for recommender models) then writes every destination row
once. Compared with scattering each product onto the output, this moves half the memory and needs no atomics.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ov3d.common.base.shapes import Float
from ov3d.common.sparse.schedule import Block, Pairs, Schedule
from ov3d.common.sparse.workers import run_blocks


def convolve_rows(
    schedule: Schedule, feats: Float[Tensor, "n i"], weights: Sequence[Tensor], centre: Tensor | None
) -> Float[Tensor, "m o"]:
    """Σ_k of gathered rows times W_k for every destination row.

    Args:
        schedule: the order of work.
        feats: source rows.
        weights: one [i, o] matrix per entry of the schedule.
        centre: [i, o] matrix that maps every row to itself, if the kernel keeps the voxels.
    """
    out = feats.new_empty(len(schedule.bag_start), weights[0].shape[1])
    sources = [part.source for part in schedule.pairs]

    def task(blocks: Sequence[Block]) -> None:
        gather, products = _Gatherer(blocks, feats), _Products(schedule, blocks, feats, centre, out)
        for block, rows_of_offsets in zip(blocks, split_by_block(sources, blocks), strict=True):
            for rows, product, weight in zip(rows_of_offsets, products.parts(block), weights, strict=True):
                if len(rows):
                    torch.mm(gather(rows), weight, out=product)
            products.sum_up(block)

    run_blocks(schedule.blocks, feats.device, 2 * feats.shape[1] * out.shape[1], task)
    return out


def convolve_rows_and_weights(
    schedule: Schedule,
    grads: Float[Tensor, "m o"],
    feats: Float[Tensor, "n i"],
    weights: Sequence[Tensor],
    centre: Tensor | None,
) -> tuple[Float[Tensor, "n i"], Float[Tensor, "k i o"]]:
    """Gradients of a convolution's inputs and weights in one pass: output gradients are gathered once for both.

    Args:
        schedule: from outputs to inputs.
        grads: gradient of the outputs.
        feats: the inputs.
        weights: one [o, i] matrix per entry of the schedule.
        centre: [o, i] matrix of the identity offset, if any.

    Returns:
        The inputs' gradient, and one matrix per entry of the schedule.
    """
    out = torch.empty_like(feats)
    pairs, width = schedule.pairs, 4 * feats.shape[1] * grads.shape[1]

    def task(blocks: Sequence[Block]) -> Tensor:
        gather, beside = _Gatherer(blocks, grads), _Gatherer(blocks, feats)
        products = _Products(schedule, blocks, grads, centre, out)
        totals = feats.new_zeros(len(pairs), feats.shape[1], grads.shape[1])
        sources, targets = _sides(pairs, blocks)
        matrices = totals.unbind()
        for block, rows_of_offsets, into_of_offsets in zip(blocks, sources, targets, strict=True):
            for rows, into, product, weight, total in zip(
                rows_of_offsets, into_of_offsets, products.parts(block), weights, matrices, strict=True
            ):
                if len(rows):
                    gathered = gather(rows)
                    torch.mm(gathered, weight, out=product)
                    total.addmm_(beside(into).t(), gathered)
            products.sum_up(block)
        return totals

    return out, _add_up(run_blocks(schedule.blocks, feats.device, width, task), feats, grads, len(pairs))


def weight_gradients(
    schedule: Schedule, feats: Float[Tensor, "n i"], grads: Float[Tensor, "m o"]
) -> Float[Tensor, "k i o"]:
    """Σ of x[s]ᵀ g[d] per offset: for a first layer, whose inputs need no gradient.

    Args:
        schedule: from inputs to outputs.
        feats: the inputs.
        grads: gradient of the outputs.
    """
    pairs, width = schedule.pairs, 2 * feats.shape[1] * grads.shape[1]

    def task(blocks: Sequence[Block]) -> Tensor:
        left, right = _Gatherer(blocks, feats), _Gatherer(blocks, grads)
        totals = feats.new_zeros(len(pairs), feats.shape[1], grads.shape[1])
        matrices = totals.unbind()
        for rows_of_offsets, into_of_offsets in zip(*_sides(pairs, blocks), strict=True):
            for rows, into, total in zip(rows_of_offsets, into_of_offsets, matrices, strict=True):
                if len(rows):
                    total.addmm_(left(rows).t(), right(into))
        return totals

    return _add_up(run_blocks(schedule.blocks, feats.device, width, task), feats, grads, len(pairs))


def split_by_block(rows: Sequence[Tensor], blocks: Sequence[Block]) -> list[list[Tensor]]:
    """Per-offset row lists cut at the blocks: entry [b][k] belongs to offset k of block b of the run."""
    columns = []
    for offset, part in enumerate(rows):
        sizes = [block.sizes[offset] for block in blocks]
        start = blocks[0].starts[offset] if blocks else 0
        columns.append(torch.split(part[start : start + sum(sizes)], sizes) if blocks else ())
    return [[column[number] for column in columns] for number in range(len(blocks))]


def _sides(pairs: Sequence[Pairs], blocks: Sequence[Block]) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    return (
        split_by_block([part.source for part in pairs], blocks),
        split_by_block([part.destination for part in pairs], blocks),
    )


def _add_up(parts: list[Tensor], feats: Tensor, grads: Tensor, count: int) -> Tensor:
    """The threads' sums, in the order of their blocks."""
    if not parts:
        return feats.new_zeros(count, feats.shape[1], grads.shape[1])
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total


class _Gatherer:
    """Gathers the rows of one offset of one block into a reused buffer."""

    def __init__(self, blocks: Sequence[Block], rows: Tensor) -> None:
        self._rows = rows
        largest = max((max(block.sizes, default=0) for block in blocks), default=0)
        self._buffer = rows.new_empty(largest, rows.shape[1])

    def __call__(self, numbers: Tensor) -> Tensor:
        return torch.index_select(self._rows, 0, numbers, out=self._buffer[: len(numbers)])


class _Products:
    """The products of one block, and their sums onto the result."""

    def __init__(
        self, schedule: Schedule, blocks: Sequence[Block], rows: Tensor, centre: Tensor | None, out: Tensor
    ) -> None:
        self._schedule, self._rows, self._centre, self._out = schedule, rows, centre, out
        largest = max((block.num_products for block in blocks), default=0)
        self._buffer = out.new_empty(largest, out.shape[1])

    def parts(self, block: Block) -> tuple[Tensor, ...]:
        """Where each offset's products go."""
        return torch.split(self._buffer[: block.num_products], block.sizes)

    def sum_up(self, block: Block) -> None:
        """Write the block's rows of the result: the sums of their products, and the identity offset's."""
        out, centre = self._out[block.first : block.last], self._centre
        if not block.num_products:
            if centre is None:
                out.zero_()
            else:
                torch.mm(self._rows[block.first : block.last], centre, out=out)
            return
        positions = self._schedule.positions[block.start : block.start + block.num_products]
        starts = self._schedule.bag_start[block.first : block.last]
        products = self._buffer[: block.num_products]
        summed = torch.nn.functional.embedding_bag(positions, products, starts, mode="sum")
        if centre is None:
            out.copy_(summed)
        else:
            torch.addmm(summed, self._rows[block.first : block.last], centre, out=out)
