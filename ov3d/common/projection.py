"""Which points a posed photograph sees, and at which pixels.

A point is seen when it lies in front of the camera, lands far enough inside the image border, and nothing stands before it:
its depth agrees with the measured one, or, where the frame has no depth or none at that pixel, no other point of the cloud
covers it (a z-buffer).

Everything is computed in fp64: a world in UTM or with a far origin loses whole pixels in fp32.

Symbols: z depth of a point along the optical axis; D(u, v) measured depth at a pixel; s spacing of the cloud; f focal length.
Source: Xu et al., *3D Weakly Supervised Semantic Segmentation with 2D Vision-Language Guidance*, ECCV 2024, section 3 (border
and depth test); the splatted z-buffer is the usual point rendering with a footprint of one point spacing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from ov3d.common.cameras import Camera, invert_pose
from ov3d.common.config import Config
from ov3d.common.scene import DepthImage, Frame
from ov3d.common.shapes import Array, Bool, Float, Float32, Float64, Int64

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
    uv: Float64[Array, "v 2"]
    z: Float64[Array, " v"]

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


def visible_in_frame(
    xyz: Float[Array, "n 3"], frame: Frame, config: VisibilityConfig, *, spacing: float
) -> VisiblePoints:
    """The points of a cloud that a frame of a scene sees; reads the frame's depth image.

    Args:
        xyz: positions relative to the world's origin. Pass fp64 when many frames are asked: it saves a conversion each.
        frame: camera, pose and, if there is one, depth.
        config: border, tolerance, missing depth.
        spacing: `median_spacing(xyz)`.
    """
    depth = DepthMap.read(frame.depth) if frame.depth is not None else None
    return visible_points(xyz, frame.camera, frame.world_from_camera, depth, config, spacing=spacing)


def visible_points(
    xyz: Float[Array, "n 3"],
    camera: Camera,
    world_from_camera: Float[Array, "4 4"],
    depth: DepthMap | None,
    config: VisibilityConfig,
    *,
    spacing: float,
) -> VisiblePoints:
    """The points that a camera sees.

    Args:
        xyz: positions, scene units.
        camera: intrinsics of the photograph.
        world_from_camera: its pose.
        depth: what the camera measured, or none.
        config: border, tolerance, missing depth.
        spacing: distance between neighbouring points, scene units; the z-buffer's footprint.

    Returns:
        Seen points with ascending indices.
    """
    idx, uv, z = points_in_image(xyz, camera, world_from_camera)
    border = config.border * camera.width / REFERENCE_WIDTH
    kept = ((uv >= border) & (uv < (camera.width - border, camera.height - border))).all(axis=1)
    if depth is None:
        kept &= unoccluded(uv, z, camera, spacing, config.depth_tolerance)
        return VisiblePoints(idx[kept], uv[kept], z[kept])
    measured = depth.at(uv, camera)
    agrees = np.abs(measured - z) <= config.depth_tolerance * measured
    missing = kept & (measured == 0)
    if config.missing_depth == "zbuffer" and missing.any():
        agrees |= missing & unoccluded(uv, z, camera, spacing, config.depth_tolerance)
    kept &= agrees  # a pixel without a measurement never agrees by itself: |0 - z| <= 0 fails for z > 0
    return VisiblePoints(idx[kept], uv[kept], z[kept])


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


def unoccluded(
    uv: Float64[Array, "n 2"], z: Float64[Array, " n"], camera: Camera, spacing: float, tolerance: float
) -> Bool[Array, " n"]:
    """Whether no other point stands before a point.

    Every point covers a square cell of the image about as wide as its spacing looks from the camera, f s / z, rounded up to a
    power of two: near points, which lie far apart in the image, cover large cells, so that what is behind a sparse surface
    does not shine through it, while far points keep fine cells.

    Args:
        uv: pixels, inside the image.
        z: depths, positive.
        camera: whose image it is.
        spacing: distance between neighbouring points, scene units.
        tolerance: share by which a point may lie behind the nearest one of its cell and still be the same surface.
    """
    footprint = SPLAT_SPACINGS * max(camera.fx, camera.fy) * spacing / z
    level = np.ceil(np.log2(np.clip(footprint, 1.0, 2.0**MAX_SPLAT_LEVEL))).astype(np.int64)
    column, row = np.floor(uv).astype(np.int64).T
    limit = np.full(len(z), np.inf)
    for one in np.unique(level):
        num_columns = (camera.width >> one) + 1
        cell = (row >> one) * num_columns + (column >> one)
        buffer = np.full(((camera.height >> one) + 1) * num_columns, np.inf)
        members = level == one
        np.minimum.at(buffer, cell[members], z[members])
        slack = 1 + tolerance + SLOPE * (1 << int(one)) / min(camera.fx, camera.fy)
        np.minimum(limit, buffer[cell] * slack, out=limit)
    return z <= limit


def median_spacing(xyz: Float[Array, "n 3"]) -> float:
    """Median distance to the nearest other point, over an even sample of `SPACING_SAMPLE`; 0 below two points."""
    from scipy.spatial import cKDTree

    if len(xyz) < 2:
        return 0.0
    points = np.asarray(xyz, dtype=np.float64)
    sample = points[:: -(-len(points) // SPACING_SAMPLE)]
    distance, _ = cKDTree(points).query(sample, k=2)
    return float(np.median(distance[:, 1]))
