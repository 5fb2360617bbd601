"""Projection of a sweep as nuScenes' devkit does it: camera by camera, pose by pose, over all points.

After `map_pointcloud_to_image` of nuscenes-devkit 1.1 (the class of clouds copies itself for each camera, `rotate` and
`translate` change it, `view_points` multiplies by a padded K and divides all points), written anew. Points are kept in the
precision given: the devkit keeps fp32 between its steps, where global coordinates cost a millimetre.
"""

from __future__ import annotations

import copy

import numpy as np

MIN_DEPTH = 1.0


class DevkitCloud:
    """Points as rows [4, n], changed in place."""

    def __init__(self, points: np.ndarray) -> None:
        self.points = points

    def rotate(self, rotation: np.ndarray) -> None:
        """Turn the points."""
        self.points[:3, :] = np.dot(rotation, self.points[:3, :])

    def translate(self, shift: np.ndarray) -> None:
        """Move the points."""
        for axis in range(3):
            self.points[axis, :] = self.points[axis, :] + shift[axis]


def view_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Homogeneous pixels [3, n]."""
    padded = np.eye(4)
    padded[:3, :3] = matrix
    count = points.shape[1]
    points = np.dot(padded, np.concatenate((points, np.ones((1, count)))))[:3, :]
    return points / points[2:3, :].repeat(3, 0).reshape(3, count)


def devkit_projection(
    cloud: DevkitCloud, poses: list[np.ndarray], matrix: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels [3, v], depths [v] and the mask [n] of the points that one camera sees.

    Args:
        cloud: of the sweep; it is copied.
        poses: 4x4: ego from LiDAR, global from ego at the sweep, global from ego at the photograph, ego from camera.
        matrix: K with whole numbers as pixel centres.
        size: width and height.
    """
    cloud = copy.deepcopy(cloud)
    for pose in poses[:2]:
        cloud.rotate(pose[:3, :3])
        cloud.translate(pose[:3, 3])
    for pose in poses[2:]:
        cloud.translate(-pose[:3, 3])
        cloud.rotate(pose[:3, :3].T)
    depths = cloud.points[2, :]
    points = view_points(cloud.points[:3, :], matrix)
    mask = np.ones(depths.shape[0], dtype=bool)
    mask = np.logical_and(mask, depths > MIN_DEPTH)
    mask = np.logical_and(mask, points[0, :] > 1)
    mask = np.logical_and(mask, points[0, :] < size[0] - 1)
    mask = np.logical_and(mask, points[1, :] > 1)
    mask = np.logical_and(mask, points[1, :] < size[1] - 1)
    return points[:, mask], depths[mask], mask
