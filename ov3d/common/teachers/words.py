"""The cosine above which two words mean the same thing, measured on everyday words with different meanings."""

from __future__ import annotations

import numpy as np

from ov3d.common.base.shapes import Array, Float32

WORDS = (
    *("cat", "dog", "bird", "horse", "person", "plant", "flower", "food", "bread", "apple"),
    *("chair", "table", "bed", "lamp", "shelf", "door", "window", "curtain", "carpet", "mirror"),
    *("clock", "vase", "bottle", "knife", "book", "keyboard", "telephone", "box", "shoe", "hat"),
    *("hammer", "bicycle", "bus", "airplane", "boat", "road", "building", "bridge", "wall", "water"),
)
"""Forty things that are clearly different from each other; frozen, because thresholds depend on them."""

PERCENTILE = 99.0


def word_threshold(vectors: Float32[Array, "k d"]) -> float:
    """The cosine that 99 of 100 pairs of unit vectors of `WORDS` are below."""
    cosines = vectors @ vectors.T
    return round(float(np.percentile(cosines[np.triu_indices(len(vectors), 1)], PERCENTILE)), 3)
