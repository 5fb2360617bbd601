"""Losses of distillation.

With F the feature of a ray, C_s and R_s the teacher's feature and relevancies at scale s, S the mix of scales, T the
classes' text vectors, d_i DINO features:

    feature   mean(1 - cos(F, sum_s S_s C_s))                                                                  (1)
    RDA       mean JS(softmax(F T^t), softmax(sum_s S_s R_s))                                                  (2)
    FDA       p_i = softmax(cos(F_i, T) / 0.2),  v_ij = cos(d_i, d_j) - 0.7 over all pairs of a patch
              attract = sum max(v, 0) D_ij / #{v > 0}                                                          (3)
              repel = sum min(v, 0) min(D_ij, limit) / #{v < 0}                                                (4)

D is KL(p_i || p_j) as the reference computes it, or the Jensen-Shannon divergence that the paper names. KL over all pairs
is two matrix products,

    KL_ij = sum_c p_ic log p_ic - (P log P^t)_ij                                                               (5)

and JS needs the entropy of every pair's mean. KL has no upper bound, so `repel` is capped at a limit: beyond it, a pair
earns nothing more.

Source: Liu et al., *Weakly Supervised 3D Open-vocabulary Segmentation*, NeurIPS 2023, equations 4 to 9.

Symbols: n rays, k classes, d width of the features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ov3d.common.base.shapes import Float
from ov3d.nerf.pairs import TINY, Divergence, pair_sums


def feature_loss(
    found: Float[Tensor, "n d"], wanted: Float[Tensor, "n d"], trust: Float[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Equation (1) over the rays, weighted by trust in their targets."""
    cosine = F.cosine_similarity(found, wanted, dim=1, eps=TINY)
    return ((1 - cosine) * trust).sum() / trust.sum().clamp(min=TINY)


def relevancy_loss(
    logits: Float[Tensor, "n k"], relevancy: Float[Tensor, "n k"], trust: Float[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Equation (2) over the rays, weighted by trust in their targets."""
    p, q = logits.softmax(1), relevancy.softmax(1)
    middle = 0.5 * (p + q)
    divergence = _entropy(middle) - 0.5 * (_entropy(p) + _entropy(q))
    return (divergence * trust).sum() / trust.sum().clamp(min=TINY)


def distribution_loss(
    p: Float[Tensor, "n k"],
    likeness: Float[Tensor, "n n"],
    *,
    divergence: Divergence,
    limit: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Equations (3) and (4) over one patch.

    Args:
        p: class probabilities of its rays.
        likeness: v, one row and one column per ray; symmetric.
        divergence: which D.
        limit: largest D that `repel` rewards.

    Returns:
        attract (not negative) and repel (not positive).
    """
    return pair_sums(p, likeness, divergence, limit)


def stretched(
    cosine: Float[Tensor, "n s k"], low: Float[Tensor, "n s k"], high: Float[Tensor, "n s k"]
) -> Float[Tensor, "n s k"]:
    """Relevancy in [0, 1]: the cosine between the least and the greatest of its image, scale and class.

    Where they are equal (one colour, or nothing known) the image is uninformative, and the relevancy is 0.
    """
    span = high - low
    flat = span <= TINY
    return torch.where(flat, torch.zeros_like(cosine), (cosine - low) / torch.where(flat, torch.ones_like(span), span))


def _entropy(p: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    return -(p * (p + TINY).log()).sum(1)
