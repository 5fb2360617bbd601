"""An estimate, before they start, of how long the learning stages of a run take on one core.

A step of `guide` costs about as much as its voxels times the multiplications per voxel. Surfaces have a quarter of the
voxels on every coarser level, so with the channels of levels l, B blocks each way and crops that show a share s of a scene,

    work = B sum_l (down_l^2 + 2 up_l^2) / 4^l,      seconds = steps batch s voxels work U                        (1)

where U was measured with the preset `cpu` on twelve generated rooms: 261 s for 480 steps of 17,500 voxels on one core. The
other stages are negligible.
"""

from __future__ import annotations

import numpy as np

from ov3d.common.base.packing import distinct_cells
from ov3d.common.scenes.scene import Scene
from ov3d.points.config import GuideConfig, PointsConfig
from ov3d.points.steps import num_steps

MEASURED = 261 / (480 * 17_500)
"""Seconds per voxel and step, with the network of the preset `cpu`."""
VOXELS_A_POINT = 0.11
"""Of a cloud that does not exist yet."""


def learning_seconds(scene: Scene, num_points: int, config: PointsConfig, num_scenes: int) -> float:
    """A scene's part of the time that equation (1) gives; 0 for a run that stops before `guide`.

    Args:
        scene: with a cloud or without.
        num_points: of the cloud, or estimated if it is still to be made.
        config: the run's.
        num_scenes: number of training scenes.
    """
    guide = config.guide
    if "guide" not in config.stages:
        return 0.0
    voxels = VOXELS_A_POINT * num_points
    share = 1.0
    if scene.cloud is not None and len(scene.cloud):
        xyz = scene.cloud.xyz
        voxels = float(len(distinct_cells(np.floor(xyz / guide.voxel_size).astype(np.int64))[0]))
        if guide.crop is not None:
            share = float(np.minimum(guide.crop / np.maximum(np.ptp(xyz[:, :2], axis=0), 1e-6), 1).prod())
    seen = num_steps(guide, num_scenes) * guide.batch * share * voxels / num_scenes
    return seen * MEASURED * _work(guide) / _work(GuideConfig())


def _work(guide: GuideConfig) -> float:
    levels = zip(guide.down, guide.up, strict=True)
    return guide.blocks * sum((down**2 + 2 * up**2) / 4**level for level, (down, up) in enumerate(levels))
