"""Losses of the radiance field.

    photographs   mean |C - C*|^2
    depth         mean of |D - D*| + sum_{r_i < D* - margin} w_i     over the rays whose depth D* was measured          (1)
    smoothness    2 (mean |d_u V|^2 + mean |d_v V|^2)                a plane V: total variation as in TensoRF            (2)

D = sum w_i r_i + (1 - sum w_i) r_far is the expected distance of a ray; the second part of (1) clears the way to a surface.
All lengths are in the space's own units, so weights mean the same in any unit.

Symbols: w weights of samples, r their distances, C colours; * marks what was measured.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ov3d.common.base.shapes import Float
from ov3d.nerf.field import VectorMatrix
from ov3d.nerf.lookup import PLANE_AXES
from ov3d.nerf.rendering import Weighted, accumulate

MAX_DEPTH_ERROR = 0.5
"""A depth error beyond this counts as an outlier: its gradient does not grow further."""


def depth_loss(seen: Weighted, far: Float[Tensor, " n"], measured: Float[Tensor, " n"], margin: float) -> Tensor:
    """Equation (1).

    Args:
        seen: weighted samples of the rays.
        far: where the rays end.
        measured: D*, 0 where unknown.
        margin: how far before a surface empty space begins.
    """
    known = measured > 0
    count = known.sum().clamp(min=1)
    samples = seen.samples
    distance = accumulate(seen.weight, samples.distance[:, None], samples)[:, 0]
    error = (distance + (1 - seen.opacity) * far - measured).abs().clamp(max=MAX_DEPTH_ERROR)
    ahead = samples.distance < measured.index_select(0, samples.ray_idx) - margin
    return ((error * known).sum() + (seen.weight * ahead).sum()) / count


def total_variation(grid: VectorMatrix) -> Tensor:
    """Equation (2), summed over the three planes."""
    total = torch.zeros((), device=grid.planes[0].device)
    for k, (a, b) in enumerate(PLANE_AXES):
        plane = grid.planes[k].view(grid.resolution[a], grid.resolution[b], -1)
        for axis in (0, 1):
            total = total + 2 * plane.diff(dim=axis).square().mean()
    return total


def psnr(mean_squared_error: float) -> float:
    """Decibels of a mean squared error of colours in [0, 1]."""
    return float(-10 * torch.log10(torch.tensor(max(mean_squared_error, 1e-12))))
