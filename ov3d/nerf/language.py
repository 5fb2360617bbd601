"""Language on a radiance field: an affine head, and a volume that mixes the teacher's scales.

    F = W z,       W = [M b] in R^(d x 28),  z = (sum_i w_i code_i, sum_i w_i)     the feature of a ray        (1)
    S = softmax_s(sum_i w_i sigmoid(U a_i)),     a_i of a tensor of its own        the mix of scales           (2)
    s(F, t) = z . (W^T t) / sqrt(z^T (W^T W) z)                                    cosine with a text vector t (3)

Three linear layers without activation are one affine map c -> M c + b, and composited it is M sum(w c) + b sum(w): 28
numbers per ray suffice, so neither training nor querying ever builds d numbers per sample, and (3) needs no rendering.

Source: Liu et al., NeurIPS 2023, section 3; the affine form is exact.

Symbols: n rays, m samples, w weights, d width of the encoder, s scales.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ov3d.common.base.shapes import Float
from ov3d.nerf.field import CODE_DIM, Ranks, Resolution, VectorMatrix
from ov3d.nerf.rendering import Weighted, accumulate

Z_DIM = CODE_DIM + 1
RIDGE = 1e-3
"""Share of the mean square of z that is added when a head is fitted in closed form."""


class FeatureHead(nn.Module):
    """W of equation (1).

    Args:
        dim: d.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(dim, Z_DIM) / Z_DIM**0.5)

    def forward(self, z: Float[Tensor, "n z"]) -> Float[Tensor, "n d"]:
        """Features of rays, not of unit length."""
        return z @ self.weight.T

    @torch.no_grad()
    def fit(self, z: Float[Tensor, "n z"], features: Float[Tensor, "n d"], trust: Float[Tensor, " n"]) -> None:
        """Minimise the trust-weighted squared error to some features in closed form."""
        wide, target = z.double(), features.double()
        weighted = wide.T * trust
        gram = weighted @ wide
        gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        self.weight.copy_(torch.linalg.solve(gram, weighted @ target).T.to(self.weight))


class SelectionVolume(nn.Module):
    """Equation (2): the mix of the teacher's scales at each place.

    Args:
        resolution: places per axis, the field's.
        ranks: components of its planes.
        num_scales: s.
        generator: draws the initial values.
    """

    def __init__(
        self, resolution: Resolution, ranks: Ranks, num_scales: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.grid = VectorMatrix(resolution, ranks, generator)
        self.basis = nn.Linear(sum(ranks), num_scales, bias=False)

    def forward(self, seen: Weighted) -> Float[Tensor, "n s"]:
        """Shares of the scales per ray; they sum to 1."""
        values = torch.sigmoid(self.basis(self.grid.products(seen.taps)))
        return accumulate(seen.weight, values, seen.samples).softmax(1)
