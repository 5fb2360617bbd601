"""Trust in a target: how well it agrees with its look-alikes all over the capture.

A teacher that errs in a place often errs there in most views, so neither their mean nor their agreement reveals it. But
things of similar look and place mostly have the same name. A smooth function of a pixel's look and position is fitted to the
teacher's answers at all pixels; it has far fewer degrees of freedom than there are patches to be wrong in, so it follows what
is common and misses what is odd. With x = (patch features, colour, position), each divided by the distance
at which it counts, random Fourier features of a Gaussian kernel, and q a teacher's distribution over the classes,

    phi(x) = sqrt(2/m) cos(O x + b),     O_ij ~ N(0, 1),  b_j ~ U(0, 2 pi)                                        (1)
    B = argmin sum_i t_i |phi_i B - q_i|^2 + ridge |B|^2                                                          (2)
    y = phi B,      t = clip(q . y / max_c y_c, 0, 1)^power                                                       (3)

(2) and (3) alternate, starting from t = 1: doubted targets have less influence on what is common.

Sources: Rahimi & Recht, *Random features for large-scale kernel machines*, NeurIPS 2007; iteratively reweighted least
squares: Holland & Welsch, *Robust regression using iteratively reweighted least-squares*, 1977.

Symbols: n pixels, k classes, m features of the kernel, s scales, e width of x.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ov3d.common.base.shapes import Float, Int64
from ov3d.nerf.ray_cache import RayCache
from ov3d.nerf.rays import PixelBank
from ov3d.nerf.targets import PatchFeatures, Target, Targets

FEATURES = 384
"""m: a few hundred degrees of freedom, where a capture of a few dozen views has thousands of patches to be wrong in."""
RIDGE = 3e-2
"""Ridge, as a share of the mean square of phi."""
ROUNDS = 4
FIT_PIXELS = 24576
PRINCIPAL = 48
"""Number of principal directions of the patch features used."""
PATCH_REACH, COLOUR_REACH, PLACE_REACH = 1.5, 0.5, 1.0
"""Distances at which look-alikes stop counting: of unit patch features, of colours in [0, 1], of places in their standard
deviations over the capture."""


class Trust:
    """Trust in the targets at a bank's pixels.

    Args:
        bank: training views.
        rays: where their pixels' surfaces are.
        targets: the teacher.
        patches: what pixels look like; None uses colours and places alone.
        power: of equation (3).
        generator: draws pixels and the kernel's features.
    """

    def __init__(
        self,
        bank: PixelBank,
        rays: RayCache,
        targets: Targets,
        patches: PatchFeatures | None,
        *,
        power: float,
        generator: torch.Generator,
    ) -> None:
        self._bank, self._rays, self._power = bank, rays, power
        self._targets, self._patches = targets, patches
        self._directions = None if patches is None else patches.principal(PRINCIPAL)
        pixels = bank.draw(min(FIT_PIXELS, len(bank)), generator).sort().values
        place = rays.places(pixels)
        self._centre, self._reach = place.mean(0), PLACE_REACH * place.std(0).mean().clamp(min=1e-6)
        width = self._looks(pixels).shape[1]
        self._omega = torch.randn(width, FEATURES, generator=generator).to(place)
        self._phase = (2 * math.pi * torch.rand(FEATURES, generator=generator)).to(place)
        self._answers = self._fit(pixels)

    def of(self, pixels: Int64[Tensor, " n"], target: Target) -> Float[Tensor, " n"]:
        """t of equation (3); 0 where the teacher has no features."""
        return self._agreement(self._said(target), self._kernel(pixels) @ self._answers) * target.known

    def _fit(self, pixels: Int64[Tensor, " n"]) -> Float[Tensor, "m k"]:
        """Equations (2) and (3), alternating."""
        target = self._targets.at(pixels)
        said, phi, known = self._said(target), self._kernel(pixels), target.known.to(torch.float32)
        trust, answers = known, phi.new_zeros(FEATURES, said.shape[1])
        for _ in range(ROUNDS):
            weighted = (phi * trust[:, None]).T
            gram = (weighted @ phi).double()
            gram.diagonal().add_(RIDGE * gram.diagonal().mean().clamp(min=1e-9))
            answers = torch.linalg.solve(gram, (weighted @ said).double()).to(phi)
            trust = self._agreement(said, phi @ answers) * known
        return answers

    def _agreement(self, said: Float[Tensor, "n k"], common: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
        best = common.amax(1).clamp(min=1e-6)
        share: Tensor = ((said * common).sum(1) / best).clamp(0, 1) ** self._power
        return share

    def _said(self, target: Target) -> Float[Tensor, "n k"]:
        """q: the teacher's distribution over the classes, mean of its scales."""
        cosine = target.features @ self._targets.text.T
        return (self._targets.logit_scale * cosine).softmax(2).mean(1)

    def _kernel(self, pixels: Int64[Tensor, " n"]) -> Float[Tensor, "n m"]:
        """phi of equation (1)."""
        return math.sqrt(2 / FEATURES) * torch.cos(self._looks(pixels) @ self._omega + self._phase)

    def _looks(self, pixels: Int64[Tensor, " n"]) -> Float[Tensor, "n e"]:
        parts = [
            self._bank.colour.index_select(0, pixels).float() / (255 * COLOUR_REACH),
            (self._rays.places(pixels) - self._centre) / self._reach,
        ]
        if self._patches is not None:
            assert self._directions is not None
            parts.append(self._patches.at(pixels).to(pixels.device) @ self._directions.to(pixels.device) / PATCH_REACH)
        return torch.cat(parts, 1)
