"""Cameras and poses. This defines the conventions of the whole code base.

- Metres if the world is metric, radians, RGB in [0, 1] (8-bit at rest).
- OpenCV cameras: x right, y down, z forward. A pixel's centre is at +0.5, so pixel (row i, column j) covers
  u in [j, j + 1) and v in [i, i + 1).
- Matrices are named right to left: `world_from_camera` takes a point in the camera's frame to the world's.

Readers convert to these conventions; nothing else converts anything.

Symbols: u, v image coordinates in pixels; z depth along the optical axis; K the 3x3 intrinsic matrix (Hartley & Zisserman,
*Multiple View Geometry*, 2nd ed., eq. 6.4).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Float, Float64

ORTHONORMAL_TOLERANCE = 1e-2
"""Largest entry of |R R^T - 1| that passes as a rotation: poses are often written with four digits."""


@dataclass(frozen=True, slots=True)
class Camera:
    """An undistorted pinhole camera.

    Attributes:
        width, height: image size in pixels.
        fx, fy: focal lengths in pixels.
        cx, cy: principal point in pixels, with pixel centres at +0.5.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        values = (self.fx, self.fy, self.cx, self.cy)
        if not all(np.isfinite(values)) or self.fx <= 0 or self.fy <= 0 or self.width <= 0 or self.height <= 0:
            raise DataError(
                f"Camera with fx={self.fx}, fy={self.fy}, cx={self.cx}, cy={self.cy}, {self.width}x{self.height} "
                "cannot form an image.",
                "Focal lengths and sizes must be positive and finite.",
            )

    @property
    def matrix(self) -> Float64[Array, "3 3"]:
        """K, in pixels."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def resized(self, width: int, height: int) -> Camera:
        """The same camera for an image resized to `width` x `height`."""
        sx, sy = width / self.width, height / self.height
        return replace(
            self, width=width, height=height, fx=self.fx * sx, fy=self.fy * sy, cx=self.cx * sx, cy=self.cy * sy
        )

    def project(self, points: Float[Array, "n 3"]) -> tuple[Float64[Array, "n 2"], Float64[Array, " n"]]:
        """Project points of the camera's frame.

        Args:
            points: in the camera's frame, scene units.

        Returns:
            (u, v) in pixels, and z; if z <= 0 the pixel is meaningless (NaN at z = 0).
        """
        points = np.asarray(points, dtype=np.float64)
        z = points[:, 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            uv = points[:, :2] / z[:, None] * (self.fx, self.fy) + (self.cx, self.cy)
        return uv, z

    def unproject(self, uv: Float[Array, "n 2"], z: Float[Array, " n"]) -> Float64[Array, "n 3"]:
        """The inverse of `project`: points of the camera's frame from pixels and depths along the optical axis."""
        uv = np.asarray(uv, dtype=np.float64)
        z = np.asarray(z, dtype=np.float64)
        return np.column_stack([(uv - (self.cx, self.cy)) / (self.fx, self.fy) * z[:, None], z])

    def pixel_centres(self, step: int = 1) -> Float64[Array, "n 2"]:
        """(u, v) of every `step`-th pixel's centre, row by row."""
        v, u = np.mgrid[0 : self.height : step, 0 : self.width : step].reshape(2, -1) + 0.5
        return np.column_stack([u, v])


def transform(matrix: Float[Array, "4 4"], points: Float[Array, "n 3"]) -> Float64[Array, "n 3"]:
    """Apply a 4x4 rigid or affine map to points, in fp64."""
    matrix = np.asarray(matrix, dtype=np.float64)
    return np.asarray(points, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def invert_pose(pose: Float[Array, "4 4"]) -> Float64[Array, "4 4"]:
    """The inverse of a rigid 4x4 pose (transpose and rotate back), better conditioned than a general inverse."""
    inverse = np.eye(4)
    inverse[:3, :3] = np.asarray(pose, dtype=np.float64)[:3, :3].T
    inverse[:3, 3] = -inverse[:3, :3] @ pose[:3, 3]
    return inverse


def pose_fault(pose: Float[Array, "h w"]) -> str:
    """What is wrong with a 4x4 pose, in words; empty if it is valid.

    Finite entries, last row 0 0 0 1, an orthonormal rotation (to `ORTHONORMAL_TOLERANCE`) that does not reflect.
    """
    if pose.shape != (4, 4):
        return f"it has shape {'x'.join(map(str, pose.shape))}, not 4x4"
    if not np.isfinite(pose).all():
        return "it has entries that are not finite"
    if not np.allclose(pose[3], (0, 0, 0, 1), atol=1e-6):
        return f"its last row is {pose[3].tolist()}, not 0 0 0 1"
    rotation = np.asarray(pose[:3, :3], dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        deviation = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    if not deviation <= ORTHONORMAL_TOLERANCE:  # NaN after overflow
        return "its rotation is not orthonormal (it contains a scale or a shear)"
    if np.linalg.det(rotation) < 0:
        return "its rotation reflects (one axis is flipped)"
    return ""


def orthonormalised(pose: Float[Array, "4 4"]) -> Float64[Array, "4 4"]:
    """The pose with its rotation replaced by the nearest exact one (polar decomposition by SVD): files round poses."""
    left, _, right = np.linalg.svd(np.asarray(pose, dtype=np.float64)[:3, :3])
    clean = np.array(pose, dtype=np.float64)
    clean[:3, :3] = left @ right
    return clean


def look_at(
    eye: Float[Array, " 3"], target: Float[Array, " 3"], up: tuple[float, float, float] = (0.0, 0.0, 1.0)
) -> Float64[Array, "4 4"]:
    """`world_from_camera` of a camera at `eye` looking at `target`, its y axis pointing away from `up`."""
    eye, target = np.asarray(eye, dtype=np.float64), np.asarray(target, dtype=np.float64)
    forward = target - eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, np.asarray(up, dtype=np.float64))
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.column_stack([right, np.cross(forward, right), forward])
    pose[:3, 3] = eye
    return pose
