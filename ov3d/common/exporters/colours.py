"""Colours for pictures: a heat map that is also readable in grey, and the colours of found objects."""

from __future__ import annotations

import numpy as np

from ov3d.common.base.shapes import Array, Float, UInt8

HEAT_ANCHORS = (
    (13, 8, 42),
    (74, 16, 104),
    (140, 34, 102),
    (201, 60, 70),
    (240, 107, 36),
    (252, 169, 44),
    (252, 242, 160),
)
"""Evenly spaced anchors from near black to pale yellow; lightness rises monotonically, so that colours can be ordered
without a legend, in grey print and by red-green colour-blind readers."""


def heat_colours(heat: Float[Array, "*shape"]) -> UInt8[Array, "*shape 3"]:
    """Colours for heat in [0, 1]; values outside are clipped, NaN becomes 0."""
    position = np.nan_to_num(np.clip(heat, 0, 1)) * (len(HEAT_ANCHORS) - 1)
    anchors = np.array(HEAT_ANCHORS, np.float32)
    first = np.minimum(position.astype(np.int64), len(anchors) - 2)
    share = (position - first)[..., None].astype(np.float32)
    return np.rint(anchors[first] * (1 - share) + anchors[first + 1] * share).astype(np.uint8)


def heat_of(scores: Float[Array, "*shape"], low: float, high: float) -> Float[Array, "*shape"]:
    """Map scores from `low` to `high` to heat from 0 to 1, clipped."""
    if high <= low:
        return (scores >= high).astype(np.float32)
    return np.clip((scores - np.float32(low)) / np.float32(high - low), 0, 1)
