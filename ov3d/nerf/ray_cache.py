"""Cached samples of rays: density is frozen while language is learnt, so the samples of a ray and their weights never change.

Every training pixel is marched once. The cache holds the visible samples (packed, pixel by pixel) and the composited code z,
which does not change either until the appearance is tuned.

Symbols: p pixels, m samples of all, n pixels of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ov3d.common.base.progress import Progress
from ov3d.common.base.shapes import Float, Int64
from ov3d.nerf.model import Model, composite_code
from ov3d.nerf.rays import PixelBank
from ov3d.nerf.rendering import Weighted
from ov3d.nerf.sampling import Samples

BLOCK = 8192
"""Pixels marched at once."""
BYTES_A_PIXEL = 160
"""Approximate size of a pixel: six samples of sixteen bytes, and z in half precision."""


@dataclass(frozen=True, slots=True, eq=False)
class RayCache:
    """Visible samples of all pixels of a bank.

    Attributes:
        starts: start index of each pixel's samples, and the total at the end.
        unit: positions in [0, 1]^3 of the grid's box.
        weight: weights.
        z: composited codes.
        delta: the step that the weights were computed with.
    """

    starts: Int64[Tensor, " p1"]
    unit: Float[Tensor, "m 3"]
    weight: Float[Tensor, " m"]
    z: Float[Tensor, "p z"]
    delta: float

    def __len__(self) -> int:
        return len(self.z)

    def places(self, pixels: Int64[Tensor, " n"]) -> Float[Tensor, "n 3"]:
        """Mean position of what pixels see, in [0, 1]^3 of the grid's box; its centre if they see nothing."""
        ray_idx, where = self._where(pixels)
        weight = self.weight.index_select(0, where)[:, None]
        sums = torch.zeros(len(pixels), 4, device=pixels.device)
        sums.index_add_(0, ray_idx, torch.cat((weight * (self.unit.index_select(0, where) - 0.5), weight), 1))
        return sums[:, :3] / sums[:, 3:].clamp(min=1e-6) + 0.5

    def _where(self, pixels: Int64[Tensor, " n"]) -> tuple[Int64[Tensor, " m"], Int64[Tensor, " m"]]:
        """The ray of each sample of some pixels, and the sample's index."""
        first = self.starts.index_select(0, pixels)
        count = self.starts.index_select(0, pixels + 1) - first
        ray_idx = torch.arange(len(pixels), device=pixels.device).repeat_interleave(count)
        begin = count.cumsum(0) - count
        within = torch.arange(len(ray_idx), device=pixels.device) - begin.index_select(0, ray_idx)
        return ray_idx, first.index_select(0, ray_idx) + within

    def seen(self, model: Model, pixels: Int64[Tensor, " n"]) -> Weighted:
        """The visible samples of some pixels, as returned by a march."""
        ray_idx, where = self._where(pixels)
        unit, weight = self.unit.index_select(0, where), self.weight.index_select(0, where)
        samples = Samples(ray_idx, torch.zeros_like(weight), unit, unit, len(pixels), self.delta)
        return Weighted(samples, model.field.taps(unit), weight)


@torch.no_grad()
def cache_rays(model: Model, bank: PixelBank, progress: Progress) -> RayCache:
    """March every pixel of a bank once."""
    counts, units, weights, codes = [], [], [], []
    with progress.task("Looking along every ray once", len(bank)) as task:
        for start in range(0, len(bank), BLOCK):
            pixels = torch.arange(start, min(start + BLOCK, len(bank)), device=model.device)
            seen = model.see(model.lines(*bank.rays(pixels))).visible()
            counts.append(torch.bincount(seen.samples.ray_idx, minlength=len(pixels)))
            units.append(seen.samples.unit)
            weights.append(seen.weight)
            codes.append(composite_code(model.field, seen).half())
            task.advance(len(pixels))
    ends = torch.cat(counts).cumsum(0)
    starts = torch.cat((torch.zeros_like(ends[:1]), ends))
    return RayCache(starts, torch.cat(units), torch.cat(weights), torch.cat(codes), model.delta)
