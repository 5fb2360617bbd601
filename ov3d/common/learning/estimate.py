"""What training on scenes will take before anything is made: features of photographs, lifted features, an index.

Points, pixels and views are counted, encoding is timed on a few crops; the constants below were measured on one core and are
meant to be right within a factor of two.
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
"""Of a cloud's points, by views that were taken to see it."""
VIEWS_A_POINT = 0.25
"""Share of the views that see a point."""
RANK_SHARE = 0.1
"""Rank of a basis over the width."""
PIXELS_A_POINT = 12
"""Depth pixels that fall into one voxel of a cloud made from depth, over all views."""
SECONDS_A_VALUE = 1.5e-8
"""Gathering, adding and coding one number of one pixel's feature."""
SECONDS_A_POINT = 4e-6
"""Making a cloud, testing views, writing an index."""
INDEX_BYTES = 3 * 4 + 3 + 4


@dataclass(frozen=True, slots=True)
class Estimate:
    """About what training on a scene takes.

    Attributes:
        scene: its name.
        images: that must be encoded first.
        points: of its cloud, or about of the one that will be made; 0 where there is neither.
        bytes: on the disk.
        peak_bytes: of memory.
        seconds: of everything.
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
    """About what the missing features of a scene's images take; nothing where no teacher looks at them.

    Raises:
        DataError: what the teacher was given does not fit the scene.
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
    """About what fusing a scene takes, its missing features included.

    Raises:
        DataError: there is neither a cloud nor depth to make one from.
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
    """Of the scene's cloud, or about of the one that its depth would make."""
    if scene.cloud is not None:
        return len(scene.cloud)
    cameras = [frame.depth.camera for frame in frames_with_depth(scene) if frame.depth is not None]
    return sum(camera.width * camera.height for camera in cameras) // PIXELS_A_POINT
