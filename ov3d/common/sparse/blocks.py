"""Building blocks of sparse networks: convolution + normalisation + activation, and residual blocks for rooms and LiDAR.

`BasicBlock` is ResNet's, as in MinkUNet. `AsymmetricBlock` is Cylinder3D's, which sees LiDAR's cuboid objects through
(3, 1, 3) and (1, 3, 3) kernels. `DimensionContext` is its dimension-wise context module.
Sources: He et al. 2016; Choy et al. 2019 (arXiv 1904.08755); Zhu et al. 2021 (arXiv 2011.10033), sections 3.3 and 3.4.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ov3d.common.sparse.conv import SubmanifoldConv
from ov3d.common.sparse.voxels import SparseTensor

Activation = Literal["relu", "leaky_relu"]
Size = int | tuple[int, int, int]


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation over voxels that also works with zero voxels or one.

    Statistics of fewer than two voxels are meaningless: then the running ones are used and not updated.

    Attributes:
        own_share: weight of the input's own statistics (as constants) in evaluation mode; running ones have the rest.
    """

    own_share: float = 0.0

    def forward(self, input: Tensor) -> Tensor:
        """Normalised rows, in the input's dtype."""
        if len(input) == 0:
            return input
        if self.own_share and not self.training and len(input) > 1:
            assert self.running_mean is not None and self.running_var is not None  # always tracked
            var, mean = torch.var_mean(input.detach().to(self.running_var.dtype), dim=0, correction=0)
            mean = torch.lerp(self.running_mean, mean, self.own_share)
            var = torch.lerp(self.running_var, var, self.own_share)
            return nn.functional.batch_norm(input, mean, var, self.weight, self.bias, False, 0.0, self.eps)
        if self.training and len(input) == 1:
            return nn.functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)


class Unit(nn.Module):
    """A convolution with normalisation and activation around it.

    Args:
        conv: the convolution.
        dim: its output channels.
        activation: the non-linearity, or None.
        norm_last: activation before normalisation, Cylinder3D's order.
    """

    def __init__(
        self, conv: nn.Module, dim: int, activation: Activation | None = "relu", *, norm_last: bool = False
    ) -> None:
        super().__init__()
        self.conv, self.norm, self.norm_last = conv, BatchNorm(dim), norm_last
        self.activation = _activation(activation)

    def forward(self, *tensors: SparseTensor) -> SparseTensor:
        """The unit's output; an inverse convolution takes the fine tensor as second argument."""
        x = self.conv(*tensors)
        if self.norm_last:
            return x.with_feats(self.norm(self.activation(x.feats)))
        return x.with_feats(self.activation(self.norm(x.feats)))


class BasicBlock(nn.Module):
    """Two 3³ convolutions and a shortcut: relu(norm(conv(unit(x))) + shortcut(x)).

    Args:
        in_dim: channels in.
        out_dim: channels out; if they differ, the shortcut is a linear layer with normalisation.
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.first = Unit(SubmanifoldConv(in_dim, out_dim, 3), out_dim)
        self.second = Unit(SubmanifoldConv(out_dim, out_dim, 3), out_dim, None)
        self.shortcut = None if in_dim == out_dim else Unit(SubmanifoldConv(in_dim, out_dim, 1), out_dim, None)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """The block's output at the same voxels."""
        residual = x if self.shortcut is None else self.shortcut(x)
        out = self.second(self.first(x))
        return out.with_feats(nn.functional.relu(out.feats + residual.feats))


class AsymmetricBlock(nn.Module):
    """The sum of two paths with crossed kernels: (1, 3, 3) then (3, 1, 3), and in reverse order.

    Args:
        in_dim: channels in.
        out_dim: channels out.
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        flat, tall = (1, 3, 3), (3, 1, 3)
        self.one = nn.Sequential(_asymmetric(in_dim, out_dim, flat), _asymmetric(out_dim, out_dim, tall))
        self.other = nn.Sequential(_asymmetric(in_dim, out_dim, tall), _asymmetric(out_dim, out_dim, flat))

    def forward(self, x: SparseTensor) -> SparseTensor:
        """The block's output at the same voxels."""
        return x.with_feats(self.one(x).feats + self.other(x).feats)


class AsymmetricTail(nn.Sequential):
    """The convolutions after an asymmetric network's merge on the way up: (1, 3, 3), (3, 1, 3), then 3³.

    Args:
        in_dim: channels in.
        out_dim: channels out.
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        sizes: list[Size] = [(1, 3, 3), (3, 1, 3), 3]
        dims = [in_dim, out_dim, out_dim]
        super().__init__(*(_asymmetric(dim, out_dim, size) for dim, size in zip(dims, sizes, strict=True)))


class DimensionContext(nn.Module):
    """Gates each feature by its context along the three axes: x · Σ sigmoid(norm(conv(x))) over (3,1,1), (1,3,1), (1,1,3).

    Args:
        dim: channels.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        sizes: list[Size] = [(3, 1, 1), (1, 3, 1), (1, 1, 3)]
        self.axes = nn.ModuleList([Unit(SubmanifoldConv(dim, dim, size), dim, None) for size in sizes])

    def forward(self, x: SparseTensor) -> SparseTensor:
        """The gated features."""
        gate = torch.stack([torch.sigmoid(axis(x).feats) for axis in self.axes]).sum(0)
        return x.with_feats(x.feats * gate)


def _asymmetric(in_dim: int, out_dim: int, size: Size) -> Unit:
    return Unit(SubmanifoldConv(in_dim, out_dim, size), out_dim, "leaky_relu", norm_last=True)


def _activation(name: Activation | None) -> nn.Module:
    if name is None:
        return nn.Identity()
    return nn.ReLU() if name == "relu" else nn.LeakyReLU()
