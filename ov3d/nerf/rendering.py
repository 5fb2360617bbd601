"""Compositing: from densities at packed samples to weights, and from weights to the value of a ray.

    tau_i = A sigma_i delta                      optical thickness of sample i; A = 25 brings sigma near 1                (1)
    T_i   = exp(-sum_{j < i} tau_j)              transmittance before it, over the samples of its ray                     (2)
    w_i   = T_i (1 - exp(-tau_i))                weight                                                                   (3)
    y     = sum_i w_i x_i                        the ray's value of any quantity x                                        (4)

The sum in (2) is a running sum over all rays at once, less its value at the ray's start, in fp64: fp32 would lose the
last rays. Its gradient is the same sum from behind:

    dL/dtau_i = g_i (T_i - w_i) - sum_{j > i} g_j w_j,        g = dL/dw                                                   (5)

Source: Max, *Optical models for direct volume rendering*, TVCG 1995; A as in TensoRF.

Symbols: n rays, m samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ov3d.common.base.shapes import Float, Int64
from ov3d.nerf.field import RadianceField
from ov3d.nerf.lookup import Taps
from ov3d.nerf.sampling import Samples

DENSITY_FACTOR = 25.0
"""A of equation (1)."""
LEAST_WEIGHT = 1e-4
"""Samples below this weight get no colour: it would not be visible."""
LEAST_TRANSMITTANCE = 1e-6
"""A ray ends when its transmittance falls below this."""
FRONT_SAMPLES = 10
"""The first samples of each ray (five voxels) are evaluated first; those behind only if light is left."""
MAX_THICKNESS = 60.0
"""exp(-60) is practically zero; more would only cost digits of the running sum."""


@dataclass(frozen=True, slots=True, eq=False)
class Weighted:
    """Samples with their weights.

    Attributes:
        samples: packed; the rest of a finished ray is dropped.
        taps: where they read the grids.
        weight: equation (3).
    """

    samples: Samples
    taps: Taps
    weight: Float[Tensor, " m"]

    @property
    def opacity(self) -> Float[Tensor, " n"]:
        """Equation (4) of 1."""
        return accumulate(self.weight, None, self.samples)[:, 0]

    def visible(self, least: float = LEAST_WEIGHT) -> Weighted:
        """The samples above some weight."""
        idx = (self.weight.detach() > least).nonzero()[:, 0]
        return Weighted(self.samples.select(idx), self.taps.select(idx), self.weight.index_select(0, idx))


def weigh(field: RadianceField, samples: Samples) -> Weighted:
    """Densities and weights of samples, front to back: samples behind an opaque front are never evaluated."""
    front = samples.front(FRONT_SAMPLES)
    ahead = front.nonzero()[:, 0]
    taps = field.taps(samples.unit)
    if len(ahead) == len(samples):
        return Weighted(samples, taps, packed_weights(_thickness(field, taps, samples), samples.ray_idx))
    first = samples.select(ahead)
    thickness = _thickness(field, taps.select(ahead), samples)
    passed = accumulate(thickness.detach(), None, first)[:, 0]
    lit = torch.exp(-passed) > LEAST_TRANSMITTANCE
    behind = (~front & lit.index_select(0, samples.ray_idx)).nonzero()[:, 0]
    thickness = torch.cat((thickness, _thickness(field, taps.select(behind), samples)))
    kept, order = torch.cat((ahead, behind)).sort()
    if len(kept) < len(samples):
        samples, taps = samples.select(kept), taps.select(kept)
    return Weighted(samples, taps, packed_weights(thickness.index_select(0, order), samples.ray_idx))


def _thickness(field: RadianceField, taps: Taps, samples: Samples) -> Float[Tensor, " m"]:
    return optical_thickness(field.density(taps), samples.delta)


def optical_thickness(density: Float[Tensor, " m"], delta: float) -> Float[Tensor, " m"]:
    """Equation (1)."""
    return (density * (DENSITY_FACTOR * delta)).clamp(max=MAX_THICKNESS)


def packed_weights(thickness: Float[Tensor, " m"], ray_idx: Int64[Tensor, " m"]) -> Float[Tensor, " m"]:
    """Equations (2) and (3) over packed samples; differentiable."""
    result: Tensor = _PackedWeights.apply(thickness, ray_idx)  # type: ignore[no-untyped-call]
    return result


def accumulate(
    weight: Float[Tensor, " m"], values: Float[Tensor, "m c"] | None, samples: Samples
) -> Float[Tensor, "n c"]:
    """Equation (4); without values, of 1."""
    weighted = weight[:, None] if values is None else weight[:, None] * values
    out = weighted.new_zeros(samples.num_rays, weighted.shape[1])
    return out.index_add(0, samples.ray_idx, weighted)


def render_colour(
    field: RadianceField, seen: Weighted, direction: Float[Tensor, "n 3"], background: float
) -> Float[Tensor, "n 3"]:
    """What the rays see.

    Args:
        field: gives colours.
        seen: weighted samples of the rays.
        direction: unit vectors of the rays, world.
        background: grey behind everything, in [0, 1].
    """
    visible = seen.visible()
    return blended_colour(field, visible, field.code(visible.taps), direction, seen.opacity, background)


def blended_colour(
    field: RadianceField,
    visible: Weighted,
    code: Float[Tensor, "m c"],
    direction: Float[Tensor, "n 3"],
    opacity: Float[Tensor, " n"],
    background: float,
) -> Float[Tensor, "n 3"]:
    """What the rays see, from the appearance codes of the visible samples and the opacity of all."""
    colour = field.colour(code, direction.index_select(0, visible.samples.ray_idx))
    return accumulate(visible.weight, colour, visible.samples) + (1 - opacity[:, None]) * background


class _PackedWeights(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, thickness: Tensor, ray_idx: Tensor) -> Tensor:
        before = running_sum(thickness, ray_idx) - thickness.double()
        transmittance = torch.exp(-before).to(thickness.dtype)
        weight = -transmittance * torch.expm1(-thickness)
        ctx.save_for_backward(transmittance, weight, ray_idx)
        return weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        transmittance, weight, ray_idx = ctx.saved_tensors
        through = grad * weight
        behind = running_sum(through.flip(0), ray_idx.flip(0)).flip(0) - through.double()
        return grad * (transmittance - weight) - behind.to(grad.dtype), None


def running_sum(values: Float[Tensor, " m"], ray_idx: Int64[Tensor, " m"]) -> Float[Tensor, " m"]:
    """Sums over the samples of each ray up to and including each one, in fp64; samples of a ray are contiguous."""
    total = values.double().cumsum(0)
    if not len(values):
        return total
    begins = torch.ones_like(ray_idx, dtype=torch.bool)
    begins[1:] = ray_idx[1:] != ray_idx[:-1]
    first = begins.nonzero()[:, 0]
    offset = total.index_select(0, first) - values.double().index_select(0, first)
    return total - offset.index_select(0, begins.long().cumsum(0) - 1)
