"""The radiance field: a tensor factorised into planes and lines, and a small network for colour.

A field on a grid of X x Y x Z places is a sum of products of a plane and the line across it (Chen et al., *TensoRF*, ECCV
2022, eq. 5, "VM"). For a point x, with P the bilinear and L the linear interpolation of component c,

    a_c(x) = P_c(x_i, x_j) L_c(x_k),    (i, j, k) = (X, Y, Z), (X, Z, Y), (Y, Z, X)                                     (1)
    sigma(x) = max(sum_c a_c(x), 0)                                              density, components of their own       (2)
    code(x)  = B a(x) in R^27                                                    appearance, B without bias             (3)
    rgb(x, d) = sigmoid(MLP(code(x), d))                                         d the unit view direction              (4)

The ReLU of (2) has one advantage over a softplus: where the eight corners of a cell are all below zero, density and
gradient inside are exactly zero, so skipping the cell changes nothing.

Symbols: n points, c components, R resolution per axis.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ov3d.common.base.shapes import Float
from ov3d.nerf.lookup import LINE_AXES, PLANE_AXES, Taps, products, sum_of_products

Resolution = tuple[int, int, int]
"""Grid places along the axes X, Y, Z."""
Ranks = tuple[int, int, int]
"""Components of the planes XY, XZ, YZ."""

CODE_DIM = 27
BLOCK_ROWS = 2048
"""Rows per pass through the colour network on a CPU."""
INITIAL_SCALE = 0.1
"""Initial standard deviation of planes and lines."""


class VectorMatrix(nn.Module):
    """Planes and lines of one factorised tensor, as tables of rows.

    Args:
        resolution: places per axis.
        ranks: components of each plane and its line.
        generator: draws the initial values.
    """

    def __init__(self, resolution: Resolution, ranks: Ranks, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.resolution = resolution
        self.ranks = ranks
        self.planes, self.lines = nn.ParameterList(), nn.ParameterList()
        for (a, b), axis, rank in zip(PLANE_AXES, LINE_AXES, ranks, strict=True):
            plane = torch.randn(resolution[a] * resolution[b], rank, generator=generator)
            line = torch.randn(resolution[axis], rank, generator=generator)
            self.planes.append(nn.Parameter(INITIAL_SCALE * plane))
            self.lines.append(nn.Parameter(INITIAL_SCALE * line))

    def products(self, taps: Taps) -> Float[Tensor, "n c"]:
        """Equation (1) for all components."""
        return products(list(self.planes), list(self.lines), taps)

    def total(self, taps: Taps) -> Float[Tensor, " n"]:
        """Sum of equation (1) over the components."""
        return sum_of_products(list(self.planes), list(self.lines), taps)

    @torch.no_grad()
    def slab(self, first: int, last: int) -> Float[Tensor, "x y z"]:
        """Sum over the components at every place of some layers of X, as matrix products."""
        num_x, num_y, num_z = self.resolution
        layers = last - first
        xy = self.planes[0].view(num_x, num_y, -1)[first:last].flatten(0, 1)
        xz = self.planes[1].view(num_x, num_z, -1)[first:last]
        values = (xy @ self.lines[0].T).view(layers, num_y, num_z)
        values.baddbmm_(self.lines[1].expand(layers, -1, -1), xz.transpose(1, 2))
        values.view(layers, num_y * num_z).addmm_(self.lines[2][first:last], self.planes[2].T)
        return values

    @torch.no_grad()
    def resample(self, resolution: Resolution, low: Float[Tensor, " 3"], high: Float[Tensor, " 3"]) -> None:
        """Change the grid: to another resolution, over the part of the old one between `low` and `high`.

        Args:
            resolution: of the new grid.
            low, high: corners of the new grid, in grid units of the old one.
        """
        maps = [
            _line_matrix(old, torch.linspace(float(low[axis]), float(high[axis]), new, device=low.device))
            for axis, (old, new) in enumerate(zip(self.resolution, resolution, strict=True))
        ]
        for k, ((a, b), axis) in enumerate(zip(PLANE_AXES, LINE_AXES, strict=True)):
            plane = self.planes[k].view(self.resolution[a], self.resolution[b], -1)
            plane = torch.einsum("xa,yb,abc->xyc", maps[a], maps[b], plane)
            self.planes[k] = nn.Parameter(plane.flatten(0, 1).contiguous())
            self.lines[k] = nn.Parameter(maps[axis] @ self.lines[k])
        self.resolution = resolution


class ColourNetwork(nn.Module):
    """Equation (4): two hidden layers; the last bias starts at 0, so the first colour is grey.

    Rows go through in blocks that stay in the processor's cache: a layer of a whole batch would not.

    Args:
        width: of the hidden layers.
        code_dim: numbers of the appearance code.
    """

    def __init__(self, width: int = 128, code_dim: int = CODE_DIM) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(code_dim + 3, width), nn.ReLU(True), nn.Linear(width, width), nn.ReLU(True), nn.Linear(width, 3)
        )
        nn.init.zeros_(self.layers[-1].bias)  # type: ignore[arg-type]

    def forward(self, code: Float[Tensor, "n c"], direction: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Colours in [0, 1]."""
        rows = torch.cat((code, direction), 1)
        if rows.device.type != "cpu":
            return torch.sigmoid(self.layers(rows))
        return torch.sigmoid(torch.cat([self.layers(block) for block in torch.split(rows, BLOCK_ROWS)]))


class RadianceField(nn.Module):
    """Density and appearance over one grid.

    Args:
        resolution: places per axis.
        density_ranks, appearance_ranks: components of the planes XY, XZ, YZ.
        width: of the colour network.
        generator: draws the initial values of the grids; the networks use torch's global one.
    """

    def __init__(
        self,
        resolution: Resolution,
        *,
        density_ranks: Ranks = (16, 4, 4),
        appearance_ranks: Ranks = (48, 12, 12),
        width: int = 128,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.density_grid = VectorMatrix(resolution, density_ranks, generator)
        self.appearance_grid = VectorMatrix(resolution, appearance_ranks, generator)
        self.basis = nn.Linear(sum(appearance_ranks), CODE_DIM, bias=False)
        self.colour = ColourNetwork(width)

    @property
    def resolution(self) -> Resolution:
        """Places per axis."""
        return self.density_grid.resolution

    def taps(self, unit: Float[Tensor, "n 3"]) -> Taps:
        """Taps of points in [0, 1]^3 of the grid's box."""
        scale = torch.tensor([places - 1 for places in self.resolution], device=unit.device, dtype=unit.dtype)
        return Taps(unit * scale, self.resolution)

    def density(self, taps: Taps) -> Float[Tensor, " n"]:
        """Equation (2)."""
        return self.density_grid.total(taps).relu()

    def code(self, taps: Taps) -> Float[Tensor, "n 27"]:
        """Equation (3)."""
        code: Tensor = self.basis(self.appearance_grid.products(taps))
        return code

    def resample(self, resolution: Resolution, low: Float[Tensor, " 3"], high: Float[Tensor, " 3"]) -> None:
        """Change the grid of density and appearance; `low` and `high` are in [0, 1]^3 of the old box."""
        scale = torch.tensor([places - 1 for places in self.resolution], device=low.device, dtype=low.dtype)
        for grid in (self.density_grid, self.appearance_grid):
            grid.resample(resolution, low * scale, high * scale)


def resolution_for(num_voxels: float | int, size: Float[Tensor, " 3"]) -> Resolution:
    """Places per axis of a grid of about `num_voxels` cubic voxels over a box of that size; at least 4 per axis."""
    edge = (float(size.prod()) / num_voxels) ** (1 / 3)
    x, y, z = (max(4, round(float(length) / edge)) for length in size)
    return x, y, z


def voxel_schedule(first: float | int, last: float | int, times: int) -> list[float]:
    """Numbers of voxels after each upsampling: evenly spaced logarithms from `first` (left out) to `last`."""
    steps = max(times, 1)
    return [math.exp(math.log(first) + (math.log(last) - math.log(first)) * k / steps) for k in range(1, times + 1)]


def _line_matrix(old: int, at: Float[Tensor, " new"]) -> Float[Tensor, "new old"]:
    """Linear interpolation of a line as a matrix; values beyond the ends are clamped to the border."""
    at = at.clamp(0, old - 1)
    low = at.floor().clamp(max=old - 2).long()
    matrix = torch.zeros(len(at), old, device=at.device)
    rows = torch.arange(len(at), device=at.device)
    matrix[rows, low] = 1 - (at - low)
    matrix[rows, low + 1] += at - low
    return matrix
