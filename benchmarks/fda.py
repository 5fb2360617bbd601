"""Alignment of feature distributions (FDA) over one patch, against the same loss pair by pair.

    python -m benchmarks.fda

All pairs of a patch of 32 x 32 rays, 7 classes, Kullback-Leibler as in the reference, forwards and backwards. Peer: every
pair's ratio of probabilities in one block [1024, 1024, 7]. Ours: two matrix products. Losses and gradients must agree to
0.1 %. The last line is one JSON object; `ratio` is the median of the repeats' ratios.
"""

from __future__ import annotations

import json
import statistics
import time

import torch
from torch import Tensor

from ov3d.nerf.alignment import TINY, distribution_loss

SIDE, CLASSES, REPEATS, LIMIT, GOAL = 32, 7, 5, 0.69, 20.0


def main() -> None:
    """Run both, print seconds and the JSON line."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(SIDE * SIDE, CLASSES, generator=generator)
    features = torch.nn.functional.normalize(torch.randn(SIDE * SIDE, 16, generator=generator), dim=1)
    likeness = features @ features.T - 0.1
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for repeat in range(REPEATS + 1):
        for name, times in seconds.items():
            leaf = logits.clone().requires_grad_()
            start = time.process_time()
            probabilities = leaf.softmax(1)
            if name == "ours":
                attract, repel = distribution_loss(probabilities, likeness, divergence="kl", limit=LIMIT)
            else:
                attract, repel = _pair_by_pair(probabilities, likeness)
            loss = 200 * attract + 0.2 * repel
            loss.backward()  # type: ignore[no-untyped-call]
            if repeat:
                times.append(time.process_time() - start)
            assert leaf.grad is not None
            found[name] = (loss.detach(), leaf.grad)
    (loss, gradient), (peer_loss, peer_gradient) = found["ours"], found["peer"]
    error = max(
        float((loss - peer_loss).abs() / peer_loss.abs()),
        float((gradient - peer_gradient).norm() / peer_gradient.norm()),
    )
    ours, peer = (statistics.median(seconds[name]) * 1e3 for name in ("ours", "peer"))
    ratio = statistics.median(slow / quick for quick, slow in zip(seconds["ours"], seconds["peer"], strict=True))
    print(
        f"{SIDE}x{SIDE} rays, {CLASSES} classes: {ours:.1f} ms, pair by pair {peer:.1f} ms ({ratio:.1f}x); error {error:.1e}"
    )
    result = {
        "name": "fda",
        "ours": round(ours, 2),
        "peer": round(peer, 2),
        "unit": "ms of processor time, forwards and backwards",
        "ratio": round(ratio, 2),
        "goal": GOAL,
        "met": bool(ratio >= GOAL and error < 1e-3),
        "threads": torch.get_num_threads(),
        "max_error": error,
    }
    print(json.dumps(result))


def _pair_by_pair(p: Tensor, likeness: Tensor) -> tuple[Tensor, Tensor]:
    pairs = (p[:, None] * ((p[:, None] + TINY) / (p[None] + TINY)).log()).sum(2)
    alike, unlike = likeness.clamp(min=0), likeness.clamp(max=0)
    attract = (alike * pairs).sum() / (alike > 0).sum()
    return attract, (unlike * pairs.clamp(max=LIMIT)).sum() / (unlike < 0).sum()


if __name__ == "__main__":
    main()
