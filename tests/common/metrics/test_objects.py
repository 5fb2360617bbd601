"""True objects: one an instance, boxes without strays, the nearest distance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.metrics.objects import distance_to_nearest, true_objects
from ov3d.common.scenes.scene import PointCloud, Scene


def _scene(with_instances: bool) -> Scene:
    rng = np.random.default_rng(0)
    left = rng.uniform(-0.5, 0.5, (300, 3)) + (-2, 0, 0)
    right = rng.uniform(-0.5, 0.5, (200, 3)) + (3, 1, 0)
    stray = np.array([[3.0, 40.0, 0.0]])
    xyz = np.concatenate([left, right, stray, np.zeros((5, 3))]).astype(np.float32)
    labels = np.repeat(np.array([1, 1, 1, 0], np.int32), [300, 200, 1, 5])
    instances = np.repeat(np.array([7, 9, 9, 1], np.int32), [300, 200, 1, 5])
    cloud = PointCloud(xyz, labels=labels, instances=instances if with_instances else None)
    return Scene("s", Path("s"), "test", cloud=cloud, classes=("wall", "cat"))


def test_one_object_an_instance_and_strays_do_not_move_it() -> None:
    objects = true_objects(_scene(True), "cat")
    assert [item.num_points for item in objects] == [300, 201]
    np.testing.assert_allclose(objects[0].centre, (-2, 0, 0), atol=0.06)
    np.testing.assert_allclose(objects[1].centre, (3, 1, 0), atol=0.06)
    assert distance_to_nearest(np.array([3.0, 1.0, 0.5]), objects) == pytest.approx(0.5, abs=0.06)


def test_without_instances_a_class_is_one_object() -> None:
    assert [item.num_points for item in true_objects(_scene(False), "cat")] == [501]
    assert distance_to_nearest(np.zeros(3), []) == float("inf")


def test_what_is_not_there_is_said() -> None:
    with pytest.raises(UsageError, match="no class 'cta'.*Did you mean cat"):
        true_objects(_scene(True), "cta")
    with pytest.raises(DataError, match="no true classes"):
        true_objects(Scene("s", Path("s"), "test", cloud=PointCloud(np.zeros((1, 3), np.float32)), classes=("a",)), "a")
