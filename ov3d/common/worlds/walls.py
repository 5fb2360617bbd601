"""The four walls of a generated room, and photographs on them.

A wall's own frame has x to the right and y up as seen from inside, z into the room, and its origin at the middle of the
skirting.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ov3d.common.base.shapes import Array, Float64


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A photograph on a wall.

    Attributes:
        name: what it shows.
        instance: its object id.
        wall: index of its wall.
        along: middle, metres to the right of the wall's middle.
        above: middle above the floor, metres.
        width, height: metres.
    """

    name: str
    instance: int
    wall: int
    along: float
    above: float
    width: float
    height: float


def wall_pose(size: tuple[float, float, float], wall: int) -> Float64[Array, "4 4"]:
    """`world_from_wall` of one of the four walls, counted anticlockwise from -y."""
    inward = np.array([(0, 1, 0), (-1, 0, 0), (0, -1, 0), (1, 0, 0)][wall], np.float64)
    up = np.array([0.0, 0.0, 1.0])
    pose = np.eye(4)
    pose[:3, :3] = np.column_stack([np.cross(up, inward), up, inward])
    pose[:3, 3] = -inward * (size[wall_axis(wall)] / 2)
    return pose


def wall_axis(wall: int) -> int:
    """The world axis that a wall stands across: 1 for the walls at -y and +y, 0 for the others."""
    return 1 - wall % 2


def wall_length(size: tuple[float, float, float], wall: int) -> float:
    """Metres along a wall."""
    return size[wall % 2]
