"""A model: a radiance field, its space and its occupied cells; and how it is rendered.

Symbols: n rays, m samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ov3d.common.base.shapes import Array, Float, UInt8
from ov3d.common.learning.checkpoints import Checkpoint
from ov3d.nerf.field import RadianceField
from ov3d.nerf.occupancy import Occupancy, find_occupancy, full_occupancy
from ov3d.nerf.rendering import DENSITY_FACTOR, Weighted, accumulate, blended_colour, weigh
from ov3d.nerf.sampling import march
from ov3d.nerf.spaces import Lines, Space

RENDER_RAYS, FIRST_RAYS, LEAST_RAYS = 8192, 1024, 128
"""Rays rendered at once: maximum, in the first block, and minimum."""
RENDER_SAMPLES = 1 << 16
"""Target number of samples per block: they fit into the processor's cache, and rays through fog have hundreds each."""


@dataclass(slots=True, eq=False)
class Model:
    """What a stage trains and a view is rendered from.

    Attributes:
        field: density and appearance.
        space: from the world into the field's box.
        occupancy: cells that a march visits.
        step_ratio: distance of samples, in voxels.
        background: grey level behind views: white if training used white at least as often as black.
    """

    field: RadianceField
    space: Space
    occupancy: Occupancy
    step_ratio: float
    background: float = 1.0

    @property
    def delta(self) -> float:
        """Distance of samples, in the space."""
        voxels = [length / (places - 1) for length, places in zip(self.space.size, self.field.resolution, strict=True)]
        return self.step_ratio * float(np.mean(voxels))

    @property
    def device(self) -> torch.device:
        """The field's device."""
        return self.field.basis.weight.device

    def lines(self, origin: Float[Tensor, "n 3"], direction: Float[Tensor, "n 3"]) -> Lines:
        """Rays as a march sees them."""
        return self.space.lines(origin, direction)

    def see(self, lines: Lines, jitter: Float[Tensor, " n"] | None = None) -> Weighted:
        """Samples of rays and their weights."""
        return weigh(self.field, march(self.space, lines, self.occupancy, self.delta, jitter=jitter))

    def look_for_occupied(self, threshold: float) -> None:
        """Recompute the occupied cells."""
        self.occupancy = find_occupancy(self.field, optical_step=DENSITY_FACTOR * self.delta, threshold=threshold)

    @torch.no_grad()
    def render(self, origin: Float[Tensor, "n 3"], direction: Float[Tensor, "n 3"]) -> Rendered:
        """Colour, depth, opacity and appearance code of rays, in blocks."""
        parts, start, rays = [], 0, FIRST_RAYS
        while start < len(origin):
            o, d = origin[start : start + rays], direction[start : start + rays]
            seen = self.see(self.lines(o, d))
            start += rays
            per_ray = max(len(seen.samples), 1) / max(len(o), 1)
            rays = int(min(max(RENDER_SAMPLES / per_ray, LEAST_RAYS), RENDER_RAYS))
            colour, code = colour_and_code(self.field, seen, d, self.background)
            parts.append(Rendered(colour, self._world_distance(seen, o), seen.opacity, code))
        return Rendered(*(torch.cat([getattr(part, name) for part in parts]) for name in Rendered.__slots__))

    def _world_distance(self, seen: Weighted, origin: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Mean distance of what the rays see, world units; 0 where they see nothing."""
        samples = seen.samples
        if self.space.kind == "box":
            away = samples.distance / self.space.scale  # a similarity keeps ratios of lengths
        else:
            away = (self.space.to_world(samples.position) - origin.index_select(0, samples.ray_idx)).norm(dim=1)
        total = accumulate(seen.weight, away.clamp(max=1e6)[:, None], samples)[:, 0]
        return total / seen.opacity.clamp(min=1e-6)

    def metadata(self) -> dict[str, Any]:
        """What is needed to rebuild the model, JSON-able."""
        field = self.field
        return {
            "resolution": list(field.resolution),
            "density_ranks": list(field.density_grid.ranks),
            "appearance_ranks": list(field.appearance_grid.ranks),
            "colour_width": field.colour.layers[0].out_features,
            "space": self.space.to_json(),
            "step_ratio": self.step_ratio,
            "background": self.background,
            "reach": self.occupancy.reach,
        }

    def arrays(self) -> Mapping[str, UInt8[Array, ...]]:
        """What a checkpoint stores besides the weights: the occupied cells."""
        return {"occupied": self.occupancy.cells.cpu().numpy().astype(np.uint8)}

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, device: torch.device) -> Model:
        """The model of a checkpoint."""
        facts = checkpoint.metadata["model"]
        field = RadianceField(
            tuple(facts["resolution"]),
            density_ranks=tuple(facts["density_ranks"]),
            appearance_ranks=tuple(facts["appearance_ranks"]),
            width=facts["colour_width"],
        )
        checkpoint.load_module("field", field)
        field.to(device)
        cells = torch.from_numpy(np.array(checkpoint.extra("occupied"))).bool().to(device)
        occupancy = full_occupancy(field.resolution, device, reach=facts["reach"]).with_cells(cells)
        return cls(field, Space.from_json(facts["space"]), occupancy, facts["step_ratio"], facts["background"])


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """What rays see.

    Attributes:
        colour: in [0, 1].
        distance: mean distance, world units; 0 in empty space.
        opacity: in [0, 1].
        code: the composited appearance code and the opacity; see `composite_code`.
    """

    colour: Float[Tensor, "n 3"]
    distance: Float[Tensor, " n"]
    opacity: Float[Tensor, " n"]
    code: Float[Tensor, "n z"]


def composite_code(field: RadianceField, seen: Weighted) -> Float[Tensor, "n z"]:
    """z: the 27 numbers of the appearance code that a ray sees, and its opacity.

    Everything after the products is linear, and so is compositing: sum w (B a) = B sum w a. So the products are composited,
    and the basis B is applied once per ray; so is a feature head, sum w (M c + b) = [M b] z.
    """
    visible = seen.visible()
    products = field.appearance_grid.products(visible.taps)
    code = field.basis(accumulate(visible.weight, products, visible.samples))
    opacity = accumulate(visible.weight, None, visible.samples)
    return torch.cat((code, opacity), 1)


def colour_and_code(
    field: RadianceField, seen: Weighted, direction: Float[Tensor, "n 3"], background: float
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n z"]]:
    """`render_colour` and `composite_code` of rays: the samples' codes, most of the work of both, are computed once."""
    visible = seen.visible()
    code = field.code(visible.taps)
    colour = blended_colour(field, visible, code, direction, seen.opacity, background)
    with_one = torch.cat((code, torch.ones_like(code[:, :1])), 1)
    return colour, accumulate(visible.weight, with_one, visible.samples)
