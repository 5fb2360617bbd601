"""Do the edges of a sweep fall onto the edges of a photograph, and would they fit better if the camera were turned?

Where the distance or the brightness of returns jumps between neighbours along a ring of the LiDAR, a photograph usually has an
edge across the ring's direction. The score of a rotation is the mean edge strength at the pixels of such points; around the
true rotation it has a peak a degree or two wide. After Levinson and Thrun, *Automatic Online Calibration of Cameras and
Lasers*, RSS 2013, sections III and IV: nearer points of jumps in distance, and the score of the given rotation against
those of rotations nearby. Jumps in intensity (Pandey et al., *Automatic Targetless Extrinsic Calibration of a 3D Lidar and
Camera by Maximizing Mutual Information*, AAAI 2012, compare intensities) add markings and signs: an open street has few posts.
Strengths are ranks within the image relative to their surroundings, so that a leafy tree does not attract points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ov3d.common.base.shapes import Array, Float, Float32, Float64, Int64
from ov3d.common.scenes.cameras import Camera, invert_pose, transform
from ov3d.common.scenes.scene import Frame, PointCloud
from ov3d.common.sparse.neighbors import knn

RING_STRETCH = 8.0
"""Directions across the rings count this many times more than along them: the nearest points are then on the same ring."""
NUM_NEIGHBOURS = 5
MAX_GAP = np.radians(1.2)
"""Angle to the farthest neighbour: the coarsest common sensor fires every 0.4 degrees."""
RANGES = (3.0, 60.0)
"""Metres from the LiDAR: nearer there is parallax, and farther one step between firings is wider than an edge."""
JUMP = (0.5, 0.05)
"""A jump in distance is more than both: metres, and a share of the distance."""
SAME_SURFACE = (0.3, 0.02)
"""Neighbours that are nearer than the larger of both (metres, share of the distance) lie on one surface."""
INTENSITY_SHARE = 0.1
"""Of the points amid one surface, the share with the strongest jumps in intensity."""

SIZE = 640
"""Long side of the image in which edges are looked for, pixels."""
SURROUNDINGS = 61
"""Side of the square around a pixel that its strength is compared with, pixels: about six degrees."""
NEAR, MIN_POINTS = 1.0, 50
TURNS = (-8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
"""Degrees by which the camera is turned about each of its axes."""
AXES = ("x axis (pitch)", "y axis (yaw)", "z axis (roll)")


@dataclass(frozen=True, slots=True)
class Fit:
    """How well one rotation fits.

    Attributes:
        axis: 0, 1 or 2: the camera's x (right), y (down) or z (ahead).
        degrees: how far the camera is turned about it from the given rotation.
        score: mean edge strength.
        error: its standard error.
        num_points: points in the image.
    """

    axis: int
    degrees: float
    score: float
    error: float
    num_points: int

    def surplus(self, other: Fit) -> float:
        """By how many standard errors it is better than another."""
        return (self.score - other.score) / max(float(np.hypot(self.error, other.error)), 1e-9)


def edge_points(cloud: PointCloud) -> Int64[Array, " e"]:
    """Rows of the points of a sweep at which distance or intensity jumps along a ring; of two, the nearer or darker one."""
    import torch

    if len(cloud) <= NUM_NEIGHBOURS:
        return np.zeros(0, np.int64)
    xyz = cloud.xyz.astype(np.float64)
    distance = np.linalg.norm(xyz, axis=1)
    elevation = np.arcsin(xyz[:, 2] / np.maximum(distance, 1e-9))
    along = np.arctan2(xyz[:, 1], xyz[:, 0]) * np.cos(elevation)
    directions = torch.from_numpy(np.column_stack([along, RING_STRETCH * elevation, np.zeros(len(xyz))]))
    found = knn(directions, directions, NUM_NEIGHBOURS)
    near = found.distances.numpy() <= MAX_GAP
    neighbours = np.where(near, found.indices.numpy(), np.arange(len(xyz))[:, None])
    steps = distance[neighbours] - distance[:, None]
    considered = (distance > RANGES[0]) & (distance < RANGES[1])
    jumps = steps.max(axis=1) > np.maximum(JUMP[0], JUMP[1] * distance)
    if cloud.intensity is not None:
        rises = (cloud.intensity[neighbours] - cloud.intensity[:, None]).max(axis=1)
        flat = (np.abs(steps) < np.maximum(SAME_SURFACE[0], SAME_SURFACE[1] * distance)[:, None]).all(axis=1)
        if (considered & flat).any():
            jumps |= flat & (rises > np.quantile(rises[considered & flat], 1 - INTENSITY_SHARE))
    return np.flatnonzero(considered & jumps)


@dataclass(frozen=True, slots=True, eq=False)
class EdgeImage:
    """Edges of a photograph across the rings of a LiDAR, which run from side to side.

    Attributes:
        camera: the photograph's, at the size of `strength`.
        strength: in standard deviations above the surroundings of each pixel.
    """

    camera: Camera
    strength: Float32[Array, "h w"]

    @classmethod
    def of(cls, frame: Frame) -> EdgeImage:
        """Read a photograph.

        Raises:
            DataError: it cannot be read.
        """
        from PIL import Image
        from scipy import ndimage

        scale = SIZE / max(frame.camera.width, frame.camera.height)
        camera = frame.camera.resized(
            max(1, round(scale * frame.camera.width)), max(1, round(scale * frame.camera.height))
        )
        grey = Image.fromarray(frame.load_image()).convert("L")
        resample = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
        values = np.asarray(grey.resize((camera.width, camera.height), resample), np.float32)
        smooth = ndimage.gaussian_filter(values, 1.0)
        across = ndimage.gaussian_filter(np.abs(ndimage.sobel(smooth, axis=1)), 1.0)
        rank = np.empty(across.size, np.float32)
        rank[np.argsort(across, axis=None)] = np.arange(across.size, dtype=np.float32) / across.size
        strength = ndimage.maximum_filter(-np.log1p(-0.999 * rank.reshape(across.shape)), 3)
        excess = strength - ndimage.uniform_filter(strength, SURROUNDINGS)
        spread = np.sqrt(np.maximum(ndimage.uniform_filter(excess**2, SURROUNDINGS), 0))
        return cls(camera, excess / (spread + np.float32(0.2)))

    def fit(self, xyz: Float[Array, "e 3"], camera_from_sweep: Float64[Array, "4 4"], axis: int, degrees: float) -> Fit:
        """The score of the camera turned by some degrees about one of its axes."""
        turned = turn(axis, degrees) @ camera_from_sweep
        uv, z = self.camera.project(transform(turned, xyz))
        inside = (z > NEAR) & (uv >= 0).all(axis=1) & (uv < (self.camera.width, self.camera.height)).all(axis=1)
        column, row = uv[inside].astype(np.int64).T
        values = self.strength[row, column].astype(np.float64)
        if len(values) < MIN_POINTS:
            return Fit(axis, degrees, 0.0, float("inf"), len(values))
        return Fit(axis, degrees, float(values.mean()), float(values.std() / np.sqrt(len(values))), len(values))


def fits(frame: Frame, xyz: Float[Array, "e 3"]) -> tuple[Fit, Fit]:
    """How well the given rotation of a camera fits, and the best of those nearby.

    Args:
        frame: camera, pose and photograph.
        xyz: `edge_points` of the sweep.

    Raises:
        DataError: the photograph cannot be read.
    """
    edges, camera_from_sweep = EdgeImage.of(frame), invert_pose(frame.world_from_camera)
    given = edges.fit(xyz, camera_from_sweep, 0, 0.0)
    others = [edges.fit(xyz, camera_from_sweep, axis, degrees) for axis in range(3) for degrees in TURNS]
    return given, max(others, key=lambda one: one.score)


def turn(axis: int, degrees: float) -> Float64[Array, "4 4"]:
    """A rotation about a coordinate axis; right-handed."""
    angle = np.radians(degrees)
    one, two = (axis + 1) % 3, (axis + 2) % 3
    pose = np.eye(4)
    pose[one, one] = pose[two, two] = np.cos(angle)
    pose[one, two], pose[two, one] = -np.sin(angle), np.sin(angle)
    return pose
