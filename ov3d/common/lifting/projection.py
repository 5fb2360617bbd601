"""Which points a posed photograph sees, and at which pixels.

A point is seen when it lies in front of the camera, lands far enough inside the image border, and nothing stands before it:
its depth agrees with the measured one, or, where the frame has no depth or none at that pixel, no other point of the cloud
covers it (a z-buffer).

Everything is computed in fp64: a world in UTM or with a far origin loses whole pixels in fp32. Points are taken in blocks, and
a block whose bounding box lies outside the view is left alone: fifty million points need little more memory than those seen.

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
"""Steepest surface, in depth over width, that must not hide itself within one footprint (2 = seen at 63 degrees)."""

MAX_SPLAT_LEVEL = 7
"""Footprints are at most 2^7 pixels wide: a point just before the lens must not cover the whole image."""

SPACING_SAMPLE = 2000
"""Points whose nearest neighbour is looked up to find a cloud's spacing."""

SPACING_BLOCK = 1 << 20
"""Points that are searched for neighbours at once."""

BLOCK_POINTS = 1 << 16
"""Points that are projected at once: their numbers stay in the processor's cache."""

HELD_POINTS = 1 << 21
"""Clouds of at most so many points are projected once for a z-buffer, larger ones twice instead of being held."""

CULL_MARGIN = 1e-6
"""A box is left out only when it lies outside by this share of its distance: rounding must not lose a point on the border."""

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
    """What a pixel without a measurement, in a frame that has depth, does: ask the z-buffer, or drop the point."""


@dataclass(frozen=True, slots=True, eq=False)
class VisiblePoints:
    """The points that one frame sees.

    Attributes:
        point_idx: indices into the cloud, ascending.
        uv: where they land, in pixels of the frame's camera.
        z: their depths along the optical axis, scene units.
    """

    point_idx: Int64[Array, " v"]
    uv: Float[Array, "v 2"]
    z: Float[Array, " v"]

    def __len__(self) -> int:
        return len(self.point_idx)


@dataclass(frozen=True, slots=True, eq=False)
class DepthMap:
    """Depth in memory with the camera it is for; 0 where nothing was measured.

    Attributes:
        values: scene units along the optical axis.
        camera: at the size of `values`; it shares its pose with the colour camera.
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
    """Positions in blocks with bounding boxes, for asking many cameras.

    Args:
        xyz: positions, scene units.
        block_points: points a block.
    """

    def __init__(self, xyz: Float[Array, "n 3"], block_points: int = BLOCK_POINTS) -> None:
        self._xyz = xyz
        self._size = block_points
        self._corners = [_corners(xyz[start : start + block_points]) for start in range(0, len(xyz), block_points)]

    def __len__(self) -> int:
        return len(self._xyz)

    def in_image(self, camera: Camera, world_from_camera: Float[Array, "4 4"]) -> Iterator[_Landed]:
        """What `points_in_image` finds, block by block, in the order of the points."""
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
        xyz: positions relative to the world's origin; `PointBlocks` where many frames are asked.
        frame: camera, pose and, if there is one, depth.
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
        xyz: positions, scene units; `PointBlocks` where many cameras are asked.
        camera: intrinsics of the photograph.
        world_from_camera: its pose.
        depth: what the camera measured, or none.
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
        # What stands before a point may lie in any block, so the buffer is filled before anything is asked of it.
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
    """Points in front of a camera and inside its image, with pixels and depths; nothing is tested for occlusion.

    The depths of all points come first, and only those in front are projected: half of a room is behind the camera.
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
    """Whether another point stands before a point.

    Every point covers a square cell of the image about as wide as its spacing looks from the camera, f s / z, rounded up to a
    power of two: near points, which lie far apart in the image, cover large cells, so that what is behind a sparse surface
    does not shine through it, while far points keep fine cells.

    Args:
        camera: whose image it is.
        spacing: distance between neighbouring points, scene units.
        tolerance: share by which a point may lie behind the nearest one of its cell and still be the same surface.
    """

    def __init__(self, camera: Camera, spacing: float, tolerance: float) -> None:
        self._camera = camera
        self._width = SPLAT_SPACINGS * max(camera.fx, camera.fy) * spacing
        self._tolerance = tolerance
        self._nearest: dict[int, Float64[Array, " cells"]] = {}

    def add(self, uv: Float64[Array, "n 2"], z: Float64[Array, " n"]) -> None:
        """Let points stand where they are: pixels inside the image, positive depths."""
        level = np.ceil(np.log2(np.clip(self._width / z, 1.0, 2.0**MAX_SPLAT_LEVEL))).astype(np.int8)
        for one in np.unique(level).tolist():
            members = level == one
            if one not in self._nearest:
                self._nearest[one] = np.full(((self._camera.height >> one) + 1) * self._columns(one), np.inf)
            np.minimum.at(self._nearest[one], self._cells(uv[members], one), z[members])

    def passes(self, uv: Float64[Array, "n 2"], z: Float64[Array, " n"]) -> Bool[Array, " n"]:
        """Whether no point that was added stands before these."""
        limit = np.full(len(z), np.inf)
        for one, nearest in self._nearest.items():
            slack = 1 + self._tolerance + SLOPE * (1 << one) / min(self._camera.fx, self._camera.fy)
            np.minimum(limit, nearest[self._cells(uv, one)] * slack, out=limit)
        return z <= limit

    def _columns(self, level: int) -> int:
        return (self._camera.width >> level) + 1

    def _cells(self, uv: Float64[Array, "n 2"], level: int) -> Int64[Array, " n"]:
        column, row = (uv.astype(np.int64) >> level).T  # pixels are not negative: cutting off is rounding down
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
    """Gives the points in an image as often as it is called; they are held where they are few and asked for again."""
    if hold and len(blocks) <= HELD_POINTS:
        parts = list(blocks.in_image(camera, world_from_camera))
        return lambda: parts
    return lambda: blocks.in_image(camera, world_from_camera)


def _by_depth(
    uv: Float64[Array, "n 2"], z: Float64[Array, " n"], camera: Camera, depth: DepthMap | None, config: VisibilityConfig
) -> tuple[Bool[Array, " n"], Bool[Array, " n"]]:
    """Which points the measured depth shows, and of which it says nothing; both inside the border."""
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
    """Whether a box in camera coordinates lies wholly behind the camera or beside one side of its image.

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
