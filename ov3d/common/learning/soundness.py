"""Small checks that both trainers make of what they write and go on with."""

from __future__ import annotations

import torch
from torch import nn

from ov3d.common.base.progress import Progress
from ov3d.common.learning.checkpoints import Checkpoint

TOO_LARGE = 1e4
"""Weights of a field or head in order stay below this by far."""


def not_finite(module: nn.Module) -> str:
    """The first parameter that is no number somewhere, by its name; empty where all are numbers."""
    for name, value in module.named_parameters():
        if not bool(value.detach().isfinite().all()):
            return name
    return ""


def cause_of_nan(module: nn.Module) -> str:
    """The likely cause of a loss that is no number, in words; empty where the weights look sound."""
    broken = not_finite(module)
    if broken:
        return f"{broken} is no number any more: the steps are too large"
    sizes = {name: float(value.detach().abs().max()) for name, value in module.named_parameters() if value.numel()}
    largest = max(sizes, key=lambda name: sizes[name])
    if sizes[largest] > TOO_LARGE:
        return f"{largest} has grown to {sizes[largest]:.0e}: the steps are too large"
    return ""


def say_threads(checkpoint: Checkpoint, progress: Progress) -> None:
    """Say where a run goes on with another number of threads: sums are then taken in another order.

    Args:
        checkpoint: what is gone on from; keeps the number it was written with.
        progress: hears it.
    """
    before, now = checkpoint.metadata.get("threads"), torch.get_num_threads()
    if before is not None and before != now:
        progress.say(
            f"The checkpoint was written with {before} processor threads, this goes on with {now}: "
            f"numbers may differ in their last digits (OMP_NUM_THREADS={before} keeps them)."
        )
