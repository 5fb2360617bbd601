"""Finds the points that a posed photograph sees, and their pixels.

A point is seen if it is in front of the camera, projects far enough inside the image border, and is not occluded: its depth
agrees with the measured one or, if the frame has no depth or none at that pixel, no other point of the cloud covers it (a
z-buffer).

Everything is computed in fp64: a world in UTM or with a far origin loses whole pixels in fp32. Points are processed in blocks,
and blocks with bounding boxes outside the view are skipped: fifty million points need little more memory than the seen ones.

Symbols: z depth of a point along the optical axis; D(u, v) measured depth at a pixel; s spacing of the cloud; f focal length.
Source: Xu et al., *3D Weakly Supervised Semantic Segmentation with 2D Vision-Language Guidance*, ECCV 2024, section 3 (border
and depth test); the splatted z-buffer is the usual point rendering with a footprint of one point spacing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from pydantic import Field

from ov3d.common.base.config import Config
from ov3d.common.base.shapes import Array, Bool, Float, Float32, Float64, Int64
from ov3d.common.scenes.cameras import Camera, invert_pose, transform
from ov3d.common.scenes.scene import DepthImage, Frame
from ov3d.common.sparse.neighbors import knn

REFERENCE_WIDTH = 320
"""Image width that `VisibilityConfig.border` is in pixels of."""

SPLAT_SPACINGS = 1.5
"""Width of a point's footprint in point spacings: above 1, because points fall unevenly into the buffer's cells."""

SLOPE = 2.0
"""Steepest surface, in depth over width, that must not occlude itself within one footprint (2 = seen at 63 degrees)."""

MAX_SPLAT_LEVEL = 7
"""Footprints are at most 2^7 pixels wide: a point close to the lens must not cover the whole image."""

SPACING_SAMPLE = 2000
"""Number of points sampled to estimate a cloud's spacing."""

SPACING_BLOCK = 1 << 20
"""Points searched for neighbours at once."""

BLOCK_POINTS = 1 << 16
"""Points projected at once, so that their data stays in the processor's cache."""

HELD_POINTS = 1 << 21
"""Clouds of at most this many points are projected once for a z-buffer; larger ones twice, to save memory."""

CULL_MARGIN = 1e-6
"""Boxes are skipped only if outside by this share of their distance, so that rounding loses no point on the border."""

_Landed: TypeAlias = "tuple[Int64[Array, ' v'], Float64[Array, 'v 2'], Float64[Array, ' v']]"
"""Indices, pixels and depths of points in an image."""


class VisibilityConfig(Config):
    """When a point counts as seen by a frame."""

    border: float = Field(default=10.0, ge=0)
    """Margin inside the image border that a point must keep, in pixels of an image 320 wide."""
    depth_tolerance: float = Field(default=0.05, gt=0)
    """Largest |D - z| / D at which a point is the surface that the depth image saw. The paper's 0.25 lets the edge of a cup
    bleed 25 cm onto a table one metre behind it; 0.05 still covers sensor noise and slanted surfaces."""
    missing_depth: Literal["zbuffer", "drop"] = "zbuffer"
    """For a pixel without a measurement, in a frame with depth: test the z-buffer, or drop the point."""


@dataclass(frozen=True, slots=True, eq=False)
class VisiblePoints:
    """The points that one frame sees.

    Attributes:
        point_idx: indices into the cloud, ascending.
        uv: their positions in pixels of the frame's camera.
        z: their depths along the optical axis, scene units.
    """

    point_idx: Int64[Array, " v"]
    uv: Float[Array, "v 2"]
    z: Float[Array, " v"]

    def __len__(self) -> int:
        return len(self.point_idx)


@dataclass(frozen=True, slots=True, eq=False)
class DepthMap:
    """Depth in memory with its camera; 0 where nothing was measured.

    Attributes:
        values: scene units along the optical axis.
        camera: at the size of `values`, with the pose of the colour camera.
    """

    values: Float32[Array, "h w"]
    camera: Camera

    @classmethod
    def read(cls, image: DepthImage, *, scale: float = 1.0) -> DepthMap:
        """Load a depth image, its values times `scale`."""
        return cls(image.load() * np.float32(scale), image.camera)

    def at(self, uv: Float64[Array, "n 2"], camera: Camera) -> Float64[Array, " n"]:
        """Depth at pixels of another camera with the same pose; 0 outside and where nothing was measured."""
        own = self.camera
        scale = (own.fx / camera.fx, own.fy / camera.fy)
        column, row = np.floor((uv - (camera.cx, camera.cy)) * scale + (own.cx, own.cy)).astype(np.int64).T
        inside = (column >= 0) & (row >= 0) & (column < own.width) & (row < own.height)
        depth = np.zeros(len(uv))
        depth[inside] = self.values[row[inside], column[inside]]
        return depth


class PointBlocks:
    """Positions in blocks with bounding boxes, for use with many cameras.

    Args:
        xyz: positions, scene units.
        block_points: points per block.
    """

    def __init__(self, xyz: Float[Array, "n 3"], block_points: int = BLOCK_POINTS) -> None:
        self._xyz = xyz
        self._size = block_points
        self._corners = [_corners(xyz[start : start + block_points]) for start in range(0, len(xyz), block_points)]

    def __len__(self) -> int:
        return len(self._xyz)

    def in_image(self, camera: Camera, world_from_camera: Float[Array, "4 4"]) -> Iterator[_Landed]:
        """The results of `points_in_image`, block by block, in the order of the points."""
        camera_from_world = invert_pose(world_from_camera)
        for number, corners in enumerate(self._corners):
            if _outside(transform(camera_from_world, corners), camera):
                continue
            start = number * self._size
            idx, uv, z = points_in_image(self._xyz[start : start + self._size], camera, world_from_camera)
            if len(idx):
                yield idx + start, uv, z


def visible_in_frame(
    xyz: Float[Array, "n 3"] | PointBlocks, frame: Frame, config: VisibilityConfig, *, spacing: float
) -> VisiblePoints:
    """The points of a cloud that a frame of a scene sees; reads the frame's depth image.

    Args:
        xyz: positions relative to the world's origin; use `PointBlocks` for many frames.
        frame: camera, pose and, if available, depth.
        config: border, tolerance, missing depth.
        spacing: `median_spacing(xyz)`.
    """
    depth = DepthMap.read(frame.depth) if frame.depth is not None else None
    return visible_points(xyz, frame.camera, frame.world_from_camera, depth, config, spacing=spacing)


def visible_points(
    xyz: Float[Array, "n 3"] | PointBlocks,
    camera: Camera,
    world_from_camera: Float[Array, "4 4"],
    depth: DepthMap | None,
    config: VisibilityConfig,
    *,
    spacing: float,
) -> VisiblePoints:
    """The points that a camera sees.

    Args:
        xyz: positions, scene units; use `PointBlocks` for many cameras.
        camera: intrinsics of the photograph.
        world_from_camera: its pose.
        depth: measured depth, or None.
        config: border, tolerance, missing depth.
        spacing: distance between neighbouring points, scene units; the z-buffer's footprint.

    Returns:
        Seen points with ascending indices.
    """
    blocks = xyz if isinstance(xyz, PointBlocks) else PointBlocks(xyz)
    found: list[_Landed] = []
    sweep = _sweeps(blocks, camera, world_from_camera, hold=depth is None or config.missing_depth == "zbuffer")
    doubtful = depth is None
    if depth is not None:
        for idx, uv, z in sweep():
            kept, missing = _by_depth(uv, z, camera, depth, config)
            found.append((idx[kept], uv[kept], z[kept]))
            doubtful |= config.missing_depth == "zbuffer" and bool(missing.any())
    if doubtful:
        # A point may be occluded by points of any block, so the buffer is filled before it is tested.
        buffer = ZBuffer(camera, spacing, config.depth_tolerance)
        for _, uv, z in sweep():
            buffer.add(uv, z)
        found = []
        for idx, uv, z in sweep():
            kept, missing = _by_depth(uv, z, camera, depth, config)
            kept[missing] = buffer.passes(uv[missing], z[missing])
            found.append((idx[kept], uv[kept], z[kept]))
    if not found:
        return VisiblePoints(np.zeros(0, np.int64), np.zeros((0, 2)), np.zeros(0))
    return VisiblePoints(*(np.concatenate(part) for part in zip(*found, strict=True)))


def points_in_image(
    xyz: Float[Array, "n 3"], camera: Camera, world_from_camera: Float[Array, "4 4"]
) -> tuple[Int64[Array, " v"], Float64[Array, "v 2"], Float64[Array, " v"]]:
    """Points in front of a camera and inside its image, with pixels and depths; occlusion is not tested.

    Depths are computed first, and only points in front are projected: half of a room is behind the camera.
    """
    camera_from_world = invert_pose(world_from_camera)
    rotation, translation = camera_from_world[:3, :3], camera_from_world[:3, 3]
    xyz = np.asarray(xyz, dtype=np.float64)
    z = xyz @ rotation[2] + translation[2]
    idx = np.flatnonzero(z > 0)
    z = z[idx]
    with np.errstate(over="ignore"):  # a point in the lens plane: its pixel is far outside, as it should be
        uv = (xyz[idx] @ rotation[:2].T + translation[:2]) / z[:, None]
        uv = uv * (camera.fx, camera.fy) + (camera.cx, camera.cy)
    inside = ((uv >= 0) & (uv < (camera.width, camera.height))).all(axis=1)
    return idx[inside], uv[inside], z[inside]


class ZBuffer:
    """Tests whether a point is occluded by another one.

    Every point covers a square cell of the image about as wide as its projected spacing, f s / z, rounded up to a power of
    two: near points, which are far apart in the image, cover large cells, so that points behind a sparse surface do not show
    through, while far points keep fine cells.

    Args:
        camera: whose image it is.
        spacing: distance between neighbouring points, scene units.
        tolerance: share of depth by which a point may be behind the nearest one of its cell and still be visible.
    """

    def __init__(self, camera: Camera, spacing: float, tolerance: float) -> None:
        self._camera = camera
        self._width = SPLAT_SPACINGS * max(camera.fx, camera.fy) * spacing
        self._tolerance = tolerance
        self._nearest: dict[int, Float64[Array, " cells"]] = {}

    def add(self, uv: Float64[Array, "n 2"], z: Float64[Array, " n"]) -> None:
        """Add points: pixels inside the image, positive depths."""
        level = np.ceil(np.log2(np.clip(self._width / z, 1.0, 2.0**MAX_SPLAT_LEVEL))).astype(np.int8)
        for one in np.unique(level).tolist():
            members = level == one
            if one not in self._nearest:
                self._nearest[one] = np.full(((self._camera.height >> one) + 1) * self._columns(one), np.inf)
            np.minimum.at(self._nearest[one], self._cells(uv[members], one), z[members])

    def passes(self, uv: Float64[Array, "n 2"], z: Float64[Array, " n"]) -> Bool[Array, " n"]:
        """Whether none of the added points occludes these."""
        limit = np.full(len(z), np.inf)
        for one, nearest in self._nearest.items():
            slack = 1 + self._tolerance + SLOPE * (1 << one) / min(self._camera.fx, self._camera.fy)
            np.minimum(limit, nearest[self._cells(uv, one)] * slack, out=limit)
        return z <= limit

    def _columns(self, level: int) -> int:
        return (self._camera.width >> level) + 1

    def _cells(self, uv: Float64[Array, "n 2"], level: int) -> Int64[Array, " n"]:
        column, row = (uv.astype(np.int64) >> level).T  # pixels are not negative: truncating rounds down
        return row * self._columns(level) + column


def median_spacing(xyz: Float[Array, "n 3"]) -> float:
    """Median distance to the nearest other point, over an even sample of `SPACING_SAMPLE`; 0 below two points."""
    if len(xyz) < 2:
        return 0.0
    step = -(-len(xyz) // SPACING_SAMPLE)
    sample = torch.from_numpy(np.array(xyz[::step], dtype=np.float64))
    nearest = np.full((len(sample), 2), np.inf)  # the point itself, and its neighbour
    for start in range(0, len(xyz), SPACING_BLOCK):
        block = torch.from_numpy(np.array(xyz[start : start + SPACING_BLOCK], dtype=np.float64))
        found = knn(block, sample, 2).distances.numpy()
        nearest = np.sort(np.concatenate([nearest, found], axis=1), axis=1)[:, :2]
    return float(np.median(nearest[:, 1]))


def _sweeps(
    blocks: PointBlocks, camera: Camera, world_from_camera: Float[Array, "4 4"], *, hold: bool
) -> Callable[[], Iterable[_Landed]]:
    """A callable that returns the points in an image; cached if they are few, else recomputed."""
    if hold and len(blocks) <= HELD_POINTS:
        parts = list(blocks.in_image(camera, world_from_camera))
        return lambda: parts
    return lambda: blocks.in_image(camera, world_from_camera)


def _by_depth(
    uv: Float64[Array, "n 2"], z: Float64[Array, " n"], camera: Camera, depth: DepthMap | None, config: VisibilityConfig
) -> tuple[Bool[Array, " n"], Bool[Array, " n"]]:
    """Which points agree with the measured depth, and which have no measurement; both inside the border."""
    border = config.border * camera.width / REFERENCE_WIDTH
    inside = np.asarray(((uv >= border) & (uv < (camera.width - border, camera.height - border))).all(axis=1))
    if depth is None:
        return np.zeros_like(inside), inside
    measured = depth.at(uv, camera)
    agrees = np.asarray(np.abs(measured - z) <= config.depth_tolerance * measured)
    missing = np.asarray(measured == 0)
    return inside & agrees, inside & missing  # no measurement never agrees: |0 - z| <= 0 fails for z > 0


def _corners(xyz: Float[Array, "n 3"]) -> Float64[Array, "8 3"]:
    """Corners of the bounding box."""
    low, high = xyz.min(axis=0).astype(np.float64), xyz.max(axis=0).astype(np.float64)
    pick = np.array([[number >> axis & 1 for axis in range(3)] for number in range(8)], np.bool_)
    return np.where(pick, high, low)


def _outside(corners: Float64[Array, "8 3"], camera: Camera) -> bool:
    """Whether a box in camera coordinates is entirely behind the camera or outside one side of its image.

    u < 0 is f_x x + c_x z < 0 for z > 0, and so on: linear, so what holds for the corners holds for every point between.
    """
    x, y, z = corners.T
    sides = (
        z,
        camera.fx * x + camera.cx * z,
        (camera.width - camera.cx) * z - camera.fx * x,
        camera.fy * y + camera.cy * z,
        (camera.height - camera.cy) * z - camera.fy * y,
    )
    return any(bool((side < -CULL_MARGIN * (np.abs(side).max() + 1e-30)).all()) for side in sides)
