"""A camera path around a scene, near where its photographs were taken: unphotographed parts look bad.

Each frame's position is a weighted mean of the photographs' positions, its target a weighted mean of their targets; weights
depend on how close their viewing direction is to the frame's. Those directions distinguish three kinds of capture:

- all around (looking inward or outward): the frame's direction turns once around the up axis;
- an arc: it follows the arc and returns;
- nearly parallel (a desk, a shelf): the camera follows an ellipse in the photographs' own plane, looking at one place.

A cloud without photographs is viewed from a ring outside it. Every path is closed, so that an animation can loop.

Symbols: v photographs, n frames of the path, p points.
"""

from __future__ import annotations

import numpy as np

from ov3d.common.asking.relevancy import percentile
from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Float, Float64
from ov3d.common.scenes.cameras import Camera, invert_pose, look_at, transform

AGREEING = np.deg2rad(25.0)
"""Viewing directions within this of their mean count as one direction."""
GAP = np.deg2rad(100.0)
"""Directions with a larger gap than this form an arc, not a full circle."""
KERNEL = np.deg2rad(20.0)
"""Standard deviation of the weights, in the angle between viewing directions."""
SWAY = 1.2
"""Half axes of the ellipse, in standard deviations of the photographs' positions: it stays inside their spread."""
MIN_SWAY = 0.06
"""Least half axis as a share of the distance to the target, so that parallax shows even from a single position."""
RING_DISTANCE = 1.3
RING_HEIGHT = 0.6
"""Radius and height of the ring around a cloud, in half lengths of its diagonal."""
SAMPLE = 20_000
"""Number of points sampled to find the photographs' targets."""


def orbit_path(
    world_from_camera: Float[Array, "v 4 4"],
    targets: Float[Array, "v 3"],
    up: tuple[float, float, float],
    num_frames: int,
) -> Float64[Array, "n 4 4"]:
    """Poses along a closed path among photographs.

    Args:
        world_from_camera: their poses, at least one.
        targets: the target of each, see `looked_at`.
        up: unit vector.
        num_frames: n.

    Raises:
        DataError: no photographs were given.
    """
    if not len(world_from_camera):
        raise DataError("A path among photographs needs at least one.")
    poses, targets = np.asarray(world_from_camera, np.float64), np.asarray(targets, np.float64)
    eyes, ahead = poses[:, :3, 3], poses[:, :3, 2]
    phase = 2 * np.pi * np.arange(num_frames) / num_frames
    mean = ahead.mean(axis=0)
    spread = np.arccos(np.clip(ahead @ mean / max(float(np.linalg.norm(mean)), 1e-9), -1, 1)).max()
    if spread <= AGREEING:
        return _swaying(poses, targets, phase)
    azimuth = _azimuths(ahead, up)
    begin, length = _covered(azimuth)
    turns = begin + (phase if length >= 2 * np.pi - GAP else length * (1 - np.cos(phase)) / 2)
    away = np.angle(np.exp(1j * (turns[:, None] - azimuth)))
    # If no photograph looks that way the nearest ones count: the largest weight is always 1.
    logits = -(away**2) / (2 * KERNEL**2)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return _looking(weights @ eyes, weights @ targets, up, ahead.mean(axis=0))


def ring_path(xyz: Float[Array, "p 3"], up: tuple[float, float, float], num_frames: int) -> Float64[Array, "n 4 4"]:
    """Poses on a ring above and outside a cloud, looking at its middle.

    Raises:
        DataError: the cloud has no finite point.
    """
    points = xyz[np.isfinite(xyz).all(axis=1)].astype(np.float64)
    if not len(points):
        raise DataError("An orbit needs at least one finite point.")
    low, high = (np.array([percentile(axis, q) for axis in points.T]) for q in (2.0, 98.0))
    centre, half = (low + high) / 2, max(float(np.linalg.norm(high - low)) / 2, 1e-6)
    upward = np.asarray(up, np.float64)
    first, second = _flat_axes(upward)
    phase = 2 * np.pi * np.arange(num_frames)[:, None] / num_frames
    ring = np.cos(phase) * first + np.sin(phase) * second
    eyes = centre + half * (RING_DISTANCE * ring + RING_HEIGHT * upward)
    return _looking(eyes, np.broadcast_to(centre, eyes.shape), up, first)


def looked_at(
    cameras: list[Camera], world_from_camera: Float[Array, "v 4 4"], xyz: Float[Array, "p 3"]
) -> Float64[Array, "v 3"]:
    """Each photograph's target: the point on its axis at the median depth of the points it contains.

    A photograph without points uses the median of the others; if all lack points, the depth is 1 (arbitrary).
    """
    points = xyz[np.isfinite(xyz).all(axis=1)]
    points = points[:: max(-(-len(points) // SAMPLE), 1)]
    depths = np.full(len(cameras), np.nan)
    for idx, (camera, pose) in enumerate(zip(cameras, world_from_camera, strict=True)):
        uv, z = camera.project(transform(invert_pose(pose), points))
        size = (camera.width, camera.height)
        inside = (
            (z > 0)
            & (np.nan_to_num(uv, nan=-1.0) >= 0).all(axis=1)
            & (np.nan_to_num(uv, nan=np.inf) < size).all(axis=1)
        )
        if inside.any():
            depths[idx] = percentile(z[inside], 50.0)
    known = depths[np.isfinite(depths)]
    depths = np.where(np.isfinite(depths), depths, np.median(known) if len(known) else 1.0)
    poses = np.asarray(world_from_camera, np.float64)
    return np.asarray(poses[:, :3, 3] + depths[:, None] * poses[:, :3, 2])


def _swaying(poses: Float64[Array, "v 4 4"], targets: Float64[Array, "v 3"], phase: Float64[Array, " n"]) -> Array:
    """An ellipse in the plane of photographs that look the same way."""
    eyes, target = poses[:, :3, 3], targets.mean(axis=0)
    eye, ahead = eyes.mean(axis=0), poses[:, :3, 2].mean(axis=0)
    down = poses[:, :3, 1].mean(axis=0)
    right = np.cross(down, ahead)
    right /= np.linalg.norm(right)
    down = np.cross(ahead, right)
    down /= np.linalg.norm(down)
    least = MIN_SWAY * float(np.linalg.norm(target - eye))
    half = [max(SWAY * float(((eyes - eye) @ axis).std()), least) for axis in (right, down)]
    # The camera is upright like the photographs, which may differ from the world's up.
    stands = eye + np.sin(phase)[:, None] * half[0] * right + np.cos(phase)[:, None] * half[1] * down
    up = tuple(float(value) for value in -down)
    return _looking(stands, np.broadcast_to(target, stands.shape), up, ahead)  # type: ignore[arg-type]


def _azimuths(ahead: Float64[Array, "v 3"], up: tuple[float, float, float]) -> Float64[Array, " v"]:
    first, second = _flat_axes(np.asarray(up, np.float64))
    return np.arctan2(ahead @ second, ahead @ first)


def _covered(azimuth: Float64[Array, " v"]) -> tuple[float, float]:
    """Start and length of the shortest arc that contains all directions."""
    ordered = np.sort(azimuth)
    gaps = np.diff(ordered, append=ordered[0] + 2 * np.pi)
    widest = int(gaps.argmax())
    return float(ordered[(widest + 1) % len(ordered)]), float(2 * np.pi - gaps[widest])


def _flat_axes(up: Float64[Array, " 3"]) -> tuple[Float64[Array, " 3"], Float64[Array, " 3"]]:
    """Two unit vectors that span the ground."""
    guide = np.eye(3)[int(np.abs(up).argmin())]
    first = guide - (guide @ up) * up
    first /= np.linalg.norm(first)
    return first, np.cross(up, first)


def _looking(
    eyes: Float64[Array, "n 3"],
    targets: Float64[Array, "n 3"],
    up: tuple[float, float, float],
    ahead: Float64[Array, " 3"],
) -> Float64[Array, "n 4 4"]:
    """Poses at `eyes` that look at `targets`; along `ahead` if eye and target coincide."""
    poses = []
    for eye, target in zip(eyes, targets, strict=True):
        aim = target if np.linalg.norm(target - eye) > 1e-9 else eye + ahead
        forward = (aim - eye) / np.linalg.norm(aim - eye)
        # Looking straight up or down there is no horizon: any other axis works.
        steep = abs(float(forward @ np.asarray(up))) > 0.999
        poses.append(look_at(eye, aim, tuple(_flat_axes(np.asarray(up, np.float64))[0].tolist()) if steep else up))
    return np.stack(poses)
