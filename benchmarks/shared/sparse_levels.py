"""A made-up room for the sparse benchmarks: floor, walls and tilted boxes with a little noise, 123,000 voxels at most.

It is convolved on three levels of a U-Net.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor

from ov3d.common.sparse.conv import sparse_conv
from ov3d.common.sparse.kernel_map import KernelMap, kernel_map
from ov3d.common.sparse.kernel_shape import KernelShape
from ov3d.common.sparse.voxels import VoxelGrid, pack_keys, unpack_keys, voxelise

NUM_VOXELS = 123_000
SIZE = (202.0, 166.0, 111.0)
NUM_BOXES = 14
NOISE = 0.05
WIDTHS = (32, 64, 128)
"""Channels of the levels."""
SHAPE = KernelShape.of_submanifold(3)


class LevelCase:
    """One level: its map, and leaves to differentiate by."""

    def __init__(self, grid: VoxelGrid, width: int) -> None:
        generator = torch.Generator().manual_seed(width)
        self.kernel: KernelMap = kernel_map(grid, SHAPE)
        self.kernel.schedule("forward")
        self.feats = torch.randn(grid.num_voxels, width, generator=generator)
        self.weight = torch.randn(SHAPE.volume, width, width, generator=generator) / (27 * width) ** 0.5
        self.gradient = torch.randn(grid.num_voxels, width, generator=generator)

    def save(self, path: Path) -> None:
        """What the peer needs of it."""
        torch.save(
            {
                "coords": self.kernel.source.coords,
                "feats": self.feats,
                "weight": self.weight,
                "gradient": self.gradient,
            },
            path,
        )

    def seconds(self, dtype: torch.dtype = torch.float32, device: str = "cpu") -> float:
        """Time of one forward and backward."""
        feats = self.feats.to(device, dtype).requires_grad_()
        weight = self.weight.to(device, dtype).requires_grad_()
        gradient = self.gradient.to(device, dtype)
        _wait(device)
        start = time.perf_counter()
        sparse_conv(feats, weight, self.kernel).backward(gradient)
        _wait(device)
        return time.perf_counter() - start


def room_levels() -> list[VoxelGrid]:
    """The three finest grids of a U-Net over the room: about 123,000, 31,000 and 8,000 voxels."""
    grids = [_room()]
    for _ in range(2):
        coarse = torch.div(grids[-1].coords, torch.tensor([1, 2, 2, 2]), rounding_mode="floor")
        grids.append(VoxelGrid(unpack_keys(torch.unique(pack_keys(coarse)))))
    return grids


def _room() -> VoxelGrid:
    generator = torch.Generator().manual_seed(0)
    length, width, _ = SIZE
    zero = torch.zeros(3)
    x, y, z = torch.diag(torch.tensor(SIZE))
    pieces = [
        _plane(zero, x, y, 1_300_000, generator),
        _plane(zero, x, z, 500_000, generator),
        _plane(zero, y, z, 500_000, generator),
        _plane(x, y, z, 500_000, generator),
    ]
    for _ in range(NUM_BOXES):
        corner = torch.rand(3, generator=generator) * torch.tensor([length - 40, width - 40, 30.0])
        axes = torch.linalg.qr(torch.randn(3, 3, generator=generator))[0]
        edges = axes * (torch.rand(3, 1, generator=generator) * 24 + 10)
        for first, second in ((0, 1), (0, 2), (1, 2)):
            pieces.append(_plane(corner, edges[first], edges[second], 60_000, generator))
    points = torch.cat(pieces)
    # Half a cell off the grid: walls on a cell's border would be two cells thick everywhere.
    points += 0.5 + torch.randn(points.shape, generator=generator) * NOISE
    grid, _ = voxelise(points, 1.0)
    coords = grid.coords[:NUM_VOXELS]
    return VoxelGrid(coords - coords.amin(0))  # spconv wants cells from 0 on


def _plane(origin: Tensor, u: Tensor, v: Tensor, count: int, generator: torch.Generator) -> Tensor:
    at = torch.rand(count, 2, generator=generator)
    return origin + at[:, :1] * u + at[:, 1:] * v


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
