"""The slow twin: dense fp64 convolutions of torch on the whole grid, read off at the voxels."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ov3d.common.sparse.conv import sparse_conv, to_dense_weight
from ov3d.common.sparse.kernel_map import kernel_map
from ov3d.common.sparse.kernel_shape import KernelShape
from ov3d.common.sparse.voxels import SparseTensor, sparse_tensor

SUBMANIFOLD_SIZES = [(3, 3, 3), (5, 5, 5), (1, 3, 3), (3, 1, 3), (3, 1, 1), (1, 3, 1), (1, 1, 3), (3, 3, 1), (1, 1, 1)]
STRIDED = [
    KernelShape((2, 2, 2), (2, 2, 2)),
    KernelShape((3, 3, 3), (2, 2, 2), padding=(1, 1, 1)),
    KernelShape((3, 3, 3), (2, 2, 1), padding=(1, 1, 1)),
    KernelShape((2, 2, 1), (2, 2, 1)),
    KernelShape((3, 2, 1), (1, 2, 3), dilation=(2, 1, 1), padding=(0, 1, 2)),
    KernelShape((3, 3, 3), (1, 1, 1), padding=(1, 1, 1)),
]


@dataclass
class Case:
    """One random convolution: voxels in a bounded grid, a kernel, a direction, rows, weights and an output gradient."""

    x: SparseTensor
    shape: KernelShape
    direction: str
    weight: Tensor

    @staticmethod
    def random(seed: int) -> Case:
        """Grids of up to 8 cells a side, anything from one voxel to all of them."""
        draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
        extent = tuple(draw.randint(5, 8) for _ in range(3))
        num_batches = draw.randint(1, 2)
        share = draw.choice([0.0, 0.02, 0.1, 0.3, 0.6, 1.0])
        occupied = torch.rand(num_batches, *extent, generator=generator) < share
        occupied[0, 0, 1, 2] = True
        coords = occupied.nonzero().int()
        if draw.random() < 0.6:
            shape = KernelShape.of_submanifold(draw.choice(SUBMANIFOLD_SIZES), draw.choice([1, 1, 2, (1, 2, 3)]))
        else:
            shape = draw.choice(STRIDED)
        direction = draw.choice(["forward", "transposed"])
        dims = draw.choice([(1, 1), (3, 8), (8, 8), (17, 5), (8, 24)])
        feats = torch.randn(len(coords), dims[0], generator=generator)
        x, _ = sparse_tensor(coords, feats, num_batches=num_batches, extent=extent)
        weight = torch.randn(shape.volume, *dims, generator=generator)
        return Case(x, shape, direction, weight)

    def rows_and_gradient(self, seed: int) -> tuple[Tensor, Tensor]:
        """Input rows on the side the direction starts from, and a gradient of the other side's rows."""
        kernel = kernel_map(self.x.grid, self.shape)
        sides = [kernel.source.num_voxels, kernel.target.num_voxels]
        start, end = sides if self.direction == "forward" else sides[::-1]
        generator = torch.Generator().manual_seed(seed)
        return (
            torch.randn(start, self.weight.shape[1], generator=generator),
            torch.randn(end, self.weight.shape[2], generator=generator),
        )


def run_sparse(case: Case, rows: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, input gradient and weight gradient of the engine."""
    rows, weight = rows.clone().requires_grad_(), case.weight.clone().requires_grad_()
    out = sparse_conv(rows, weight, kernel_map(case.x.grid, case.shape), case.direction)  # type: ignore[arg-type]
    grads = torch.autograd.grad(out, (rows, weight), gradient)
    return out.detach(), *grads


def run_dense(case: Case, rows: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same by `conv3d` and `conv_transpose3d` in fp64."""
    kernel = kernel_map(case.x.grid, case.shape)
    rows, weight = rows.double().requires_grad_(), case.weight.double().requires_grad_()
    shape, extent = case.shape, case.x.grid.extent
    assert extent is not None
    out_extent = shape.strided_extent(extent)
    assert out_extent is not None
    batch = case.x.grid.num_batches
    options: dict[str, Any] = {"stride": shape.stride, "padding": shape.padding, "dilation": shape.dilation}
    if case.direction == "forward":
        dense = _scatter(rows, kernel.source.coords, (batch, *extent))
        out = torch.nn.functional.conv3d(dense, to_dense_weight(weight, shape.size), **options)
        read = _read(out, kernel.target.coords)
    else:
        dense = _scatter(rows, kernel.target.coords, (batch, *out_extent))
        turned = to_dense_weight(weight, shape.size).transpose(0, 1)
        reached = [
            (cells - 1) * stride - 2 * pad + step * (size - 1) + 1
            for cells, stride, pad, step, size in zip(
                out_extent, shape.stride, shape.padding, shape.dilation, shape.size, strict=True
            )
        ]
        spare = tuple(cells - length for cells, length in zip(extent, reached, strict=True))
        out = torch.nn.functional.conv_transpose3d(dense, turned, output_padding=spare, **options)
        read = _read(out, kernel.source.coords)
    grads = torch.autograd.grad(read, (rows, weight), gradient.double())
    return read.detach(), *grads


def expected_targets(case: Case) -> Tensor:
    """Output cells that some input meets, found with a dense convolution of ones."""
    extent = case.x.grid.extent
    assert extent is not None
    ones = _scatter(torch.ones(case.x.grid.num_voxels, 1), case.x.coords, (case.x.grid.num_batches, *extent))
    shape = case.shape
    if shape.submanifold:
        return case.x.coords
    met = torch.nn.functional.conv3d(
        ones, torch.ones(1, 1, *shape.size), stride=shape.stride, padding=shape.padding, dilation=shape.dilation
    )
    return (met[:, 0] > 0.5).nonzero().int()


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Largest deviation over the largest value."""
    if not expected.numel():
        return 0.0
    return float((found.double() - expected).abs().max() / expected.abs().max().clamp(min=1e-12))


def _scatter(rows: Tensor, coords: Tensor, size: tuple[int, ...]) -> Tensor:
    dense = rows.new_zeros(size[0], rows.shape[1], *size[1:])
    index = coords.long().unbind(1)
    return dense.permute(0, 2, 3, 4, 1).index_put(index, rows).permute(0, 4, 1, 2, 3)


def _read(dense: Tensor, coords: Tensor) -> Tensor:
    return dense.permute(0, 2, 3, 4, 1)[coords.long().unbind(1)]
