"""Which pixels a step of distillation looks at: random ones of a few views, then squares of neighbours.

Symbols: n pixels of a bank.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ov3d.common.base.shapes import Int64
from ov3d.nerf.rays import PixelBank

FRAMES_A_STEP = 6
"""Number of views that a step's random rays come from: a teacher is asked for many pixels of few views at a time."""
PATCH_STRIDE = 3
"""Distance of a patch's rays, pixels: a patch spans more than one thing."""


def draw_pixels(
    bank: PixelBank, generator: torch.Generator, *, rays: int, patches: int, side: int
) -> tuple[Int64[Tensor, " n"], list[int]]:
    """Pixels of a step.

    Args:
        bank: training views.
        generator: of the step.
        rays: number of random pixels.
        patches: number of squares.
        side: pixels along the side of a square.

    Returns:
        Random pixels of a few views, then the squares; and the start index of each square.
    """
    views = torch.randint(len(bank.frames), (FRAMES_A_STEP,), generator=generator).tolist()
    parts = []
    for order, frame_idx in enumerate(views):
        first, last = bank.starts[frame_idx : frame_idx + 2].tolist()
        count = (order + 1) * rays // len(views) - order * rays // len(views)
        parts.append(torch.randint(first, last, (count,), generator=generator))
    starts: list[int] = []
    for order in range(patches):
        square = _square(bank, views[order % len(views)], side, generator)
        if square is not None:
            starts.append(sum(len(part) for part in parts))
            parts.append(square)
    return torch.cat(parts).to(bank.colour.device), starts


def _square(bank: PixelBank, frame_idx: int, side: int, generator: torch.Generator) -> Int64[Tensor, " n"] | None:
    """Pixels of a random square of rays in a view; None if the view is too small."""
    camera = bank.cameras[frame_idx]
    stride = min(PATCH_STRIDE, (min(camera.width, camera.height) - 1) // max(side - 1, 1))
    if stride < 1:
        return None
    reach = stride * (side - 1) + 1
    left = int(torch.randint(camera.width - reach + 1, (1,), generator=generator))
    top = int(torch.randint(camera.height - reach + 1, (1,), generator=generator))
    steps = torch.arange(side) * stride
    rows, columns = top + steps, left + steps
    start: int = int(bank.starts[frame_idx])
    return (start + rows[:, None] * camera.width + columns).flatten()
