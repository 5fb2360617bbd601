"""What a training is said to take beforehand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ov3d.common.base.config import load_config
from ov3d.common.scenes.scene import PointCloud, Scene
from ov3d.points.config import GuideConfig, PointsConfig
from ov3d.points.estimate import learning_seconds
from tests.common.small_scenes import box_scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    floor = np.stack(np.meshgrid(np.arange(0, 4, 0.02), np.arange(0, 4, 0.02)), -1).reshape(-1, 2)
    cloud = PointCloud(np.column_stack([floor, np.zeros(len(floor))]).astype(np.float32) + np.float32(0.001))
    return replace(box_scene(tmp_path / "scene", 1), cloud=cloud)


def _seconds(scene: Scene, *settings: str, num_scenes: int = 1) -> float:
    config = load_config(PointsConfig, None, ["preset=cpu", *settings])
    return learning_seconds(scene, 40_000, config, num_scenes)


def test_time_goes_with_steps_voxels_and_width(scene: Scene) -> None:
    usual, steps = _seconds(scene), GuideConfig().steps
    assert usual == pytest.approx(steps * 2500 * 261 / (480 * 17_500))
    assert _seconds(scene, f"guide.steps={steps // 2}") == pytest.approx(usual / 2)
    assert _seconds(scene, num_scenes=2) == pytest.approx(usual / 2)
    assert _seconds(scene, "guide.epochs=10", num_scenes=2) == pytest.approx(usual * 10 / steps)
    assert _seconds(scene, "guide.voxel_size=0.04") == pytest.approx(4 * usual, rel=0.03)
    assert _seconds(scene, "guide.crop=2") == pytest.approx(usual / 4, rel=0.03)
    assert _seconds(scene, "guide.blocks=2") == pytest.approx(2 * usual)


def test_what_learns_nothing_takes_nothing(scene: Scene) -> None:
    assert _seconds(scene, "stages=[fuse, pseudo-label, specialise]") == 0


def test_a_cloud_that_is_to_be_made_counts_about(scene: Scene) -> None:
    assert _seconds(replace(scene, cloud=None)) == pytest.approx(_seconds(scene) * 4400 / 2500)
