"""Rotate a cloud upright."""

from __future__ import annotations

import numpy as np

from ov3d.common.base.shapes import Array, Float32


def upright(xyz: Float32[Array, "n 3"], up: tuple[float, float, float]) -> Float32[Array, "n 3"]:
    """Positions rotated so that `up` points along z, as networks expect; the same array if it already does."""
    axis = np.asarray(up, np.float64) / np.linalg.norm(up)
    if axis[2] > 1 - 1e-9:
        return xyz
    if axis[2] < -1 + 1e-9:  # upside down: half a turn about x
        return (xyz * np.array([1, -1, -1])).astype(np.float32)
    across = np.array([[0, 0, -axis[0]], [0, 0, -axis[1]], [axis[0], axis[1], 0]])  # [up x z], Rodrigues' formula
    turn = np.eye(3) + across + across @ across / (1 + axis[2])
    return (xyz @ turn.T).astype(np.float32)
