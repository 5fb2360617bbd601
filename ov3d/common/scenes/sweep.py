"""What a LiDAR sweep knows beside its points and photographs: where and when its sensor and cameras were.

Its points are in the LiDAR's own frame at the time of the sweep: voxel grids of LiDAR networks are centred
on the sensor, and label files list the points of one sweep in their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Float64, Int32, Int64

OBJECT_BITS = 16
"""An object's id is its class id above these bits, its number in the label file below: numbers are unique per class only."""

MOST_OBJECTS = (1 << OBJECT_BITS) - 1
"""The largest number of an object."""


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """One revolution of a LiDAR.

    Attributes:
        token: what the data set calls it: the name of its label and prediction files.
        sequence: the drive it belongs to.
        time: microseconds, on the clock of the cameras.
        global_from_lidar: 4x4 pose of the sensor in the drive's frame, metres, at that time.
        camera_times: microseconds at which each frame was taken, by the frame's name.
        file_rows: rows of the data set's file that the cloud's points are; None if they are all of them, in order.
        num_file_rows: points of the file, those that were dropped included.
    """

    token: str
    sequence: str
    time: int
    global_from_lidar: Float64[Array, "4 4"]
    camera_times: Mapping[str, int]
    file_rows: Int64[Array, " n"] | None = None
    num_file_rows: int = 0

    def camera_offsets(self) -> dict[str, float]:
        """Seconds from the sweep to each photograph."""
        return {name: (time - self.time) * 1e-6 for name, time in self.camera_times.items()}


def object_ids(labels: Int32[Array, " n"], numbers: Int32[Array, " n"], unknown: int) -> Int32[Array, " n"]:
    """One id per object from classes and the numbers of their label file.

    Args:
        labels: class ids, `unknown` for points without one.
        numbers: of the label file, up to 65,535; 0 where a point belongs to no object.
        unknown: the id of points that belong to no object.

    Raises:
        DataError: a number beyond 65,535.
    """
    largest = int(numbers.max(initial=0))
    if largest > MOST_OBJECTS:
        raise DataError(
            f"An object has the number {largest:,}; the largest that an id holds is {MOST_OBJECTS:,}.",
            "Number the objects of each class anew.",
        )
    known = (labels >= 0) & (numbers > 0)
    return np.where(known, (labels << OBJECT_BITS) | numbers, unknown).astype(np.int32)


def object_numbers(instances: Int32[Array, " n"]) -> Int32[Array, " n"]:
    """The label file's numbers of objects; 0 for points of no object. The inverse of `object_ids`."""
    return np.where(instances >= 0, instances & MOST_OBJECTS, 0).astype(np.int32)
