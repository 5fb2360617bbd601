"""Points painted into a pixel grid, nearest first, each as a square as wide as the point spacing: the cloud appears as a
surface without holes, in NumPy alone.
"""

from __future__ import annotations

import numpy as np

from ov3d.common.base.shapes import Array, Float, Float64, Int64
from ov3d.common.scenes.cameras import Camera, invert_pose, transform

EMPTY = -1
SPLAT_SPACINGS = 1.6
"""Edge of a square in point spacings: above 1, because neighbours are not all at the median distance."""
MAX_RADIUS = 12
"""Largest reach of a square from its centre, pixels: a point right in front of the lens must not cover the image."""
NEAR_SPACINGS = 2.0
"""Points nearer to the camera than this many spacings are left out."""


def paint(
    uv: Float[Array, "n 2"], depth: Float[Array, " n"], radius: Int64[Array, " n"], width: int, height: int
) -> Int64[Array, "h w"]:
    """Which point covers each pixel.

    Args:
        uv: pixel coordinates, centres at +0.5.
        depth: the nearer of two points hides the other; in a tie, the later one does.
        radius: how many pixels a point's square extends from its centre pixel.
        width, height: size of the grid.

    Returns:
        Indices of points, `EMPTY` for uncovered pixels.
    """
    if not len(depth):
        return np.full((height, width), EMPTY)
    order = np.argsort(-depth, kind="stable")
    column, row = np.floor(uv[order]).astype(np.int64).T
    reach = radius[order]
    owner = np.full(height * width, EMPTY)
    # From far to near; the last of repeated assignments wins, so each run of equal radius is painted at once.
    starts = np.flatnonzero(np.diff(reach, prepend=-1))
    for start, end in zip(starts, np.append(starts[1:], len(reach)), strict=True):
        r = int(reach[start])
        dy, dx = np.mgrid[-r : r + 1, -r : r + 1].reshape(2, -1)
        for first in range(start, end, 1 << 16):
            rows = slice(first, min(first + (1 << 16), end))
            x, y = column[rows, None] + dx, row[rows, None] + dy
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            point = np.broadcast_to(order[rows, None], x.shape)[inside]
            owner[(y * width + x)[inside]] = point
    return owner.reshape(height, width)


def paint_view(
    xyz: Float[Array, "n 3"], camera: Camera, world_from_camera: Float64[Array, "4 4"], spacing: float
) -> Int64[Array, "h w"]:
    """Which point a camera sees at each pixel; `EMPTY` where it sees no point.

    Args:
        xyz: positions, scene units.
        camera: at the desired picture size.
        world_from_camera: its pose.
        spacing: distance between neighbouring points, scene units.
    """
    finite = np.flatnonzero(np.isfinite(xyz).all(axis=1))
    uv, z = camera.project(transform(invert_pose(world_from_camera), xyz[finite]))
    in_front = z > max(NEAR_SPACINGS * spacing, 1e-9)
    uv, z, kept = uv[in_front], z[in_front], finite[in_front]
    within = (uv > -MAX_RADIUS).all(axis=1) & (uv < np.array([camera.width, camera.height]) + MAX_RADIUS).all(axis=1)
    uv, z, kept = uv[within], z[within], kept[within]
    # A square of e pixels extends (e - 1) / 2 pixels from its centre pixel.
    edge = SPLAT_SPACINGS * spacing * max(camera.fx, camera.fy) / z
    radius = np.clip(np.ceil((edge - 1) / 2), 0, MAX_RADIUS).astype(np.int64)
    owner = paint(uv, z, radius, camera.width, camera.height)
    return np.where(owner == EMPTY, EMPTY, np.append(kept, EMPTY)[owner])
