"""The path of the sensor vehicle: forwards at a varying speed, swaying in its lane, rocking slightly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ov3d.common.base.shapes import Array, Float64


@dataclass(frozen=True, slots=True, eq=False)
class EgoMotion:
    """Where the vehicle is at any time. Its frame has x ahead, y left, z up, and its origin on the ground.

    Attributes:
        world_from_street: the street's frame, x along it.
        speed: mean speed along the street, m/s.
        lane: y of the lane's middle in the street's frame, metres.
        surge, sway: largest deviation ahead of the mean motion, and to the side, metres.
        rock: largest pitch and roll, radians.
        phase: initial phase of the swaying, radians.
    """

    world_from_street: Float64[Array, "4 4"]
    speed: float
    lane: float
    surge: float = 1.0
    sway: float = 0.3
    rock: float = 0.004
    phase: float = 0.0

    def poses(self, times: Float64[Array, " t"]) -> Float64[Array, "t 4 4"]:
        """`world_from_ego` at given times, seconds since the start of the drive.

        Args:
            times: in any order.

        Returns:
            Rigid poses: yaw along the path, then pitch, then roll.
        """
        slow, side = 0.5 * times + self.phase, 0.7 * times + self.phase
        x = self.speed * times + self.surge * np.sin(slow)
        y = self.lane + self.sway * np.sin(side)
        ahead = np.maximum(self.speed + 0.5 * self.surge * np.cos(slow), 0.1)
        yaw = np.arctan2(0.7 * self.sway * np.cos(side), ahead) if self.speed else np.zeros_like(times)
        pitch, roll = self.rock * np.sin(2.1 * times + self.phase), self.rock * np.sin(3.3 * times + 1.0)
        street_from_ego = np.zeros((len(times), 4, 4))
        street_from_ego[:, :3, :3] = rotations(yaw, pitch, roll)
        street_from_ego[:, 0, 3], street_from_ego[:, 1, 3], street_from_ego[:, 3, 3] = x, y, 1.0
        return np.einsum("ij,njk->nik", self.world_from_street, street_from_ego)


def rotations(
    yaw: Float64[Array, " n"], pitch: Float64[Array, " n"], roll: Float64[Array, " n"]
) -> Float64[Array, "n 3 3"]:
    """Rotations about z, then the new y, then the new x, radians."""
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    rows = [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
