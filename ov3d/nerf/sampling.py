"""The march: where the field is sampled along each ray, packed ray by ray.

Samples are at s = near + (k + jitter) delta, k = 0, 1, ...; all rays share delta. A march has two passes. The first looks up
the middle of every stretch of `STRETCH` samples in the coarse occupancy, which covers the whole stretch; the second looks up
the samples of the remaining stretches in the cells. Only the first pass is dense over rays.

Early termination is the caller's: `front` tells the first few samples of each ray, after which most rays are opaque.

Symbols: n rays, m samples, s distance in the space, delta step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ov3d.common.base.shapes import Bool, Float, Int64
from ov3d.nerf.occupancy import Occupancy
from ov3d.nerf.spaces import Lines, Space

STRETCH = 8
"""Samples covered by one lookup in the coarse occupancy; half-voxel steps go 1.75 cells to each side, it reaches 2."""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Packed samples: those of a ray are contiguous, nearest first.

    Attributes:
        ray_idx: the ray of each, ascending.
        distance: s.
        position: q, in the space.
        unit: q in [0, 1]^3 of the grid's box.
        num_rays: number of rays; some may have no sample.
        delta: the step.
    """

    ray_idx: Int64[Tensor, " m"]
    distance: Float[Tensor, " m"]
    position: Float[Tensor, "m 3"]
    unit: Float[Tensor, "m 3"]
    num_rays: int
    delta: float

    def __len__(self) -> int:
        return len(self.ray_idx)

    def select(self, idx: Int64[Tensor, " k"]) -> Samples:
        """Some of the samples, by ascending index."""
        return _picked(idx, self.ray_idx, self.distance, self.position, self.unit, self.num_rays, self.delta)

    def front(self, count: int) -> Bool[Tensor, " m"]:
        """Whether a sample is among the first `count` of its ray."""
        per_ray = torch.bincount(self.ray_idx, minlength=self.num_rays)
        starts = per_ray.cumsum(0) - per_ray
        rank = torch.arange(len(self), device=self.ray_idx.device) - starts.index_select(0, self.ray_idx)
        return rank < count


@torch.no_grad()
def march(
    space: Space, lines: Lines, occupancy: Occupancy, delta: float, *, jitter: Float[Tensor, " n"] | None = None
) -> Samples:
    """Samples of rays in occupied cells.

    Args:
        space: where the rays are.
        lines: the rays.
        occupancy: cells of the box of `space`.
        delta: step, in the space.
        jitter: in [0, 1), shifts the samples of each ray; None puts them in the middle of their steps.
    """
    shift = torch.full_like(lines.near, 0.5) if jitter is None else jitter
    span = float((lines.far - lines.near).max()) if len(lines) else 0.0
    num_stretches = max(0, -(-int(span / delta + 1) // STRETCH))
    first = torch.arange(num_stretches, device=lines.near.device) * STRETCH
    middle = lines.near[:, None] + (first + 0.5 * (STRETCH - 1) + shift[:, None]) * delta
    open_ = (middle - 0.5 * STRETCH * delta < lines.far[:, None]).flatten().nonzero()[:, 0]
    ray = torch.div(open_, max(num_stretches, 1), rounding_mode="floor")
    unit = space.unit(space.points(lines, ray, middle.flatten().index_select(0, open_)))
    kept = occupancy.lookup(unit, coarse=True).nonzero()[:, 0]
    ray = ray.index_select(0, kept)
    step = first.index_select(0, open_.index_select(0, kept) % max(num_stretches, 1))
    return _fine(space, lines, occupancy, delta, shift, ray, step)


def _fine(
    space: Space,
    lines: Lines,
    occupancy: Occupancy,
    delta: float,
    shift: Float[Tensor, " n"],
    ray: Int64[Tensor, " k"],
    step: Int64[Tensor, " k"],
) -> Samples:
    """The samples of the stretches that begin at `step` of `ray`."""
    within = torch.arange(STRETCH, device=ray.device)
    start = lines.near.index_select(0, ray) + (step + shift.index_select(0, ray)) * delta
    distance = start[:, None] + within * delta
    before_end = (distance < lines.far.index_select(0, ray)[:, None]).flatten()
    ray, distance = ray.repeat_interleave(STRETCH), distance.flatten()
    position = space.points(lines, ray, distance)
    unit = space.unit(position)
    kept = (occupancy.lookup(unit) & before_end).nonzero()[:, 0]
    return _picked(kept, ray, distance, position, unit, len(lines), delta)


def _picked(
    idx: Int64[Tensor, " k"],
    ray_idx: Int64[Tensor, " m"],
    distance: Float[Tensor, " m"],
    position: Float[Tensor, "m 3"],
    unit: Float[Tensor, "m 3"],
    num_rays: int,
    delta: float,
) -> Samples:
    return Samples(
        ray_idx.index_select(0, idx),
        distance.index_select(0, idx),
        position.index_select(0, idx),
        unit.index_select(0, idx),
        num_rays,
        delta,
    )
