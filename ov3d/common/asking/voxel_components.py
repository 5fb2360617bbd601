"""Connected voxels of a point set, using only NumPy, so that a query need not wait for SciPy to load.

Voxels are packed into sorted 64-bit keys (21 bits per axis), so neighbours are found by binary search in one array, and the
three neighbours along the last axis are adjacent in it: four searches find all 13 forward neighbours.
Components come from hooking the larger label of an edge onto the smaller and pointer jumping, in the manner of Shiloach &
Vishkin (*An O(log n) parallel connectivity algorithm*, J. Algorithms 1982): a few rounds of whole-array steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.packing import KeyLayout
from ov3d.common.base.shapes import Array, Float, Float32, Int64

KEYS = KeyLayout((21, 21, 21), (2, 2, 2))
"""How cells are packed. Cells at either end of an axis stay empty, so a neighbour's key never overflows into the next axis."""
MAX_CELL = KEYS.high[0] - 1


@dataclass(frozen=True, slots=True, eq=False)
class VoxelGrid:
    """Occupied voxels and which of them are adjacent.

    Attributes:
        voxel_of: the voxel of each point.
        num_voxels: number of occupied voxels.
        edges: pairs of voxels that share a face, an edge or a corner, each pair once.
    """

    voxel_of: Int64[Array, " n"]
    num_voxels: int
    edges: Int64[Array, "e 2"]

    def maximum(self, values: Float32[Array, " n"]) -> Float32[Array, " v"]:
        """The largest value of the points in each voxel."""
        best = np.full(self.num_voxels, -np.inf, np.float32)
        np.maximum.at(best, self.voxel_of, values)
        return best


def voxelise(xyz: Float[Array, "n 3"], voxel_size: float) -> VoxelGrid:
    """Put finite points into voxels and link adjacent voxels (26-neighbourhood).

    Args:
        xyz: positions, scene units.
        voxel_size: edge of a voxel, scene units.

    Raises:
        DataError: the points span more voxels per axis than a key can hold.
    """
    if not len(xyz):
        return VoxelGrid(np.zeros(0, np.int64), 0, np.zeros((0, 2), np.int64))
    low = xyz.min(axis=0)
    cells = np.floor((xyz - low) / np.float64(voxel_size))
    if cells.max() > MAX_CELL:
        raise DataError(
            f"Voxels of {voxel_size:g} are too small for points that span {float(np.ptp(xyz, axis=0).max()):g}.",
            "Use a larger voxel size, or remove far outliers from the cloud.",
        )
    keys, voxel_of = np.unique(KEYS.pack(*cells.astype(np.int64).T), return_inverse=True)
    return VoxelGrid(voxel_of.reshape(-1), len(keys), _touching(keys))


def label_components(grid: VoxelGrid, region: Int64[Array, " v"]) -> Int64[Array, " v"]:
    """Number the connected components within each region.

    Args:
        grid: voxels and which of them are adjacent.
        region: voxels of different regions are never connected; -1 for voxels to ignore.

    Returns:
        0, 1, ... in the order of each component's first voxel; -1 for ignored voxels.
    """
    labels = np.arange(grid.num_voxels)
    a, b = grid.edges.T
    together = (region[a] >= 0) & (region[a] == region[b])
    a, b = a[together], b[together]
    while len(a):
        # Every label is a root here, so hooking one onto a smaller one joins whole trees and cannot form a cycle.
        root_a, root_b = labels[a], labels[b]
        apart = root_a != root_b
        a, b, root_a, root_b = a[apart], b[apart], root_a[apart], root_b[apart]
        np.minimum.at(labels, np.maximum(root_a, root_b), np.minimum(root_a, root_b))
        while not np.array_equal(jumped := labels[labels], labels):
            labels = jumped
    counts = region >= 0
    numbers = np.full(grid.num_voxels, -1)
    numbers[counts] = np.unique(labels[counts], return_inverse=True)[1].reshape(-1)
    return numbers


def grow(
    grid: VoxelGrid,
    labels: Int64[Array, " v"],
    values: Float32[Array, " v"],
    levels: Float32[Array, " k"],
    num_steps: int,
) -> Int64[Array, " v"]:
    """Grow labelled regions, one voxel per step, into unlabelled voxels that reach the region's level.

    Args:
        grid: voxels and which of them are adjacent.
        labels: the region of each voxel, -1 for none.
        values: one value per voxel.
        levels: score that a voxel needs to join the region.
        num_steps: number of voxels a region may grow.

    Returns:
        The regions after growing; a voxel that several reach in one step joins the one with the highest level.
    """
    labels = labels.copy()
    for _ in range(num_steps):
        source, target = np.concatenate([grid.edges, grid.edges[:, ::-1]]).T
        reaches = (labels[source] >= 0) & (labels[target] < 0)
        source, target = labels[source[reaches]], target[reaches]
        joins = values[target] >= levels[source]
        source, target = source[joins], target[joins]
        if not len(target):
            break
        order = np.lexsort(
            (-source, levels[source])
        )  # the last of repeated assignments wins: highest level, first region
        labels[target[order]] = source[order]
    return labels


def _touching(keys: Int64[Array, " v"]) -> Int64[Array, "e 2"]:
    """Pairs of sorted voxel keys that are neighbours; the first of a pair has the lesser key."""
    voxels = np.arange(len(keys))
    follows = np.flatnonzero(keys[1:] - keys[:-1] == 1)
    pairs = [np.column_stack([follows, follows + 1])]
    padded = np.concatenate([keys, np.full(3, np.iinfo(np.int64).max)])
    step_x, step_y, _ = KEYS.steps
    for dx, dy in ((0, 1), (1, -1), (1, 0), (1, 1)):
        column = keys + (dx * step_x + dy * step_y)
        first = np.searchsorted(keys, column - 1)
        # The neighbours at z - 1, z and z + 1 can only be in the next three positions.
        for place in range(3):
            hit = padded[first + place] <= column + 1
            pairs.append(np.column_stack([voxels[hit], first[hit] + place]))
    return np.concatenate(pairs)
