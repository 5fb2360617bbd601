"""The classes of generated streets, and their ids in the two official formats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ov3d.common.base.shapes import Array, Int64


@dataclass(frozen=True, slots=True)
class StreetClass:
    """One class.

    Attributes:
        name: its everyday name.
        nuscenes: general class id of nuScenes, 0 to 31.
        kitti: raw class id of SemanticKITTI for stationary objects.
        kitti_moving: and for moving ones.
        thing: whether its objects are distinguished.
    """

    name: str
    nuscenes: int
    kitti: int
    kitti_moving: int
    thing: bool


def _thing(name: str, nuscenes: int, kitti: int, kitti_moving: int) -> StreetClass:
    return StreetClass(name, nuscenes, kitti, kitti_moving, True)


def _stuff(name: str, nuscenes: int, kitti: int) -> StreetClass:
    return StreetClass(name, nuscenes, kitti, kitti, False)


STREET_CLASSES = (
    _stuff("noise", 0, 1),
    _stuff("road", 24, 40),
    _stuff("lane marking", 24, 60),
    _stuff("pavement", 26, 48),
    _stuff("terrain", 27, 72),
    _stuff("building", 28, 50),
    _stuff("fence", 28, 51),
    _stuff("vegetation", 30, 70),
    _stuff("trunk", 30, 71),
    _stuff("pole", 28, 80),
    _stuff("traffic sign", 28, 81),
    _thing("car", 17, 10, 252),
    _thing("truck", 23, 18, 258),
    _thing("bus", 16, 13, 257),
    _thing("bicycle", 14, 11, 11),
    _thing("bicyclist", 14, 31, 253),
    _thing("motorcycle", 21, 15, 15),
    _thing("motorcyclist", 21, 32, 255),
    _thing("pedestrian", 2, 30, 254),
    _thing("child", 3, 30, 254),
)
"""All classes; a label is an index into them. Noise marks LiDAR returns that are not from a surface."""

STREET_NAMES = tuple(one.name for one in STREET_CLASSES)

NOISE = STREET_NAMES.index("noise")

NOVEL_THINGS = ("pedestrian", "child", "bus", "bicycle", "bicyclist")
"""Things held out of training: a method must find them by name."""

NOVEL_STUFF = ("vegetation", "trunk", "pavement")
"""Stuff held out of training."""


def class_id(name: str) -> int:
    """The label of a class."""
    return STREET_NAMES.index(name)


def class_table(field: str) -> Int64[Array, " c"]:
    """One of the id fields of `StreetClass` for every label."""
    return np.array([getattr(one, field) for one in STREET_CLASSES], np.int64)
