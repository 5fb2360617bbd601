"""Slow twins of the radiance field, one point and one ray at a time, in fp64: what the quick code must equal."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch

from ov3d.common.base.shapes import Array, Float64
from ov3d.nerf.field import RadianceField, VectorMatrix
from ov3d.nerf.lookup import LINE_AXES, PLANE_AXES


def small_field(resolution: tuple[int, int, int] = (7, 9, 6), seed: int = 0) -> RadianceField:
    """A random field whose density is positive in about half of the box."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    field = RadianceField(
        resolution, density_ranks=(5, 3, 2), appearance_ranks=(6, 4, 3), width=16, generator=generator
    )
    with torch.no_grad():
        for table in [*field.density_grid.planes, *field.density_grid.lines]:
            table.mul_(6)
    return field


def place_value(grid: VectorMatrix, k: int, component: int, at: tuple[int, int, int]) -> float:
    """One component of one orientation at a place of the grid: plane times line."""
    a, b = PLANE_AXES[k]
    row = at[a] * grid.resolution[b] + at[b]
    return float(grid.planes[k].detach()[row, component]) * float(grid.lines[k].detach()[at[LINE_AXES[k]], component])


def products_at(grid: VectorMatrix, unit: Float64[Array, " 3"]) -> Float64[Array, " c"]:
    """Components at a point: trilinear interpolation between the places, corner by corner."""
    position = np.asarray(unit, np.float64) * (np.array(grid.resolution) - 1)
    base = np.minimum(np.floor(position), np.array(grid.resolution) - 2).astype(int)
    fraction = position - base
    values = []
    for k, rank in enumerate(grid.ranks):
        for component in range(rank):
            total = 0.0
            for corner in itertools.product((0, 1), repeat=3):
                weight = math.prod(f if c else 1 - f for f, c in zip(fraction, corner, strict=True))
                total += weight * place_value(grid, k, component, tuple(base + corner))  # type: ignore[arg-type]
            values.append(total)
    return np.array(values)


def weights_of(thickness: Float64[Array, " m"]) -> Float64[Array, " m"]:
    """Compositing weights of one ray, one sample after the other."""
    light, weights = 1.0, []
    for tau in thickness:
        weights.append(light * (1 - math.exp(-tau)))
        light *= math.exp(-tau)
    return np.array(weights)
