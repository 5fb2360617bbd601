"""The colours of pictures: a heat map that reads in grey as well, and the colours of found objects."""

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
"""Evenly spaced anchors from near black to pale yellow; lightness rises all the way, so that the order of two colours is
seen without a key, in a grey print and by people who do not tell red from green."""


def heat_colours(heat: Float[Array, "*shape"]) -> UInt8[Array, "*shape 3"]:
    """Colours for heat in [0, 1]; what lies outside, or is not a number, is clipped (NaN to 0)."""
    position = np.nan_to_num(np.clip(heat, 0, 1)) * (len(HEAT_ANCHORS) - 1)
    anchors = np.array(HEAT_ANCHORS, np.float32)
    first = np.minimum(position.astype(np.int64), len(anchors) - 2)
    share = (position - first)[..., None].astype(np.float32)
    return np.rint(anchors[first] * (1 - share) + anchors[first + 1] * share).astype(np.uint8)


def heat_of(scores: Float[Array, "*shape"], low: float, high: float) -> Float[Array, "*shape"]:
    """Scores from `low` to `high` as heat from 0 to 1, clipped."""
    if high <= low:
        return (scores >= high).astype(np.float32)
    return np.clip((scores - np.float32(low)) / np.float32(high - low), 0, 1)
