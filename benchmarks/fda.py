"""Alignment of feature distributions (FDA) over one patch, against the same loss pair by pair.

    python -m benchmarks.fda

All pairs of a patch of 32 x 32 rays, 7 classes, forwards and backwards, on one thread: Kullback-Leibler as in the reference
(the goal's line), and Jensen-Shannon, the paper's and our default. Peer: straight from the formula, every pair's ratio of
probabilities in one block [1024, 1024, 7], differentiated by autograd. Losses and gradients must agree to 0.1 %. Each runs
a few times in a row and the last time counts, for both: what the other one gave back to the system is still being cleared
away during the first. The last line is one JSON object; `ratio` is the median of the repeats' ratios.
"""

from __future__ import annotations

import time
from functools import partial

import torch
from torch import Tensor

from benchmarks.harness import interleaved, last_of, median_ratio, medians, parser, report
from ov3d.nerf.alignment import distribution_loss
from ov3d.nerf.pairs import TINY, Divergence

SIDE, CLASSES, REPEATS, LIMIT, GOAL = 32, 7, 9, 0.69, 20.0
IN_A_ROW = 4


def main() -> None:
    """Run both with both divergences, print milliseconds and the JSON line."""
    options = parser(__doc__).parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(SIDE * SIDE, CLASSES, generator=generator)
    features = torch.nn.functional.normalize(torch.randn(SIDE * SIDE, 16, generator=generator), dim=1)
    likeness = features @ features.T - 0.1
    kl, js = (measure(logits, likeness, divergence) for divergence in ("kl", "js"))
    report(
        "fda",
        ours=kl["ours"],
        peer=kl["peer"],
        unit="ms of processor time, forwards and backwards, kl",
        ratio=kl["ratio"],
        goal=GOAL,
        met=kl["ratio"] >= GOAL and max(kl["max_error"], js["max_error"]) < 1e-3,
        save=options.save,
        max_error=kl["max_error"],
        threads=torch.get_num_threads(),
        js=js,
    )


def measure(logits: Tensor, likeness: Tensor, divergence: Divergence) -> dict[str, float]:
    """Milliseconds of both, interleaved, and how far they are apart."""
    losses = {
        "ours": lambda p: distribution_loss(p, likeness, divergence=divergence, limit=LIMIT),
        "peer": lambda p: _pair_by_pair(p, likeness, divergence),
    }
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def step(name: str) -> float:
        leaf = logits.clone().requires_grad_()
        start = time.process_time()
        attract, repel = losses[name](leaf.softmax(1))
        loss = 200 * attract + 0.2 * repel
        loss.backward()  # type: ignore[no-untyped-call]
        taken = time.process_time() - start
        assert leaf.grad is not None
        found[name] = (loss.detach(), leaf.grad)
        return taken

    times = interleaved({name: partial(last_of, IN_A_ROW, partial(step, name)) for name in losses}, REPEATS, clock=None)
    (loss, gradient), (peer_loss, peer_gradient) = found["ours"], found["peer"]
    error = max(
        float((loss - peer_loss).abs() / peer_loss.abs()),
        float((gradient - peer_gradient).norm() / peer_gradient.norm()),
    )
    ours, peer = (1e3 * median for median in medians(times).values())
    ratio = median_ratio(times["peer"], times["ours"])
    print(
        f"{divergence}, {SIDE}x{SIDE} rays, {CLASSES} classes: {ours:.1f} ms, pair by pair {peer:.1f} ms ({ratio:.1f}x); "
        f"error {error:.1e}"
    )
    return {"ours": round(ours, 2), "peer": round(peer, 2), "ratio": round(ratio, 2), "max_error": error}


def _pair_by_pair(p: Tensor, likeness: Tensor, divergence: Divergence) -> tuple[Tensor, Tensor]:
    if divergence == "kl":
        pairs = _kl(p[:, None], p[None])
    else:
        middle = (p[:, None] + p[None]) / 2
        pairs = (_kl(p[:, None], middle) + _kl(p[None], middle)) / 2
    alike, unlike = likeness.clamp(min=0), likeness.clamp(max=0)
    attract = (alike * pairs).sum() / (alike > 0).sum()
    return attract, (unlike * pairs.clamp(max=LIMIT)).sum() / (unlike < 0).sum()


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * ((p + TINY) / (q + TINY)).log()).sum(2)


if __name__ == "__main__":
    main()
