"""Test-time augmentation: a cloud turned about the vertical by seeded angles, and the answers averaged.

The reference's evaluation turns at random (Xu et al., ECCV 2024); here the angles follow from a seed, the first is none, and
one turn is no augmentation at all.
"""

from __future__ import annotations

import numpy as np

from ov3d.common.shapes import Array, Float32


def turn_angles(turns: int, seed: int = 0) -> list[float]:
    """No turn first, then angles drawn from the seed, radians; more turns begin with the same ones."""
    return [0.0, *np.random.default_rng(seed).uniform(0, 2 * np.pi, turns - 1).tolist()]


def turned(xyz: Float32[Array, "n 3"], angle: float) -> Float32[Array, "n 3"]:
    """Positions turned about z; the same array where the angle is 0."""
    if angle == 0:
        return xyz
    c, s = np.cos(angle), np.sin(angle)
    return (xyz @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])).astype(np.float32)
