"""Where the points of a sweep land in all of its photographs.

With R and t the rotation and translation into a camera's frame, f and c its focal lengths and principal point, a point p has
(x, y, z) = R p + t and lands at u = f_x x / z + c_x, v = f_y y / z + c_y (Hartley & Zisserman, *Multiple View Geometry*,
2nd ed., eq. 6.4). It is in the image where low < u < high on both axes and near < z < far. With m the middle and h half the
length of an axis' allowed range, low < u < high is

    |a| < z,    a = (f_x x + (c_x - m) z) / h                                                                         (1)

for z > 0. On both axes a is linear in p, as z is, so one matrix product gives all of them for all cameras, and nothing is
divided until it is known to be in an image. This test runs in fp32 and only excludes: it lets through what is within rounding
of a border. Those that pass are projected in the precision asked for; in fp32, points that rounding could carry over a border
are tested again in fp64, so both precisions keep the same rows.

The z-buffer keeps the nearest depth per cell of the image. A LiDAR sits above its cameras and sees over what hides things from
them: such a point lands among nearer ones, and has the wrong pixel's colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from ov3d.common.base.config import Config
from ov3d.common.base.packing import KeyLayout
from ov3d.common.base.shapes import Array, Bool, Float, Float64, Int64
from ov3d.common.lifting.projection import VisiblePoints
from ov3d.common.scenes.cameras import Camera, invert_pose
from ov3d.common.scenes.scene import Frame

DEVKIT_MARGIN = (1.5, 0.5)
"""nuScenes' devkit keeps 1 < u < width - 1 where whole numbers are pixel centres; ours are at +0.5."""

BLOCK_POINTS = 1 << 13
"""Points that are tested at once: six cameras' numbers stay in the processor's cache."""

ROUNDING = 16 * float(np.finfo(np.float32).eps)
"""Bound of the fp32 test's error, relative to the largest sum of absolute terms: three products and sums, and both roundings
of its input, are below 6 eps."""

SURE_DEPTH = 0.1
"""Metres: nearer points are always tested in fp64, because a pixel's rounding grows without bound towards the lens."""


class SweepProjectionConfig(Config):
    """Which points of a sweep count as seen in a photograph."""

    margin: tuple[float, float] = DEVKIT_MARGIN
    """Pixels kept free at the left and top, and at the right and bottom."""
    min_depth: float = Field(default=1.0, ge=0)
    """Metres along the optical axis; the vehicle itself is nearer."""
    max_depth: float = Field(default=float("inf"), gt=0)
    """Metres along the optical axis."""
    cell: float = Field(default=0.0, ge=0)
    """Side of the z-buffer's cells in pixels; 0 does not test whether nearer points hide a point. Best about as large as rings
    are apart in the image (32 pixels for nuScenes at 1600 x 900, 8 for KITTI): on generated streets that drops 86 % and 89 %
    of the hidden points and keeps 96 % and 98 % of the visible ones; with half of it 42 % and 50 % are dropped, nearly all
    visible ones kept."""
    tolerance: float = Field(default=0.25, ge=0)
    """Share of the nearest depth of its cell by which a point may be farther and still be seen: ground seen at a grazing angle
    spans a good part of it."""


@dataclass(frozen=True, slots=True, eq=False)
class SweepProjection:
    """What each photograph of a sweep sees.

    Attributes:
        num_points: of the sweep.
        names: of the frames.
        views: rows of the cloud, pixels and depths, per frame.
    """

    num_points: int
    names: tuple[str, ...]
    views: tuple[VisiblePoints, ...]

    def __getitem__(self, name: str) -> VisiblePoints:
        return self.views[self.names.index(name)]

    def num_views(self) -> Int64[Array, " n"]:
        """How many photographs see each point."""
        rows = [view.point_idx for view in self.views]
        return np.bincount(np.concatenate(rows or [np.zeros(0, np.int64)]), minlength=self.num_points)


def project_sweep(
    xyz: Float[Array, "n 3"],
    frames: Sequence[Frame],
    config: SweepProjectionConfig | None = None,
    *,
    dtype: Literal["float64", "float32"] = "float64",
) -> SweepProjection:
    """Project a sweep into all of its photographs.

    Args:
        xyz: points in the frame that the cameras' poses are in; those that are not finite are seen nowhere.
        frames: the photographs' cameras and poses.
        config: margin, depths, z-buffer.
        dtype: of the pixels and depths returned. Rows are the same for both.
    """
    config = config or SweepProjectionConfig()
    from_sweep = np.array([invert_pose(frame.world_from_camera)[:3] for frame in frames]).reshape(-1, 3, 4)
    columns = np.ones((4, len(xyz)), xyz.dtype)
    columns[:3] = xyz.T
    with np.errstate(invalid="ignore"):
        largest = np.fmax(np.fmax.reduce(columns, axis=1, initial=0), -np.fmin.reduce(columns, axis=1, initial=0))
    size = np.nan_to_num(largest, posinf=0).astype(np.float64)
    pairs = _candidates(columns, size, frames, from_sweep, config.margin)
    views = []
    for frame, transform, rows in zip(frames, from_sweep, pairs, strict=True):
        view = _in_image(columns, size, rows, frame, transform, config, dtype)
        if config.cell:
            kept = nearest_of_cells(view.uv, view.z, config.cell, config.tolerance)
            view = VisiblePoints(view.point_idx[kept], view.uv[kept], view.z[kept])
        views.append(view)
    return SweepProjection(len(xyz), tuple(frame.name for frame in frames), tuple(views))


def nearest_of_cells(
    uv: Float64[Array, "n 2"], z: Float64[Array, " n"], cell: float, tolerance: float
) -> Bool[Array, " n"]:
    """Which points no nearer one hides: those at most `tolerance` of the nearest depth behind it in their cell.

    Args:
        uv: pixels, not negative.
        z: depths.
        cell: side of the square cells, pixels.
        tolerance: share of the nearest depth.
    """
    if not len(z):
        return np.zeros(0, np.bool_)
    column, row = (uv / cell).astype(np.int64).T
    layout = KeyLayout.bounded(int(row.max()) + 1, int(column.max()) + 1)
    keys = layout.pack(row, column)
    nearest = np.full(int(keys.max()) + 1, np.inf)
    np.minimum.at(nearest, keys, z)
    return z <= nearest[keys] * (1 + tolerance)


def _candidates(
    columns: Float[Array, "4 n"],
    size: Float64[Array, " 4"],
    frames: Sequence[Frame],
    from_sweep: Float64[Array, "c 3 4"],
    margin: tuple[float, float],
) -> list[Int64[Array, " _"]]:
    """Rows of the points that may be in each image, ascending: equation (1) in fp32, with slack for its rounding."""
    count, num_points = len(frames), columns.shape[1]
    found: list[list[Int64[Array, " _"]]] = [[np.zeros(0, np.int64)] for _ in frames]
    test = _test_matrices(frames, from_sweep, margin)
    matrix = np.concatenate([test[:, axis] for axis in range(3)]).astype(np.float32)  # all a, all b, all z
    slack = np.float32(_rounding(test, size)) if count else np.float32(0)
    for start in range(0, num_points if count else 0, BLOCK_POINTS):
        block = columns[:, start : start + BLOCK_POINTS].astype(np.float32, copy=False)
        a, b, z = (matrix @ block).reshape(3, count, -1)
        outside = np.maximum(np.abs(a, out=a), np.abs(b, out=b), out=a)
        z += slack
        for rows, possible in zip(found, outside < z, strict=True):
            rows.append(np.flatnonzero(possible) + start)
    return [np.concatenate(rows) for rows in found]


def _test_matrices(
    frames: Sequence[Frame], from_sweep: Float64[Array, "c 3 4"], margin: tuple[float, float]
) -> Float64[Array, "c 3 4"]:
    """Rows that give a, b and z of equation (1) from a point and 1."""
    tests = np.empty_like(from_sweep)
    for frame, camera_from_sweep, test in zip(frames, from_sweep, tests, strict=True):
        camera = frame.camera
        high = np.array([camera.width, camera.height]) - margin[1]
        middle, half = (high + margin[0]) / 2, np.maximum((high - margin[0]) / 2, 1e-9)
        normalised = np.eye(3)
        normalised[0, [0, 2]] = np.array([camera.fx, camera.cx - middle[0]]) / half[0]
        normalised[1, [1, 2]] = np.array([camera.fy, camera.cy - middle[1]]) / half[1]
        test[:] = normalised @ camera_from_sweep
    return tests


def _rounding(matrices: Float64[Array, "*_ 3 4"], size: Float64[Array, " 4"]) -> float:
    """Bound of the rounding of fp32 products of matrices with points of at most this size per coordinate."""
    return ROUNDING * float((np.abs(matrices) @ size).max())


def _in_image(
    columns: Float[Array, "4 n"],
    size: Float64[Array, " 4"],
    rows: Int64[Array, " m"],
    frame: Frame,
    camera_from_sweep: Float64[Array, "3 4"],
    config: SweepProjectionConfig,
    dtype: str,
) -> VisiblePoints:
    """Project some points, and keep those in the image; what rounding could decide in fp32 is decided in fp64."""
    matrix = frame.camera.matrix @ camera_from_sweep
    u, v, z = _landed(columns, rows, matrix, dtype)
    if dtype == "float64":
        kept = _inside(u, v, z, frame.camera, config)
    else:
        nearest = max(config.min_depth, SURE_DEPTH)
        slack = _rounding(matrix, size) / nearest
        kept = _inside(u, v, z, frame.camera, config, slack) & (z > nearest)
        doubtful = np.flatnonzero(_inside(u, v, z, frame.camera, config, -slack) & ~kept)
        exact = _landed(columns, rows[doubtful], matrix, "float64")
        kept[doubtful] = _inside(*exact, frame.camera, config)
    return VisiblePoints(rows[kept], np.stack([u[kept], v[kept]]).T, z[kept])


def _landed(
    columns: Float[Array, "4 n"], rows: Int64[Array, " m"], matrix: Float64[Array, "3 4"], dtype: str
) -> tuple[Float[Array, " m"], Float[Array, " m"], Float[Array, " m"]]:
    """u, v and z of some points, by K [R t]."""
    u, v, z = matrix.astype(dtype, copy=False) @ columns.take(rows, axis=1).astype(dtype, copy=False)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        u /= z
        v /= z
    return u, v, z


def _inside(
    u: Float[Array, " m"],
    v: Float[Array, " m"],
    z: Float[Array, " m"],
    camera: Camera,
    config: SweepProjectionConfig,
    slack: float = 0.0,
) -> Bool[Array, " m"]:
    """Which points are in the image and in the range of depths, all limits drawn in by `slack`."""
    low, high = config.margin[0] + slack, config.margin[1] + slack
    kept = (z > config.min_depth + slack) & (z < config.max_depth - slack)
    kept &= (u > low) & (u < camera.width - high)
    return kept & (v > low) & (v < camera.height - high)
