"""Occupancy: which cells of the grid can hold anything, so that a march skips all others.

A cell lies between eight places of the grid. Inside it the field's sum over components is a mean of the corners' values with
weights that sum to 1 (bilinear times linear is trilinear), so its density is at most the greatest corner's:

    occupied  <=>  1 - exp(-A max_corners sigma delta) > threshold                                                    (1)

With threshold 0 nothing is lost; above it, at most that much opacity per step. The values at all places are three matrix
products per layer, cheap enough to compute often, so cells are skipped from the first step on.

A march queries a coarse grid first: the maximum over `reach` cells around each cell, so one lookup covers a stretch.

Symbols: sigma density, delta length of a step, A the factor of `rendering.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from dataclasses import field as attribute

import torch
import torch.nn.functional as F
from torch import Tensor

from ov3d.common.base.shapes import Bool, Float, Shaped
from ov3d.nerf.field import RadianceField

MAX_CELLS = 192
"""Maximum cells per axis; cells of finer grids are joined."""


@dataclass(frozen=True, slots=True, eq=False)
class Occupancy:
    """Occupied cells of the unit cube.

    Attributes:
        cells: whether a cell can hold anything.
        near: whether anything within `reach` cells can.
        reach: cells that `near` looks to each side.
        per_unit: cells per axis from 0 to 1; the last one may be cut off.
        share: share of the cells that are occupied.
    """

    cells: Bool[Tensor, "x y z"]
    near: Bool[Tensor, "x y z"]
    reach: int
    per_unit: tuple[float, float, float]
    share: float = attribute(init=False)
    _bordered: tuple[Bool[Tensor, "_ _ _"], Bool[Tensor, "_ _ _"]] = attribute(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "share", float(self.cells.float().mean()))
        # With a border of empty cells a point outside needs no separate test: its cell is clamped onto the border.
        object.__setattr__(self, "_bordered", (_bordered(self.cells, 0), _bordered(self.near, self.reach)))

    def lookup(self, unit: Float[Tensor, "m 3"], *, coarse: bool = False) -> Bool[Tensor, " m"]:
        """Whether points of [0, 1]^3 are in occupied cells (`coarse`: within `reach` of one); points outside do not."""
        margin = self.reach if coarse else 0  # a stretch round a point outside may still reach in
        grid = self._bordered[coarse]
        flat = torch.zeros((), dtype=torch.int32, device=unit.device)
        for axis, (places, per_unit) in enumerate(zip(grid.shape, self.per_unit, strict=True)):
            cell = (unit[:, axis] * per_unit).floor_().to(torch.int32)
            flat = torch.add(cell.add_(margin + 1).clamp_(0, places - 1), flat, alpha=places)
        return grid.flatten().index_select(0, flat)

    def with_cells(self, cells: Bool[Tensor, "x y z"]) -> Occupancy:
        """The same grid with other cells occupied."""
        return Occupancy(cells, _grown(cells, self.reach), self.reach, self.per_unit)

    def bounds(self) -> tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]] | None:
        """Corners in [0, 1]^3 of the smallest box round the occupied cells; None if nothing is occupied."""
        where = self.cells.nonzero()
        if not len(where):
            return None
        per_unit = self._per_unit(where)
        return where.amin(0) / per_unit, ((where.amax(0) + 1) / per_unit).clamp(max=1)

    def _per_unit(self, like: Shaped[Tensor, ...]) -> Float[Tensor, " 3"]:
        return torch.tensor(self.per_unit, device=like.device)


def full_occupancy(resolution: tuple[int, int, int], device: torch.device, *, reach: int = 2) -> Occupancy:
    """A grid whose every cell is occupied."""
    cells = torch.ones([_cells(places)[0] for places in resolution], dtype=torch.bool, device=device)
    return Occupancy(cells, cells, reach, _per_unit(resolution))


@torch.no_grad()
def find_occupancy(field: RadianceField, *, optical_step: float, threshold: float, reach: int = 2) -> Occupancy:
    """Equation (1) over the whole grid.

    Args:
        field: the radiance field.
        optical_step: A delta.
        threshold: opacity per step that may be skipped, in [0, 1).
        reach: cells that the coarse grid looks to each side.
    """
    least = -math.log1p(-threshold) / optical_step
    joined = [_cells(places) for places in field.resolution]
    density = field.density_grid
    layers = []
    for layer in range(joined[0][0]):
        first = layer * joined[0][1]
        last = min(first + joined[0][1] + 1, density.resolution[0])
        top = density.slab(first, last).amax(0)[None, None]
        windows = [one[1] + 1 for one in joined[1:]]
        pad = [
            (cells - 1) * step + window - places
            for (cells, step), window, places in zip(joined[1:], windows, density.resolution[1:], strict=True)
        ]
        top = F.pad(top, (0, pad[1], 0, pad[0]), value=-math.inf)
        layers.append(F.max_pool2d(top, windows, [one[1] for one in joined[1:]])[0, 0] > least)
    cells = torch.stack(layers)
    return Occupancy(cells, _grown(cells, reach), reach, _per_unit(field.resolution))


def _grown(cells: Bool[Tensor, "x y z"], reach: int) -> Bool[Tensor, "x y z"]:
    grown, width = cells[None].float(), 2 * reach + 1
    for kernel in ((width, 1, 1), (1, width, 1), (1, 1, width)):  # a maximum over a cube is one over each axis in turn
        grown = F.max_pool3d(grown, kernel, 1, tuple(side // 2 for side in kernel))
    return grown[0] > 0


def _bordered(cells: Bool[Tensor, "x y z"], margin: int) -> Bool[Tensor, "a b c"]:
    """The outermost cells repeated outwards `margin` times, and a border of empty ones round that."""
    for axis, places in enumerate(cells.shape):
        repeated = torch.arange(-margin, places + margin, device=cells.device).clamp_(0, places - 1)
        cells = cells.index_select(axis, repeated)
    return F.pad(cells, (1,) * 6, value=False)


def _per_unit(resolution: tuple[int, int, int]) -> tuple[float, float, float]:
    x, y, z = ((places - 1) / _cells(places)[1] for places in resolution)
    return x, y, z


def _cells(places: int) -> tuple[int, int]:
    """Cells along an axis of a grid, and how many of the grid's own cells each joins."""
    step = -(-(places - 1) // MAX_CELLS)
    return -(-(places - 1) // step), step
