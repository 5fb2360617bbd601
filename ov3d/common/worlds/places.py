"""Free places on the floor of a generated room, where a piece touches nothing and hides no photograph."""

from __future__ import annotations

import numpy as np

from ov3d.common.base.shapes import Array, Float64
from ov3d.common.worlds.furniture import Random
from ov3d.common.worlds.walls import Picture, wall_length, wall_pose

GAP = 0.08
"""Free floor around each thing, metres."""


def pose_at_wall(
    rng: Random,
    size: tuple[float, float, float],
    low: Float64[Array, " 3"],
    high: Float64[Array, " 3"],
    pictures: list[Picture],
) -> Float64[Array, "4 4"] | None:
    """`world_from_piece` of a piece of some bounds with its back to a wall; None if it would hide a photograph."""
    wall = int(rng.integers(4))
    half = (high[0] - low[0]) / 2
    free = wall_length(size, wall) / 2 - half - 0.1
    along = rng.uniform(-free, free)
    for picture in pictures:
        below = high[2] < picture.above - picture.height / 2 - 0.05
        if picture.wall == wall and not below and abs(picture.along - along) < half + picture.width / 2 + 0.15:
            return None
    frame = wall_pose(size, wall)
    right, inward = frame[:3, 0], frame[:3, 2]
    pose = np.eye(4)
    pose[:3, :3] = np.column_stack([-right, inward, (0, 0, 1)])
    pose[:3, 3] = frame[:3, 3] + right * along + inward * (0.03 - low[1])
    return pose


def pose_anywhere(
    rng: Random,
    size: tuple[float, float, float],
    low: Float64[Array, " 3"],
    high: Float64[Array, " 3"],
    pictures: list[Picture],
) -> Float64[Array, "4 4"] | None:
    """`world_from_piece` of a piece turned at random, clear of the walls; None if it is tall and would hide a photograph."""
    yaw = rng.uniform(0, 2 * np.pi)
    reach = float(np.hypot(*np.abs(np.stack([low, high]))[:, :2].max(axis=0))) + 0.05
    x, y = (float(rng.uniform(-s / 2 + reach, s / 2 - reach)) for s in size[:2])
    for picture in pictures if high[2] > 0.7 else ():
        local = np.linalg.inv(wall_pose(size, picture.wall)) @ (x, y, 0.0, 1.0)
        if abs(local[0] - picture.along) < picture.width / 2 + reach + 0.2 and local[2] < 2.2:
            return None
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    pose[:2, 3] = x, y
    return pose


def footprint_of(
    pose: Float64[Array, "4 4"], low: Float64[Array, " 3"], high: Float64[Array, " 3"]
) -> Float64[Array, "4 2"]:
    """Corners of a piece's floor rectangle, in order around it."""
    corners = np.array([(low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1])])
    return corners @ pose[:2, :2].T + pose[:2, 3]


def overlap(a: Float64[Array, "4 2"], b: Float64[Array, "4 2"]) -> bool:
    """Whether two rectangles come closer than `GAP` along every edge direction (separating axes)."""
    for corners in (a, b):
        for edge in (corners[1] - corners[0], corners[2] - corners[1]):
            axis = edge / np.linalg.norm(edge)
            pa, pb = a @ axis, b @ axis
            if pa.max() + GAP < pb.min() or pb.max() + GAP < pa.min():
                return False
    return True
