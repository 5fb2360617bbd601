"""U-Nets from a short list of levels.

    mink = UNetSpec(in_dim=3, out_dim=20, stem_dim=32, stem_size=5, levels=(Level(32, 96), Level(64, 96), ...))
    network = UNet(mink)

Two specifications are included: MinkUNet18A for rooms, and Cylinder3D's asymmetric network for LiDAR.
Sources: Choy et al. 2019 (arXiv 1904.08755); Zhu et al. 2021 (arXiv 2011.10033).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from ov3d.common.base.errors import UsageError
from ov3d.common.sparse.blocks import AsymmetricBlock, AsymmetricTail, BasicBlock, DimensionContext, Unit
from ov3d.common.sparse.conv import InverseConv, StridedConv, SubmanifoldConv
from ov3d.common.sparse.kernel_shape import triple
from ov3d.common.sparse.voxels import SparseTensor


@dataclass(frozen=True)
class Level:
    """One step down and the matching step up.

    Attributes:
        dim: channels on the way down.
        up_dim: channels on the way up.
        stride: step of the coarser grid, one number or one per axis.
    """

    dim: int
    up_dim: int
    stride: int | tuple[int, int, int] = 2


@dataclass(frozen=True)
class UNetSpec:
    """The specification of a U-Net.

    Attributes:
        in_dim: channels of the input.
        out_dim: channels of the output, from a linear layer without bias.
        stem_dim: channels after the stem.
        levels: from fine to coarse.
        family: `basic`: a stem convolution; go down with a 2³ convolution, then residual blocks; up with its inverse,
            concatenate, residual blocks (MinkUNet). `asymmetric`: a stem block; asymmetric block, then down with an
            overlapping 3³ convolution; up with a 3³ convolution and an inverse, add, asymmetric tail; at the end a
            dimension-wise context module, concatenated to its input (Cylinder3D).
        stem_size: kernel of the stem convolution (`basic`).
        num_blocks: residual blocks per level, each way (`basic`).
    """

    in_dim: int
    out_dim: int
    stem_dim: int
    levels: tuple[Level, ...]
    family: Literal["basic", "asymmetric"] = "basic"
    stem_size: int = 5
    num_blocks: int = 2

    def __post_init__(self) -> None:
        if self.family == "asymmetric":
            skips = [level.dim for level in self.levels]
            ups = [level.up_dim for level in self.levels]
            if skips != ups:
                raise UsageError(
                    f"Skips of {skips} cannot be added to {ups} channels.", "Set up_dim = dim on every level."
                )


def mink_unet18a(in_dim: int = 3, out_dim: int = 20) -> UNetSpec:
    """MinkUNet18A: a 5³ stem to 32, planes 32, 64, 128, 256 down and 128, 128, 96, 96 up, two blocks per level."""
    levels = (Level(32, 96), Level(64, 96), Level(128, 128), Level(256, 128))
    return UNetSpec(in_dim, out_dim, stem_dim=32, levels=levels)


def cylinder_unet(in_dim: int = 16, out_dim: int = 256, base: int = 32) -> UNetSpec:
    """Cylinder3D's U-Net: 64, 128, 256, 512 channels at `base` 32; the two coarsest steps keep the height."""
    strides: list[int | tuple[int, int, int]] = [2, 2, (2, 2, 1), (2, 2, 1)]
    levels = tuple(Level(base << i, base << i, stride) for i, stride in enumerate(strides, start=1))
    return UNetSpec(in_dim, out_dim, stem_dim=base, levels=levels, family="asymmetric")


class UNet(nn.Module):
    """The network of a `UNetSpec`: features in, features out, at the same voxels."""

    def __init__(self, spec: UNetSpec) -> None:
        super().__init__()
        self.spec = spec
        basic = spec.family == "basic"
        self.stem: nn.Module = (
            Unit(SubmanifoldConv(spec.in_dim, spec.stem_dim, spec.stem_size), spec.stem_dim)
            if basic
            else AsymmetricBlock(spec.in_dim, spec.stem_dim)
        )
        make = _BasicLevel if basic else _AsymmetricLevel
        widths = [spec.stem_dim, *(level.dim for level in spec.levels)]
        below = [*(level.up_dim for level in spec.levels[1:]), widths[-1]][: len(spec.levels)]
        self.levels = nn.ModuleList(
            make(spec, level, before, under)
            for level, before, under in zip(spec.levels, widths[:-1], below, strict=True)
        )
        last = spec.levels[0].up_dim if spec.levels else spec.stem_dim
        self.context = None if basic else DimensionContext(last)
        self.head = nn.Linear(last if basic else 2 * last, spec.out_dim, bias=False)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Features of `out_dim` channels at the voxels of `x`."""
        x = self.body(x)
        return x.with_feats(self.head(x.feats))

    def body(self, x: SparseTensor) -> SparseTensor:
        """The input of the final linear layer."""
        x = self.stem(x)
        kept: list[SparseTensor] = []
        for level in self._steps():
            skip, x = level.down(x)
            kept.append(skip)
        for level, skip in zip(reversed(self._steps()), reversed(kept), strict=True):
            x = level.up(x, skip)
        feats = x.feats
        if self.context is not None:
            feats = torch.cat([self.context(x).feats, feats], 1)
        return x.with_feats(feats)

    def _steps(self) -> list[_BasicLevel | _AsymmetricLevel]:
        return list(self.levels)  # type: ignore[arg-type]


class _BasicLevel(nn.Module):
    """Down, blocks; up, concatenate, blocks."""

    def __init__(self, spec: UNetSpec, level: Level, before: int, under: int) -> None:
        super().__init__()
        conv = StridedConv(before, before, level.stride, stride=level.stride)
        self.to_coarse = Unit(conv, before)
        self.coarse_blocks = _blocks(before, level.dim, spec.num_blocks)
        self.to_fine = Unit(InverseConv(under, level.up_dim, conv.shape), level.up_dim)
        self.fine_blocks = _blocks(level.up_dim + before, level.up_dim, spec.num_blocks)

    def down(self, x: SparseTensor) -> tuple[SparseTensor, SparseTensor]:
        """The skip connection for the way up, and the coarser tensor."""
        return x, self.coarse_blocks(self.to_coarse(x))

    def up(self, x: SparseTensor, skip: SparseTensor) -> SparseTensor:
        """The finer tensor."""
        fine = self.to_fine(x, skip)
        return self.fine_blocks(fine.with_feats(torch.cat([fine.feats, skip.feats], 1)))


class _AsymmetricLevel(nn.Module):
    """Block, down; 3³, up, add, tail."""

    def __init__(self, spec: UNetSpec, level: Level, before: int, under: int) -> None:
        super().__init__()
        self.block = AsymmetricBlock(before, level.dim)
        self.to_coarse = StridedConv(level.dim, level.dim, 3, stride=triple(level.stride), padding=1)
        self.turn = Unit(SubmanifoldConv(under, level.up_dim, 3), level.up_dim, "leaky_relu", norm_last=True)
        self.to_fine = InverseConv(level.up_dim, level.up_dim, self.to_coarse.shape)
        self.tail = AsymmetricTail(level.up_dim, level.up_dim)

    def down(self, x: SparseTensor) -> tuple[SparseTensor, SparseTensor]:
        """The skip connection for the way up, and the coarser tensor."""
        x = self.block(x)
        return x, self.to_coarse(x)

    def up(self, x: SparseTensor, skip: SparseTensor) -> SparseTensor:
        """The finer tensor."""
        fine = self.to_fine(self.turn(x), skip)
        return self.tail(fine.with_feats(fine.feats + skip.feats))


def _blocks(in_dim: int, out_dim: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(BasicBlock(in_dim if i == 0 else out_dim, out_dim) for i in range(count)))
