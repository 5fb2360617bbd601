"""Sums of divergences over all pairs of rays of a patch, with custom gradients: a block [n, n, k] is never built.

The goal is sum_ij A_ij D_ij and sum_ij B_ij min(D_ij, limit), with A = max(v, 0) and B = min(v, 0) of the likeness v, which is
symmetric. Where a pair is beyond the limit it has no gradient; B' is B with those pairs set to zero. Let p be the
probabilities, l = log p, h_i = sum_c p_ic l_ic, and W one of A and B'. Kullback-Leibler factors:

    D_ij = h_i - sum_c p_ic l_jc
    sum_ij W_ij D_ij = (W 1) . h - <P, W L>                                                                             (1)
    d/dp = (W 1)(l + 1) - W L - (W^t P) / p                                                                             (2)

so W is only multiplied by thin matrices, and D only compared with the limit. Jensen-Shannon does not factor, yet one
logarithm per pair and class yields both the value and the gradient: with m = (p_i + p_j)/2,

    D_ij = (h_i + h_j)/2 - sum_c m_ijc log m_ijc,      T_ic = sum_j W_ij log m_ijc
    sum_ij W_ij D_ij = (W 1) . h - <P, T>                                                                               (3)
    d/dp = (W 1) l - T                                                                                                  (4)

and pairs (i, j) and (j, i) share that logarithm. Rows are processed in blocks whose buffers stay in the processor's cache
and are reused: fresh pages for [n, n] numbers cost more than the arithmetic. Masks are factors 0 and 1: a select on booleans
takes thirty times as long as a product.

Symbols: n rays, k classes.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ov3d.common.base.shapes import Float

Divergence = Literal["kl", "js"]

TINY = 1e-8
"""Added to probabilities before a logarithm."""
BLOCK_ROWS = {"kl": 256, "js": 128}
"""Rows at once on a CPU; `js` holds one logarithm per class."""
STEEP = 1e20
"""Turns any relevant difference into a factor 0 or 1, by clamping its product to [0, 1]."""


def pair_sums(
    p: Float[Tensor, "n k"], likeness: Float[Tensor, "n n"], divergence: Divergence, limit: float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Means of the divergences of alike pairs, and of unlike pairs up to a limit, weighted; differentiable in `p` only.

    Args:
        p: class probabilities of the rays.
        likeness: v, one row and one column per ray; symmetric.
        divergence: which D.
        limit: largest D that counts for unlike pairs.

    Returns:
        sum max(v, 0) D / #{v > 0} and sum min(v, 0) min(D, limit) / #{v < 0}; 0 without such pairs.
    """
    function = _KullbackLeibler if divergence == "kl" else _JensenShannon
    attract, repel = function.apply(p, likeness, limit)  # type: ignore[no-untyped-call]
    return attract, repel


class _KullbackLeibler(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, p: Tensor, likeness: Tensor, limit: float) -> tuple[Tensor, Tensor]:
        num, classes = p.shape
        log_p = (p + TINY).log()
        h = (p * log_p).sum(1)
        # L, 1 and P; columns of zeros up to a multiple of eight: a product with 16 columns takes a third of one with 15.
        thin = p.new_zeros(num, -(-(2 * classes + 1) // 8) * 8)
        torch.cat((log_p, torch.ones_like(h)[:, None], p), 1, out=thin[:, : 2 * classes + 1])
        columns = thin[:, : classes + 1].T.contiguous()
        left = STEEP * torch.cat((p, (limit - h)[:, None]), 1)  # left @ columns = STEEP (limit - D)
        across = p.new_empty(2, *thin.shape)  # W L, W 1 and, for A only, W P
        turned = p.new_zeros(classes, num)  # the transpose of B'^t P
        counts, low = p.new_zeros(2), p.new_zeros(())
        size = _block_rows(p, "kl")
        buffers = p.new_empty(2, size, num)
        for start in range(0, num, size):
            rows = slice(start, min(start + size, num))
            part, other = buffers[:, : rows.stop - start]
            sign = torch.sign(likeness[rows], out=other).flatten()
            counts += _alike_and_unlike(sign.sum(), sign @ sign)
            torch.mm(torch.clamp(likeness[rows], min=0, out=part), thin, out=across[0, rows])
            low += torch.clamp(likeness[rows], max=0, out=part).sum()
            part.mul_(torch.mm(left[rows], columns, out=other).clamp_(0, 1))
            torch.mm(part, thin, out=across[1, rows])
            turned.addmm_(p[rows].T, part)
        sums, gradients = [], []
        slope = 1 / (p + TINY)
        for product, back in ((across[0], across[0, :, classes + 1 : 2 * classes + 1]), (across[1], turned.T)):
            row, mixed = product[:, classes], product[:, :classes]
            sums.append(row @ h - (p * mixed).sum())
            gradients.append(row[:, None] * (log_p + p * slope) - mixed - back * slope)
        sums[1] = sums[1] + limit * (low - across[1, :, classes].sum())
        return _kept(ctx, sums, gradients, counts)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        return _gradient(ctx, *upstream), None, None


class _JensenShannon(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, p: Tensor, likeness: Tensor, limit: float) -> tuple[Tensor, Tensor]:
        num, classes = p.shape
        log_p = (p + TINY).log()
        h = (p * log_p).sum(1)
        half = (0.5 * (p + TINY)).T.contiguous()  # [k, n]; a logarithm's TINY is in it already
        totals, logs = p.new_zeros(2, 1, num), p.new_zeros(2, classes, num)  # W 1 and T of both parts
        counts, low = p.new_zeros(2), p.new_zeros(())
        size = _block_rows(p, "js")
        flat, deep = p.new_empty(3, size * num), p.new_empty(2, size * num * classes)
        for start in range(0, num, size):
            stop = min(start + size, num)
            shape = (stop - start, num - start)  # the rest are the same pairs again
            alike, unlike, spare = (one[: shape[0] * shape[1]].view(shape) for one in flat)
            mean, log = (one[: classes * shape[0] * shape[1]].view(classes, *shape) for one in deep)
            _part(likeness[start:stop, start:], alike, unlike)
            sign, width = torch.sign(likeness[start:stop, start:], out=spare), stop - start
            twice = sign.sum() + sign[:, width:].sum()
            counts += _alike_and_unlike(twice, sign.square_().sum() + sign[:, width:].sum())
            low += unlike.sum() + unlike[:, stop - start :].sum()
            torch.add(half[:, start:stop, None], half[:, None, start:], out=mean)
            torch.log(mean, out=log)
            within = torch.sum(mean.mul_(log), 0, out=spare).add_(limit)  # limit - D
            within.sub_(0.5 * h[start:stop, None]).sub_(0.5 * h[start:])
            unlike.mul_(within.mul_(STEEP).clamp_(0, 1))
            for part, weight in enumerate((alike, unlike)):
                _add_pairs(totals[part], weight[None], start, stop)
                _add_pairs(logs[part], torch.mul(weight, log, out=mean), start, stop)
        gradients = [totals[part].T * log_p - logs[part].T for part in range(2)]
        sums = [totals[part, 0] @ h - (p * logs[part].T).sum() for part in range(2)]
        sums[1] = sums[1] + limit * (low - totals[1].sum())
        return _kept(ctx, sums, gradients, counts)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        return _gradient(ctx, *upstream), None, None


def _part(likeness: Tensor, alike: Tensor, unlike: Tensor) -> None:
    """Positive and negative parts."""
    torch.clamp(likeness, min=0, out=alike)
    torch.sub(likeness, alike, out=unlike)


def _alike_and_unlike(difference: Tensor, total: Tensor) -> Tensor:
    """How many pairs are alike and how many unlike, from the sum of their signs and of the squares of these."""
    return torch.stack((total + difference, total - difference)) / 2


def _add_pairs(total: Tensor, values: Tensor, start: int, stop: int) -> None:
    """Add values of pairs to their first rays, and beyond the block itself to their second ones as well."""
    total[:, start:stop] += values.sum(2)
    total[:, stop:] += values[:, :, stop - start :].sum(1)


def _block_rows(p: Tensor, divergence: Divergence) -> int:
    return min(len(p), BLOCK_ROWS[divergence]) if p.device.type == "cpu" else len(p)


def _kept(ctx: Any, sums: list[Tensor], gradients: list[Tensor], counts: Tensor) -> tuple[Tensor, Tensor]:
    """The two means, with their gradients saved."""
    shares = 1 / counts.clamp(min=1)
    ctx.save_for_backward(*(gradient * share for gradient, share in zip(gradients, shares, strict=True)))
    return sums[0] * shares[0], sums[1] * shares[1]


def _gradient(ctx: Any, to_attract: Tensor, to_repel: Tensor) -> Tensor:
    attract, repel = ctx.saved_tensors
    return to_attract * attract + to_repel * repel
