"""Sparse convolutions as torch modules: submanifold, strided, and inverse on the stored map of a strided one.

Weights are [volume, in, out], offsets numbered with z fastest; `to_dense_weight` gives `torch.nn.Conv3d`'s layout, and
`ov3d.common.sparse.spconv_adapter` spconv's.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ov3d.common.base.errors import UsageError
from ov3d.common.base.shapes import Float
from ov3d.common.sparse import spconv_adapter
from ov3d.common.sparse.gemm import convolve_rows, convolve_rows_and_weights, weight_gradients
from ov3d.common.sparse.kernel_map import Direction, KernelMap, kernel_map
from ov3d.common.sparse.kernel_shape import KernelShape, triple
from ov3d.common.sparse.voxels import SparseTensor


def sparse_conv(
    feats: Float[Tensor, "n i"],
    weight: Float[Tensor, "k i o"],
    kernel: KernelMap,
    direction: Direction = "forward",
) -> Float[Tensor, "m o"]:
    """A sparse convolution of rows, once differentiable with respect to rows and weights.

    Runs in the rows' dtype; weights are converted to it. On CUDA it uses spconv's kernels if spconv is installed.

    Args:
        feats: one row per voxel of the map's source (`forward`) or target (`transposed`).
        weight: one matrix per offset.
        kernel: the map.
        direction: from the map's source to its target, or back.

    Returns:
        One row per voxel of the other side.

    Raises:
        UsageError: rows or weights do not match the map.
    """
    expected = (kernel.source if direction == "forward" else kernel.target).num_voxels
    if len(feats) != expected or len(weight) != kernel.shape.volume or weight.shape[1] != feats.shape[1]:
        raise UsageError(
            f"Rows {tuple(feats.shape)} and weights {tuple(weight.shape)} do not fit a {kernel.shape.size} kernel "
            f"on {expected} voxels.",
            "Give one row per voxel, and weights [offsets, in, out].",
        )
    weight = weight.to(feats.dtype)
    if spconv_adapter.serves(feats):
        return spconv_adapter.convolve(feats, weight, kernel, direction)
    return _SparseConv.apply(feats.contiguous(), weight, kernel, direction)  # type: ignore[no-untyped-call]


class _SparseConv(torch.autograd.Function):
    """Forward and backward of `sparse_conv` in pure torch."""

    @staticmethod
    def forward(ctx: Any, feats: Tensor, weight: Tensor, kernel: KernelMap, direction: Direction) -> Tensor:
        ctx.save_for_backward(feats, weight)
        ctx.kernel, ctx.direction = kernel, direction
        schedule, order = kernel.schedule(direction)
        dtype = arithmetic_dtype(feats)
        matrices = weight.to(dtype).unbind()
        centre = None if kernel.centre is None else matrices[kernel.centre]
        return convolve_rows(schedule, feats.to(dtype), [matrices[k] for k in order], centre).to(feats.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        feats, weight = ctx.saved_tensors
        kernel, direction, given = ctx.kernel, ctx.direction, feats.dtype
        dtype = arithmetic_dtype(feats)
        feats, grads = feats.to(dtype), grads.to(dtype).contiguous()
        needs_feats, needs_weight = ctx.needs_input_grad[:2]
        back: Direction = "transposed" if direction == "forward" else "forward"
        schedule, order = kernel.schedule(back if needs_feats else direction)
        matrices = weight.to(dtype).transpose(1, 2).unbind()
        centre = None if kernel.centre is None else matrices[kernel.centre]
        turned = [matrices[k] for k in order]
        grad_feats = grad_weight = None
        if needs_feats and needs_weight:
            grad_feats, grad_weight = convolve_rows_and_weights(schedule, grads, feats, turned, centre)
        elif needs_feats:
            grad_feats = convolve_rows(schedule, grads, turned, centre)
        elif needs_weight:
            grad_weight = weight_gradients(schedule, feats, grads)
        if grad_weight is not None:
            if order[0] != 0:  # the schedule's entries are the offsets in reverse
                grad_weight = grad_weight.flip(0)
            if kernel.centre is not None:
                grad_weight[kernel.centre] = feats.t() @ grads
            grad_weight = grad_weight.to(weight.dtype)
        return None if grad_feats is None else grad_feats.to(given), grad_weight, None, None


def arithmetic_dtype(feats: Tensor) -> torch.dtype:
    """The dtype of the products: that of the rows, but fp32 on CPUs without instructions for it.

    Without them, torch multiplies bf16 in a reference loop, twenty times slower than fp32.
    """
    if feats.device.type != "cpu" or feats.dtype in (torch.float32, torch.float64):
        return feats.dtype
    return torch.bfloat16 if feats.dtype == torch.bfloat16 and cpu_has_bf16() else torch.float32


@functools.cache
def cpu_has_bf16() -> bool:
    """Whether this CPU has bf16 matrix instructions (AVX512-BF16 or AMX)."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)


class _SparseConvModule(nn.Module):
    """Shared by the three kinds: weights, their initialisation, a bias."""

    def __init__(self, in_dim: int, out_dim: int, shape: KernelShape, bias: bool) -> None:
        super().__init__()
        self.in_dim, self.out_dim, self.shape = in_dim, out_dim, shape
        self.weight = nn.Parameter(torch.empty(shape.volume, in_dim, out_dim))
        self.bias = nn.Parameter(torch.zeros(out_dim)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He's normal initialisation with fan-out, as in MinkowskiEngine's U-Nets."""
        fan = self.out_dim * self.shape.volume
        nn.init.normal_(self.weight, std=math.sqrt(2.0 / fan))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def extra_repr(self) -> str:
        shape = self.shape
        return f"{self.in_dim}, {self.out_dim}, size={shape.size}, stride={shape.stride}, dilation={shape.dilation}"

    def _add_bias(self, feats: Tensor) -> Tensor:
        return feats if self.bias is None else feats + self.bias.to(feats.dtype)


class SubmanifoldConv(_SparseConvModule):
    """A convolution whose outputs are at the inputs' voxels.

    Args:
        in_dim: channels in.
        out_dim: channels out.
        size: odd kernel size, one number or one per axis; (1, 3, 3), (3, 1, 1) and so on are fine.
        dilation: step between the kernel's cells.
        bias: add a learned vector.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        size: int | tuple[int, int, int] = 3,
        *,
        dilation: int | tuple[int, int, int] = 1,
        bias: bool = False,
    ) -> None:
        super().__init__(in_dim, out_dim, KernelShape.of_submanifold(size, dilation), bias)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """The convolved features, at the same voxels."""
        if self.shape.volume == 1:
            return x.with_feats(self._add_bias(x.feats @ self.weight[0].to(x.feats.dtype)))
        return x.with_feats(self._add_bias(sparse_conv(x.feats, self.weight, kernel_map(x.grid, self.shape))))


class StridedConv(_SparseConvModule):
    """A convolution onto a coarser grid: an output voxel wherever the kernel meets an input.

    Args:
        in_dim: channels in.
        out_dim: channels out.
        size: kernel size; 2 with stride 2 gives every voxel one parent, 3 with padding 1 overlaps as in Cylinder3D.
        stride: step between outputs, such as 2 or (2, 2, 1).
        padding: cells before the first one.
        dilation: step between the kernel's cells.
        bias: add a learned vector.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        size: int | tuple[int, int, int] = 2,
        *,
        stride: int | tuple[int, int, int] = 2,
        padding: int | tuple[int, int, int] = 0,
        dilation: int | tuple[int, int, int] = 1,
        bias: bool = False,
    ) -> None:
        shape = KernelShape(triple(size), triple(stride), triple(dilation), triple(padding))
        super().__init__(in_dim, out_dim, shape, bias)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """The convolved features on the coarser grid."""
        kernel = kernel_map(x.grid, self.shape)
        return SparseTensor(kernel.target, self._add_bias(sparse_conv(x.feats, self.weight, kernel)))


class InverseConv(_SparseConvModule):
    """The way back up: a transposed convolution on the stored map of a strided one.

    Args:
        in_dim: channels in.
        out_dim: channels out.
        shape: the strided convolution's kernel (its `shape`).
        bias: add a learned vector.
    """

    def __init__(self, in_dim: int, out_dim: int, shape: KernelShape, *, bias: bool = False) -> None:
        super().__init__(in_dim, out_dim, shape, bias)

    def forward(self, x: SparseTensor, fine: SparseTensor) -> SparseTensor:
        """The convolved features at the voxels of `fine`, the input of the strided convolution.

        Raises:
            UsageError: `x` is not on the grid that the strided convolution made from `fine`'s.
        """
        kernel: KernelMap | None = fine.grid.maps.get(self.shape)
        if kernel is None or kernel.target is not x.grid:
            raise UsageError(
                f"These voxels were not made by a convolution of size {self.shape.size} and stride {self.shape.stride}.",
                "Give the input of the strided convolution with the same shape as `fine`.",
            )
        feats = sparse_conv(x.feats, self.weight, kernel, "transposed")
        return fine.with_feats(self._add_bias(feats))


def to_dense_weight(weight: Float[Tensor, "k i o"], size: tuple[int, int, int]) -> Float[Tensor, "o i kx ky kz"]:
    """The same weights in the layout of `torch.nn.Conv3d`, axes x, y, z."""
    return weight.reshape(*size, *weight.shape[1:]).permute(4, 3, 0, 1, 2)
