"""The true objects of a scene, and the distance from a found object to the nearest one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ov3d.common.base.errors import DataError, UsageError, did_you_mean
from ov3d.common.base.shapes import Array, Float64
from ov3d.common.scenes.scene import Scene

EXTENT_PERCENTILES = (2.0, 98.0)
"""Percentiles of a box that ignores a few stray points on each side."""


@dataclass(frozen=True, slots=True, eq=False)
class TrueObject:
    """One labelled object of a scene.

    Attributes:
        centre: middle of its box, scene units, relative to the world's origin.
        size: edges of its box.
        num_points: points of the cloud on it.
    """

    centre: Float64[Array, " 3"]
    size: Float64[Array, " 3"]
    num_points: int


def true_objects(scene: Scene, name: str) -> list[TrueObject]:
    """The labelled objects of a class, largest first.

    Args:
        scene: with a labelled cloud; without instances, all points of the class are one object.
        name: one of the scene's classes.

    Raises:
        UsageError: the scene has no such class.
        DataError: its cloud has no labels.
    """
    if name not in scene.classes:
        raise UsageError(f"Scene {scene.name} has no class {name!r}.", did_you_mean(name, scene.classes))
    cloud = scene.cloud
    if cloud is None or cloud.labels is None:
        raise DataError(
            f"The points of {scene.name} have no true classes.", "Provide a labelled cloud or label images."
        )
    members = np.flatnonzero(cloud.labels == scene.classes.index(name))
    owner = np.zeros(len(members), np.int32) if cloud.instances is None else cloud.instances[members]
    found = []
    for instance in np.unique(owner):
        xyz = cloud.xyz[members[owner == instance]].astype(np.float64)
        low, high = np.percentile(xyz, EXTENT_PERCENTILES, axis=0)
        found.append(TrueObject((low + high) / 2, high - low, len(xyz)))
    return sorted(found, key=lambda item: -item.num_points)


def distance_to_nearest(centre: Float64[Array, " 3"], objects: list[TrueObject]) -> float:
    """Distance from a found centre to the nearest true one, scene units; infinite without any."""
    return min((float(np.linalg.norm(centre - item.centre)) for item in objects), default=float("inf"))
