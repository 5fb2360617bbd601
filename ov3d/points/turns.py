"""Test-time augmentation: answers averaged over copies of a cloud, turned about the vertical and moved among the voxels.

The reference's evaluation turns at random (Xu et al., ECCV 2024). Here copies follow from a seed and are turned as the
network's training turned them: one that has only seen quarter turns knows only axis-aligned walls. The first copy is the cloud
itself, so a count of 1 means no augmentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import numpy as np

from ov3d.common.base.shapes import Array, Float32
from ov3d.common.learning.augment import Turn


@dataclass(frozen=True, slots=True)
class Pose:
    """The pose of a copy of a cloud.

    Attributes:
        angle: about the vertical, radians.
        shift: after it, in voxels; each less than one.
    """

    angle: float = 0.0
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def of(self, xyz: Float32[Array, "n 3"], voxel_size: float) -> Float32[Array, "n 3"]:
        """Positions of the copy; the same array if nothing changes."""
        if self == Pose():
            return xyz
        c, s = np.cos(self.angle), np.sin(self.angle)
        turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
        return (xyz @ turn + np.array(self.shift) * voxel_size).astype(np.float32)


def poses(count: int, turn: Turn, seed: int = 0) -> list[Pose]:
    """The cloud as it is, and copies; a larger count begins with the same ones.

    Args:
        count: total number.
        turn: the angles of the network's training.
        seed: of everything random.
    """
    rng = np.random.default_rng(seed)
    found = [Pose()]
    for number in range(1, count):
        angle, *shift = rng.uniform(0, 1, 4).tolist()
        angle = {"any": 2 * pi * angle, "quarter": number % 4 * pi / 2, "none": 0.0}[turn]
        found.append(Pose(angle, (shift[0], shift[1], shift[2])))
    return found[:count]
