"""Do the photographs and points of a scene fit together? If not, why?

A wrong pose convention or depth scale raises no error: every prompt just highlights the same noise. So we measure the share of
points that any frame sees, and if it is close to zero we try undoing the usual mistakes to find one that makes the points
visible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Float, Float64
from ov3d.common.lifting.projection import (
    DepthMap,
    VisibilityConfig,
    median_spacing,
    points_in_image,
    visible_points,
)
from ov3d.common.scenes.cameras import invert_pose
from ov3d.common.scenes.scene import Frame, PointCloud

MIN_SHARE_SEEN = 0.02
"""Below this share of seen points, photographs and points are considered mismatched."""

MAX_POINTS = 10_000
MAX_FRAMES = 12
"""A check uses an even sample, which takes seconds on any scene."""

_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
_PoseChange = Callable[[Any], Any]
"""Maps a 4x4 pose to another; untyped because an alias would evaluate shapes, which exist for type checkers only."""


@dataclass(frozen=True, slots=True)
class ViewStatistics:
    """How well photographs and points fit.

    Attributes:
        num_points: points checked.
        num_frames: frames checked.
        share_seen: share of the points that at least one frame sees; in frames with depth, only where it was measured.
        share_seen_twice: share that at least two frames see.
        median_depth_error: median |D - z| over points in an image with a measurement at their pixel, scene units; NaN without
            measurements. Occluded points count, so a few per cent of the depth is normal in a cluttered room.
        median_depth: median z of the same points; NaN without measurements.
    """

    num_points: int
    num_frames: int
    share_seen: float
    share_seen_twice: float
    median_depth_error: float
    median_depth: float


@dataclass(frozen=True, slots=True)
class _Mistake:
    cause: str
    hint: str
    pose: _PoseChange
    depth_scale: float = 1.0


def _scaled(factor: float) -> _PoseChange:
    def change(pose: Float[Array, "4 4"]) -> Float64[Array, "4 4"]:
        moved = np.array(pose, np.float64)
        moved[:3, 3] *= factor
        return moved

    return change


def _as_is(pose: Float[Array, "4 4"]) -> Float64[Array, "4 4"]:
    return np.asarray(pose, np.float64)


_MISTAKES = (
    _Mistake("the poses are world-to-camera", "Invert them: ov3d expects camera-to-world.", invert_pose),
    _Mistake(
        "the camera axes are OpenGL's (y up, z backward)",
        "Negate the second and third columns of each rotation.",
        lambda pose: pose @ _OPENGL,
    ),
    _Mistake(
        "the poses are world-to-camera with OpenGL axes",
        "Negate the second and third rows, then invert.",
        lambda pose: invert_pose(_OPENGL @ pose),
    ),
    _Mistake("depth values are 1000 times too large", "Use scale 0.001 for millimetres.", _as_is, 1e-3),
    _Mistake("depth values are 1000 times too small", "Use scale 1 for metres, not 0.001.", _as_is, 1e3),
    _Mistake("camera positions are in millimetres, points in metres", "Divide them by 1000.", _scaled(1e-3)),
    _Mistake("camera positions are in metres, points in millimetres", "Multiply them by 1000.", _scaled(1e3)),
)


def view_statistics(
    cloud: PointCloud, frames: Sequence[Frame], config: VisibilityConfig | None = None
) -> ViewStatistics:
    """Measure on an even sample how well the frames of a scene see its points."""
    return _Sample(cloud, frames, config or VisibilityConfig()).statistics(_as_is)


def check_views(
    scene_name: str, cloud: PointCloud, frames: Sequence[Frame], config: VisibilityConfig | None = None
) -> ViewStatistics:
    """Measure, and refuse a scene whose frames see almost none of its points.

    Raises:
        DataError: under 2 % of the points are seen; states the share, the median |D - z| and the likely cause.
    """
    sample = _Sample(cloud, frames, config or VisibilityConfig())
    found = sample.statistics(_as_is)
    if found.share_seen >= MIN_SHARE_SEEN:
        return found
    error = "" if np.isnan(found.median_depth_error) else f", median |depth - z| {found.median_depth_error:.3g}"
    mistake = sample.likely_mistake(found.share_seen)
    if mistake is None:
        cause, hint = (
            "no common mistake explains it",
            "Check that the poses belong to this cloud. See: ov3d doctor SCENE",
        )
    else:
        cause, hint = f"likely cause: {mistake.cause}", mistake.hint
    raise DataError(
        f"Only {found.share_seen:.1%} of the points of {scene_name} are seen by its {len(frames)} frames{error}; {cause}.",
        hint,
    )


class _Sample:
    """Some points and frames of a scene, with the depth images in memory."""

    def __init__(self, cloud: PointCloud, frames: Sequence[Frame], config: VisibilityConfig) -> None:
        self.xyz = cloud.xyz[:: max(-(-len(cloud) // MAX_POINTS), 1)].astype(np.float64)
        chosen = frames[:: max(-(-len(frames) // MAX_FRAMES), 1)]
        self.frames = [(frame, DepthMap.read(frame.depth) if frame.depth is not None else None) for frame in chosen]
        # A wrong depth scale shows only in measured pixels: the z-buffer must not fill in the others.
        self.config = config.model_copy(update={"missing_depth": "drop"})
        self.spacing = median_spacing(self.xyz)

    def statistics(self, change: _PoseChange, depth_scale: float = 1.0) -> ViewStatistics:
        """The statistics if every pose were changed and every depth scaled."""
        counts = np.zeros(len(self.xyz), np.int64)
        errors, depths = [np.empty(0)], [np.empty(0)]
        for frame, depth in self.frames:
            pose = change(frame.world_from_camera)
            if depth is not None:
                depth = replace(depth, values=depth.values * np.float32(depth_scale))
                _, uv, z = points_in_image(self.xyz, frame.camera, pose)
                measured = depth.at(uv, frame.camera)
                errors.append(np.abs(measured - z)[measured > 0])
                depths.append(z[measured > 0])
            seen = visible_points(self.xyz, frame.camera, pose, depth, self.config, spacing=self.spacing)
            counts[seen.point_idx] += 1
        error, z = np.concatenate(errors), np.concatenate(depths)
        return ViewStatistics(
            num_points=len(self.xyz),
            num_frames=len(self.frames),
            share_seen=float((counts > 0).mean()) if len(counts) else 0.0,
            share_seen_twice=float((counts > 1).mean()) if len(counts) else 0.0,
            median_depth_error=float(np.median(error)) if error.size else float("nan"),
            median_depth=float(np.median(z)) if z.size else float("nan"),
        )

    def likely_mistake(self, share: float) -> _Mistake | None:
        """The usual mistake whose correction makes the most points visible, if it makes many visible."""
        if not self.frames:
            return None
        shares = [self.statistics(one.pose, one.depth_scale).share_seen for one in _MISTAKES]
        best = int(np.argmax(shares))
        return _MISTAKES[best] if shares[best] >= max(5 * share, 5 * MIN_SHARE_SEEN) else None
