"""Pooling: the largest value under a kernel, and one vector per cloud."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ov3d.common.base.errors import UsageError
from ov3d.common.base.shapes import Float
from ov3d.common.sparse.kernel_map import KernelMap, kernel_map
from ov3d.common.sparse.kernel_shape import KernelShape, triple
from ov3d.common.sparse.voxels import SparseTensor


def sparse_max_pool(feats: Float[Tensor, "n c"], kernel: KernelMap) -> Float[Tensor, "m c"]:
    """For each output voxel and channel, the largest value among its inputs; absent cells do not count.

    Args:
        feats: one row per voxel of the map's source.
        kernel: the map of a strided kernel.

    Returns:
        One row per voxel of the map's target. In a tie, the first offset gets the gradient.

    Raises:
        UsageError: the rows do not match the map, or the kernel is submanifold.
    """
    if len(feats) != kernel.source.num_voxels or kernel.shape.submanifold:
        raise UsageError(
            f"Max-pooling of {len(feats)} rows does not fit this kernel map.", "Use a strided kernel's map."
        )
    return _MaxPool.apply(feats, kernel)  # type: ignore[no-untyped-call]


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, feats: Tensor, kernel: KernelMap) -> Tensor:
        num_out = kernel.target.num_voxels
        best = feats.new_full((num_out, feats.shape[1]), -torch.inf)
        winner = torch.zeros(num_out, feats.shape[1], dtype=torch.int64, device=feats.device)
        for part in kernel.pairs:
            rows, into = part.source.long(), part.destination.long()
            values, before = feats[rows], best[into]
            better = values > before
            best[into] = torch.where(better, values, before)
            winner[into] = torch.where(better, rows[:, None], winner[into])
        ctx.save_for_backward(winner)
        ctx.num_rows = len(feats)
        return best

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor, None]:
        (winner,) = ctx.saved_tensors
        return grads.new_zeros(ctx.num_rows, grads.shape[1]).scatter_add_(0, winner, grads), None


class MaxPool(nn.Module):
    """Max-pooling onto a coarser grid; `InverseConv` with the same `shape` leads back up.

    Args:
        size: kernel size.
        stride: step between outputs.
        padding: cells before the first one.
    """

    def __init__(
        self,
        size: int | tuple[int, int, int] = 2,
        *,
        stride: int | tuple[int, int, int] = 2,
        padding: int | tuple[int, int, int] = 0,
    ) -> None:
        super().__init__()
        self.shape = KernelShape(triple(size), triple(stride), (1, 1, 1), triple(padding))

    def forward(self, x: SparseTensor) -> SparseTensor:
        """The largest values, on the coarser grid."""
        kernel = kernel_map(x.grid, self.shape)
        return SparseTensor(kernel.target, sparse_max_pool(x.feats, kernel))


def global_pool(x: SparseTensor, how: Literal["mean", "max", "sum"] = "mean") -> Float[Tensor, "b c"]:
    """One vector per cloud of the batch; zeros for a cloud without voxels.

    Args:
        x: features, batch by batch.
        how: the mean, the largest value or the sum over the cloud's voxels.
    """
    counts = x.grid.batch_counts()
    clouds = torch.split(x.feats, counts.tolist())
    zeros = x.feats.new_zeros(x.feats.shape[1])
    pooled = []
    for cloud in clouds:
        if not len(cloud):
            pooled.append(zeros)
        elif how == "max":
            pooled.append(cloud.amax(0))
        else:
            pooled.append(cloud.mean(0) if how == "mean" else cloud.sum(0))
    return torch.stack(pooled) if pooled else x.feats.new_zeros(0, x.feats.shape[1])
