"""Which space suits a capture, from its poses and known geometry, with the reason to report to the user.

- Measured geometry (depth, or a cloud) about as far away as the cameras look: a box around it.
- All cameras look the same way and the nearest depth is known (LLFF captures): forward.
- Synthetic objects (Blender's layout): a box around the point that all look at.
- Everything else, or a cloud that extends far out: contraction around the point that the cameras look at, or surround.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.shapes import Array, Float32, Float64
from ov3d.common.scenes.cameras import look_at, pose_fault, transform
from ov3d.common.scenes.scene import Frame, Scene
from ov3d.nerf.spaces import Space, SpaceKind

PADDING = 0.05
"""A box exceeds the measured extent by this share of its longest side, on each side."""
PERCENTILES = (0.2, 99.8)
"""Measured points beyond these percentiles, per axis, are outliers."""
UNBOUNDED_RATIO = 6.0
"""A cloud whose far end (98th percentile) is this many times its median distance from the cameras has no useful box."""
FORWARD_COSINE = 0.7
"""All cameras within 45 degrees of their mean direction look the same way."""
LOOSE_COSINE = 0.5
"""Up to 60 degrees, a forward space still works on request."""
DEPTH_FRAMES, DEPTH_STEP = 24, 8
NEAR_SHARE = 0.5
"""Samples start at this share of the least measured depth."""
NEAR_BLIND = 0.05
"""Without measurements they start at this distance of a space whose cameras lie within 1."""
SYNTHETIC_SIDE = 0.75
"""Half the side of the box around a synthetic object, in distances of the nearest camera from what it looks at; NeRF's own
scenes fill about half of that."""


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """A space, and the reason.

    Attributes:
        space: the space.
        why: one line for the user.
    """

    space: Space
    why: str


def choose_space(scene: Scene, kind: SpaceKind | None = None) -> Chosen:
    """The space for a scene.

    Args:
        scene: at least two posed frames.
        kind: the required space; None chooses from the scene.

    Raises:
        DataError: a pose is invalid, or all cameras are at one point.
        UsageError: `kind` does not suit the scene.
    """
    centres, forwards = _cameras(scene.frames)
    measured = _measured(scene)
    if kind is None:
        kind, why = _guess(scene, centres, forwards, measured)
    else:
        why = "as requested"
    if kind == "box":
        space = _box(scene, centres, forwards, measured)
    elif kind == "forward":
        space = _forward(scene.frames, centres, forwards)
    else:
        space = _contraction(centres, forwards, measured)
    return Chosen(space, f"Space: {_described(space, scene)}, {why}. Another one: --set space=box|forward|contraction")


def _cameras(frames: tuple[Frame, ...]) -> tuple[Float64[Array, "f 3"], Float64[Array, "f 3"]]:
    for frame in frames:
        fault = pose_fault(frame.world_from_camera)
        if fault:
            raise DataError(f"The pose of {frame.name} cannot be used: {fault}.", "Mend it, or leave the frame out.")
    poses = np.array([frame.world_from_camera for frame in frames], np.float64).reshape(-1, 4, 4)
    centres = poses[:, :3, 3]
    if len(frames) < 2 or np.ptp(centres, axis=0).max() == 0:
        raise DataError(
            f"All {len(frames)} cameras are at one point: nothing tells near from far.",
            "Move while taking photographs, and check that translations are in the poses' last column.",
        )
    return centres, poses[:, :3, 2]


def _measured(scene: Scene) -> Float64[Array, "n 3"]:
    """Points that are known to be there: the cloud, else a sample of the depth images; none is fine."""
    if scene.cloud is not None and len(scene.cloud):
        return scene.cloud.xyz.astype(np.float64)
    with_depth = [frame for frame in scene.frames if frame.depth is not None]
    found = [np.zeros((0, 3))]
    for frame in with_depth[:: max(1, len(with_depth) // DEPTH_FRAMES)]:
        assert frame.depth is not None
        camera = frame.depth.camera
        uv = camera.pixel_centres(DEPTH_STEP)
        depth: Float32[Array, " n"] = frame.depth.load()[::DEPTH_STEP, ::DEPTH_STEP].reshape(-1)
        known = depth > 0
        found.append(transform(frame.world_from_camera, camera.unproject(uv[known], depth[known])))
    return np.concatenate(found)


def _guess(
    scene: Scene, centres: Float64[Array, "f 3"], forwards: Float64[Array, "f 3"], measured: Float64[Array, "n 3"]
) -> tuple[SpaceKind, str]:
    if len(measured):
        away = np.linalg.norm(measured - centres.mean(0), axis=1)
        if np.percentile(away, 98) <= UNBOUNDED_RATIO * np.median(away):
            return "box", "around the measured geometry"
        return "contraction", "because the measured geometry extends far out"
    same_way = (forwards @ _unit(forwards.mean(0)) > FORWARD_COSINE).all()
    if same_way and all(frame.depth_range is not None for frame in scene.frames):
        return "forward", "because all cameras look the same way"
    if scene.layout == "blender":
        return "box", "around the point that all cameras look at"
    return "contraction", "because the extent of the scene is unknown"


def _box(
    scene: Scene, centres: Float64[Array, "f 3"], forwards: Float64[Array, "f 3"], measured: Float64[Array, "n 3"]
) -> Space:
    if len(measured):
        low, high = np.percentile(measured, PERCENTILES, axis=0)
        pad = PADDING * (high - low).max()
        low, high = low - pad, high + pad
        near = NEAR_SHARE * _least_depth(scene, measured)
    else:
        centre = _focus(centres, forwards)
        half = SYNTHETIC_SIDE * np.linalg.norm(centres - centre, axis=1).min()
        low, high, near = centre - half, centre + half, 0.0
    scale = 2 / (high - low).max()
    matrix = _similarity(np.eye(3), (low + high) / 2, scale)
    half_size = (high - low) / 2 * scale
    return Space("box", matrix, -half_size, half_size, near * scale)


def _forward(frames: tuple[Frame, ...], centres: Float64[Array, "f 3"], forwards: Float64[Array, "f 3"]) -> Space:
    towards = _unit(forwards.mean(0))
    if not (forwards @ towards > LOOSE_COSINE).all():
        raise UsageError(
            "Space forward needs cameras that face the same way; these look in all directions.",
            "Use --set space=contraction",
        )
    nearest = [frame.depth_range[0] for frame in frames if frame.depth_range is not None]
    if not nearest:
        raise UsageError(
            "Space forward needs the distance of the nearest object, which this capture does not give.",
            "Use --set space=contraction",
        )
    downs = np.array([frame.world_from_camera[:3, 1] for frame in frames]).mean(0)
    pose = look_at(np.zeros(3), towards, tuple(-downs))
    turn = np.diag([1.0, -1.0, -1.0]) @ pose[:3, :3].T  # OpenCV to the frame of (1): x right, y up, looking along -z
    scale = 1 / (0.75 * min(nearest))
    middle = centres.mean(0) + towards * (centres @ towards - centres.mean(0) @ towards).max()
    matrix = _similarity(turn, middle, scale)
    camera = frames[0].camera
    focal = (2 * camera.fx / camera.width, 2 * camera.fy / camera.height)
    return Space("forward", matrix, np.array([-2.0, -2.0, -1.0]), np.array([2.0, 2.0, 1.0]), 0.0, focal)


def _contraction(
    centres: Float64[Array, "f 3"], forwards: Float64[Array, "f 3"], measured: Float64[Array, "n 3"]
) -> Space:
    centre = _focus(centres, forwards)
    reach = np.abs(centres - centre).max()
    if len(measured):
        centre = np.median(measured, axis=0)
        reach = max(np.abs(centres - centre).max(), np.percentile(np.abs(measured - centre).max(1), 60))
    matrix = _similarity(np.eye(3), centre, 1 / (1.05 * reach))
    return Space("contraction", matrix, np.full(3, -2.0), np.full(3, 2.0), NEAR_BLIND)


def _focus(centres: Float64[Array, "f 3"], forwards: Float64[Array, "f 3"]) -> Float64[Array, " 3"]:
    """The point nearest to all optical axes, if it is in front of most cameras; else the centre of the cameras."""
    across = np.eye(3) - forwards[:, :, None] * forwards[:, None, :]
    total = across.sum(0)
    if np.linalg.cond(total) < 1e4:
        point: Float64[Array, " 3"] = np.linalg.solve(total, (across @ centres[:, :, None]).sum(0)[:, 0])
        if (((point - centres) * forwards).sum(1) > 0).mean() > 0.9:
            return point
    return centres.mean(0)


def _least_depth(scene: Scene, measured: Float64[Array, "n 3"]) -> float:
    """A low percentile of the depths in front of the cameras, scene units."""
    least = []
    sample = measured[:: max(1, len(measured) // 4000)]
    for frame in scene.frames:
        pose = frame.world_from_camera
        uv, z = frame.camera.project((sample - pose[:3, 3]) @ pose[:3, :3])
        inside = (z > 0) & (uv >= 0).all(1) & (uv <= (frame.camera.width, frame.camera.height)).all(1)
        if inside.any():
            least.append(np.percentile(z[inside], 1))
    return float(min(least)) if least else 0.0


def _similarity(turn: Float64[Array, "3 3"], centre: Float64[Array, " 3"], scale: float) -> Float64[Array, "4 4"]:
    """x -> scale turn (x - centre)."""
    matrix = np.eye(4)
    matrix[:3, :3] = scale * turn
    matrix[:3, 3] = -matrix[:3, :3] @ centre
    return matrix


def _unit(vector: Float64[Array, " 3"]) -> Float64[Array, " 3"]:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def _described(space: Space, scene: Scene) -> str:
    if space.kind == "box":
        sides = " x ".join(f"{side / space.scale:.3g}" for side in space.size)
        return f"a box of {sides} {scene.world.unit_name}"
    if space.kind == "forward":
        return "forward-facing (normalised device coordinates)"
    return f"contracted beyond {1 / space.scale:.3g} {scene.world.unit_name}"
