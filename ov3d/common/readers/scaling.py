"""Convert a scene of arbitrary units to metres: `--scale`, the length of one unit.

Structure from motion recovers shapes, not sizes. One measured length (a door, a table) gives the metres per unit; after that
sizes are printed in metres, and thresholds in metres (a 2 cm voxel) apply.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ov3d.common.base.errors import UsageError
from ov3d.common.base.shapes import Array, Float64
from ov3d.common.readers.layout import FAR, choose_origin
from ov3d.common.scenes.scene import Frame, Scene, World
from ov3d.common.scenes.sweep import Sweep


def check_scale(scale: float | None) -> None:
    """Raise `UsageError` unless a scale is a positive number."""
    if scale is not None and not (np.isfinite(scale) and scale > 0):
        raise UsageError(
            f"--scale must be positive and finite, got {scale:g}.", "Give the metres per unit of the files."
        )


def in_metres(scene: Scene, scale: float) -> Scene:
    """The same scene with every length times `scale`, in a metric world.

    Args:
        scene: of any units.
        scale: metres per unit of the scene; positive.

    Raises:
        UsageError: the scale is not a positive number.
    """
    check_scale(scale)
    origin = np.asarray(scene.world.origin) * scale
    shift = np.zeros(3)
    cloud = scene.cloud
    if cloud is not None:
        xyz = cloud.xyz.astype(np.float64) * scale
        if len(xyz) and np.abs(xyz).max() > FAR:  # scaled coordinates may need an origin
            shift = np.asarray(choose_origin(xyz))
        cloud = replace(cloud, xyz=(xyz - shift).astype(np.float32))
    x, y, z = (origin + shift).tolist()
    return replace(
        scene,
        frames=tuple(_scaled(frame, scale, shift) for frame in scene.frames),
        cloud=cloud,
        world=World("metric", scene.world.up, (x, y, z)),
        sweep=None if scene.sweep is None else _scaled_sweep(scene.sweep, scale, shift),
        notes=(*scene.notes, f"lengths are scaled: 1 unit in the files = {scale:g} m"),
    )


def _scaled_sweep(sweep: Sweep, scale: float, shift: Float64[Array, " 3"]) -> Sweep:
    pose = sweep.global_from_lidar.copy()
    pose[:3, 3] = pose[:3, 3] * scale + pose[:3, :3] @ shift
    return replace(sweep, global_from_lidar=pose)


def _scaled(frame: Frame, scale: float, shift: Float64[Array, " 3"]) -> Frame:
    pose = frame.world_from_camera.copy()
    pose[:3, 3] = pose[:3, 3] * scale - shift
    depth = frame.depth
    near_far = frame.depth_range
    return replace(
        frame,
        world_from_camera=pose,
        depth=None if depth is None else replace(depth, scale=depth.scale * scale),
        depth_range=None if near_far is None else (near_far[0] * scale, near_far[1] * scale),
    )
