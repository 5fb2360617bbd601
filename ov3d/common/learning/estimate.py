"""Estimates of disk, memory and time for training, before anything is written.

Points, pixels and views are counted, and encoding is timed on a few crops; the constants below were measured on one core and
should be right within a factor of two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ov3d.common.features.estimate import peak_memory
from ov3d.common.lifting.basis import SMALL_DIM, BasisConfig
from ov3d.common.lifting.lift import MIB, LiftConfig
from ov3d.common.scenes.cloud_from_depth import frames_with_depth
from ov3d.common.scenes.scene import Scene
from ov3d.common.teachers.teacher import Teacher

SHARE_SEEN = 0.8
"""Share of a cloud's points that views taken to cover it see."""
VIEWS_A_POINT = 0.25
"""Share of the views that see a point."""
RANK_SHARE = 0.1
"""Rank of a basis as a share of the width."""
PIXELS_A_POINT = 12
"""Depth pixels per voxel of a cloud made from depth, over all views."""
SECONDS_A_VALUE = 1.5e-8
"""Seconds to gather, add and code one number of one pixel's feature."""
SECONDS_A_POINT = 4e-6
"""Seconds for making a cloud, testing views and writing an index."""
INDEX_BYTES = 3 * 4 + 3 + 4


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimated cost of training on a scene.

    Attributes:
        scene: its name.
        images: images that must be encoded first.
        points: points of its cloud, or an estimate for the cloud made from depth; 0 without cloud and depth.
        bytes: disk space.
        peak_bytes: memory.
        seconds: total time.
    """

    scene: str
    images: int
    points: int
    bytes: int
    peak_bytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form."""
        return asdict(self)


def estimate_features(scene: Scene, teacher: Teacher | None) -> Estimate:
    """Estimate the cost of the missing features of a scene's images; zero without a teacher.

    Raises:
        DataError: the teacher's inputs do not fit the scene.
    """
    num_points = 0 if scene.cloud is None else len(scene.cloud)
    if teacher is None or not teacher.needs_images(scene):
        return Estimate(scene.name, 0, num_points, 0, 0, 0.0)
    plan = teacher.plan(scene)
    encoding: Mapping[str, Any] = teacher.estimate(plan)
    return Estimate(
        scene.name,
        plan.missing,
        num_points,
        int(encoding.get("bytes", 0)),
        int(encoding.get("peak_bytes", 0)),
        float(encoding.get("seconds", 0.0)),
    )


def estimate_fusing(scene: Scene, teacher: Teacher, lift: LiftConfig, basis: BasisConfig) -> Estimate:
    """Estimate the cost of fusing a scene, including its missing features.

    Raises:
        DataError: the scene has neither a cloud nor depth to make one from.
    """
    features = estimate_features(scene, teacher)
    num_points, dim, num_views = _num_points(scene), teacher.card.dim, len(scene.frames)
    rank = dim if dim <= SMALL_DIM or basis.energy >= 1 else max(int(RANK_SHARE * dim), 8)
    rows = int(SHARE_SEEN * num_points)
    lifted = rows * (2 * rank + 6) + 2 * 4 * rank * dim
    index = num_points * INDEX_BYTES + rows * 2 * rank
    pixels = int(num_points * num_views * VIEWS_A_POINT)
    held = min(pixels * 32, lift.memory_mib * MIB) + min(rows * dim * 4, lift.memory_mib * MIB)
    seconds = pixels * dim * SECONDS_A_VALUE + num_points * SECONDS_A_POINT * (1 + num_views / 10)
    return replace(
        features,
        points=num_points,
        bytes=features.bytes + lifted + index,
        peak_bytes=max(features.peak_bytes, peak_memory() + num_points * 15 + lifted + 2 * index + held),
        seconds=round(features.seconds + seconds, 1),
    )


def _num_points(scene: Scene) -> int:
    """Number of points of the scene's cloud, or an estimate for the cloud made from its depth."""
    if scene.cloud is not None:
        return len(scene.cloud)
    cameras = [frame.depth.camera for frame in frames_with_depth(scene) if frame.depth is not None]
    return sum(camera.width * camera.height for camera in cameras) // PIXELS_A_POINT
