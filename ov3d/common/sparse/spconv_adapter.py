"""spconv's CUDA kernels behind `sparse_conv`, on our own kernel maps; and weights to and from spconv's layout.

Only the arithmetic is spconv's. Voxels, their order and the maps stay ours, so switching the engine changes neither the
voxels nor the order of rows. spconv's CPU build is never used: with more than one thread its results are silently wrong.
"""

from __future__ import annotations

import functools
import importlib
import os
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ov3d.common.base.shapes import Float, Int32

if TYPE_CHECKING:
    from ov3d.common.sparse.kernel_map import Direction, KernelMap

SWITCH = "OV3D_SPCONV"
"""Environment variable: 0 keeps the pure torch engine on CUDA."""


def to_spconv_weight(weight: Float[Tensor, "k i o"], size: tuple[int, int, int]) -> Float[Tensor, "o kx ky kz i"]:
    """Our weights in spconv's layout.

    Args:
        weight: one matrix per offset, z fastest.
        size: kernel size along x, y, z.
    """
    return weight.permute(2, 0, 1).reshape(weight.shape[2], *size, weight.shape[1]).contiguous()


def from_spconv_weight(weight: Float[Tensor, "o kx ky kz i"]) -> Float[Tensor, "k i o"]:
    """spconv's weights in our layout: the inverse of `to_spconv_weight`."""
    return weight.flatten(1, 3).permute(1, 2, 0).contiguous()


def serves(feats: Tensor) -> bool:
    """Whether spconv runs this convolution: the rows are on CUDA, and its CUDA build is installed and not disabled."""
    return feats.is_cuda and feats.dtype in (torch.float32, torch.float16) and _cuda_build() is not None


def convolve(
    feats: Float[Tensor, "n i"], weight: Float[Tensor, "k i o"], kernel: KernelMap, direction: Direction
) -> Float[Tensor, "m o"]:
    """`sparse_conv` by spconv; differentiable with respect to rows and weights.

    Args:
        feats: rows on CUDA.
        weight: one matrix per offset.
        kernel: the map.
        direction: from the map's source to its target, or back.
    """
    modules = _cuda_build()
    if modules is None:
        raise RuntimeError("serves() is false")
    return convolve_with(modules, feats, weight, kernel, direction)


def convolve_with(modules: Any, feats: Tensor, weight: Tensor, kernel: KernelMap, direction: Direction) -> Tensor:
    """`convolve` with spconv's modules as an argument: `functional`, and `native`, the algorithm to use."""
    pairs, counts = spconv_pairs(kernel)
    filters = to_spconv_weight(weight, kernel.shape.size)
    forward = direction == "forward"
    function = modules.functional.indice_conv if forward else modules.functional.indice_inverse_conv
    num_rows = (kernel.target if forward else kernel.source).num_voxels
    if num_rows == 0 or len(feats) == 0 or kernel.num_pairs == 0:
        # Connected to the inputs, so that their gradients are zero rather than missing.
        return feats.new_zeros(num_rows, weight.shape[2]) + 0 * (feats.sum() + weight.sum())
    return function(feats.contiguous(), filters, pairs, counts, num_rows, modules.native)


def spconv_pairs(kernel: KernelMap) -> tuple[Int32[Tensor, "2 k n"], Int32[Tensor, " k"]]:
    """A kernel map in spconv's layout: per offset, input rows over output rows, padded with -1, and their count.

    The identity offset of submanifold kernels is included explicitly.
    """
    sizes = [len(part) for part in kernel.pairs]
    if kernel.centre is not None:
        sizes[kernel.centre] = kernel.source.num_voxels
    device = kernel.source.device
    pairs = torch.full((2, len(sizes), max(sizes)), -1, dtype=torch.int32, device=device)
    for offset, part in enumerate(kernel.pairs):
        pairs[0, offset, : len(part)] = part.source
        pairs[1, offset, : len(part)] = part.destination
    if kernel.centre is not None:
        pairs[:, kernel.centre, : kernel.source.num_voxels] = torch.arange(kernel.source.num_voxels, device=device)
    return pairs, torch.tensor(sizes, dtype=torch.int32, device=device)


class _Modules:
    """The parts of spconv that are used."""

    def __init__(self) -> None:
        package = importlib.import_module("spconv.pytorch")
        self.functional: Any = importlib.import_module("spconv.pytorch.functional")
        self.native: Any = package.ConvAlgo.Native


@functools.cache
def _cuda_build() -> _Modules | None:
    """spconv's modules, if a CUDA build is installed and not disabled."""
    if os.environ.get(SWITCH) == "0":
        return None
    try:
        if importlib.import_module("spconv.cppconstants").CPU_ONLY_BUILD:
            return None
        return _Modules()
    except ImportError:
        return None
