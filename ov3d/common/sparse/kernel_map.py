"""Kernel maps: which input voxel meets which output voxel under which offset of a kernel.

Convention (as in `torch.nn.Conv3d` and spconv): output o sees input i under offset k if
i = o * stride - padding + k * dilation along every axis. Offsets are numbered with z fastest.

Submanifold maps (stride 1, outputs = inputs) are symmetric: if i meets o under k, then o meets i under the opposite offset.
So only the offsets before the centre are looked up and stored, and the centre is the identity.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ov3d.common.sparse.kernel_shape import KernelShape, Shift
from ov3d.common.sparse.lookup import lookup_table
from ov3d.common.sparse.schedule import Pairs, Schedule, build_schedule, no_pairs
from ov3d.common.sparse.strided import strided_pairs
from ov3d.common.sparse.voxels import VoxelGrid

Direction = Literal["forward", "transposed"]


@dataclass(frozen=True, eq=False)
class KernelMap:
    """The pairs of a kernel on a grid.

    Attributes:
        shape: the kernel.
        source: input voxels.
        target: output voxels; the source itself for submanifold kernels.
        pairs: one entry per offset, source rows of the input and destination rows of the output; empty for the centre
            of a submanifold kernel, which is the identity.
    """

    shape: KernelShape
    source: VoxelGrid
    target: VoxelGrid
    pairs: list[Pairs]
    _schedules: dict[Direction, Schedule] = field(default_factory=dict, repr=False)

    @property
    def centre(self) -> int | None:
        """The offset under which every voxel meets itself, if there is one."""
        return self.shape.volume // 2 if self.shape.submanifold else None

    @property
    def num_pairs(self) -> int:
        """Pairs over all offsets, the centre's included."""
        return sum(map(len, self.pairs)) + (self.source.num_voxels if self.shape.submanifold else 0)

    def schedule(self, direction: Direction) -> tuple[Schedule, list[int]]:
        """The order of work from inputs to outputs (`forward`) or back (`transposed`), built on the first call.

        Returns:
            The schedule, and for each of its entries the kernel offset whose weights it uses.
        """
        order = list(range(self.shape.volume))
        if self.shape.submanifold and direction == "transposed":
            # Opposite offsets have swapped pairs: the same schedule works with the weights reversed.
            return self.schedule("forward")[0], order[::-1]
        if direction not in self._schedules:
            pairs = self.pairs if direction == "forward" else [part.swapped() for part in self.pairs]
            rows = self.target.num_voxels if direction == "forward" else self.source.num_voxels
            self._schedules[direction] = build_schedule(pairs, rows)
        return self._schedules[direction], order

    def num_bytes(self) -> int:
        """Memory of the pairs and the schedules built so far, for reports."""
        storages = {}
        for part in self.pairs:
            for rows in (part.source, part.destination):
                storages[rows.untyped_storage().data_ptr()] = rows.untyped_storage().nbytes()
        for plan in self._schedules.values():
            for rows in (plan.positions, plan.bag_start):
                storages[rows.untyped_storage().data_ptr()] = rows.untyped_storage().nbytes()
        return sum(storages.values())


def kernel_map(grid: VoxelGrid, shape: KernelShape) -> KernelMap:
    """The map of a kernel on these voxels, from the grid's cache, or built and cached."""
    if shape not in grid.maps:
        grid.maps[shape] = _submanifold_map(grid, shape) if shape.submanifold else _strided_map(grid, shape)
    return grid.maps[shape]


def _submanifold_map(grid: VoxelGrid, shape: KernelShape) -> KernelMap:
    half = shape.volume // 2
    shifts: list[Shift] = [
        tuple(cell * step - pad for cell, step, pad in zip(cells, shape.dilation, shape.padding, strict=True))  # type: ignore[misc]
        for cells in shape.offsets()[:half]
    ]
    if half and grid.num_voxels:
        table = lookup_table(grid.coords, shape.padding)
        prepared = table.prepare(grid.coords)
        before = _compact([_hits(table.rows(prepared, shift)) for shift in shifts])
    else:
        before = [no_pairs(grid.device) for _ in shifts]
    pairs = [*before, no_pairs(grid.device), *(part.swapped() for part in reversed(before))]
    return KernelMap(shape, grid, grid, pairs)


def _strided_map(grid: VoxelGrid, shape: KernelShape) -> KernelMap:
    coords, pairs = strided_pairs(grid.coords, shape, shape.strided_extent(grid.extent))
    target = VoxelGrid(coords, grid.num_batches, shape.strided_extent(grid.extent))
    return KernelMap(shape, grid, target, _compact(pairs))


def _hits(found: Tensor) -> Pairs:
    """Pairs from one row per voxel (-1 for no match). Shifting keeps the order, so both sides are increasing."""
    destination = (found >= 0).nonzero().squeeze(1)
    return Pairs(found.index_select(0, destination), destination.int())


def _compact(parts: list[Pairs]) -> list[Pairs]:
    """The same pairs in two long arrays: many small allocations over thousands of maps would fragment memory."""
    sizes = [len(part) for part in parts]
    sources = torch.split(torch.cat([part.source for part in parts]), sizes)
    destinations = torch.split(torch.cat([part.destination for part in parts]), sizes)
    return [Pairs(source, destination) for source, destination in zip(sources, destinations, strict=True)]
