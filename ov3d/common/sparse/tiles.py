"""The voxels of a cloud of any size, cut into tiles that fit in memory, each with a margin around its core.

    points -> voxels, once over the whole cloud, in the network's order
    voxels -> tiles: boxes halved along their longest side until core and margin hold at most `max_voxels`

Every voxel is in exactly one core. The network's output for it depends on its surroundings, hence the margin.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.packing import KeyLayout
from ov3d.common.base.shapes import Array, Bool, Float32, Int32, Int64, UInt8

MARGIN = 64
"""Voxels around a core that are input to the network but whose outputs are discarded."""
MAX_VOXELS = 250_000
"""Voxels of a tile with its margin."""
KEYS = KeyLayout((21, 21, 21), (0, 0, 0))
FARTHEST = 1 << 20
BLOCK_POINTS = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Voxels:
    """The voxels that points fall into, sorted by x, then y, then z.

    Attributes:
        cells: relative to a corner on the network's coarsest grid; not negative.
        colours: mean colour in [-1, 1], grey (0) if points have no colours.
        of_point: the voxel of each point.
    """

    cells: Int32[Array, "v 3"]
    colours: Float32[Array, "v 3"]
    of_point: Int32[Array, " n"]

    def __len__(self) -> int:
        return len(self.cells)


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """A part of the voxels.

    Attributes:
        rows: voxels of core and margin, ascending.
        core: which of them belong to the core.
    """

    rows: Int64[Array, " m"]
    core: Bool[Array, " m"]


@dataclass(frozen=True, slots=True)
class Tiling:
    """The size of tiles.

    Attributes:
        max_voxels: of a tile with its margin; one whose core is no wider than the margin may have more.
        margin: voxels around a core, along each axis.
    """

    max_voxels: int = MAX_VOXELS
    margin: int = MARGIN


def voxels_of(xyz: Float32[Array, "n 3"], rgb: UInt8[Array, "n 3"] | None, size: float, *, coarsest: int = 1) -> Voxels:
    """The voxels of a cloud: cell = floor(xyz / size + 1/2).

    Args:
        xyz: finite positions, scene units.
        rgb: colours, or None.
        size: side of a voxel, scene units.
        coarsest: step of the network's coarsest grid, voxels.

    Raises:
        DataError: the cloud is more than two million voxels across.
    """
    low = np.full(3, np.inf, np.float32)
    high = -low
    for rows in _blocks(len(xyz)):
        cells = np.floor((xyz[rows] + np.float32(size / 2)) / np.float32(size))
        low, high = np.minimum(low, cells.min(axis=0)), np.maximum(high, cells.max(axis=0))
    if len(xyz) and max(np.abs(low).max(), np.abs(high).max()) >= FARTHEST:
        across = (high - low).max() * size
        raise DataError(
            f"The cloud is {across:,.0f} across, too large for voxels of {size:g}.",
            "If it is not in metres, give --scale, the metres per unit.",
        )
    corner = np.floor(low / coarsest).astype(np.int64) * coarsest if len(xyz) else np.zeros(3, np.int64)
    keys = np.empty(len(xyz), np.int64)
    for rows in _blocks(len(xyz)):
        cells = np.floor((xyz[rows] + np.float32(size / 2)) / np.float32(size)).astype(np.int64) - corner
        keys[rows] = KEYS.pack(*cells.T)
    unique, of_point = _unique(keys)
    cells = np.column_stack(KEYS.unpack(unique)).astype(np.int32)
    return Voxels(cells, _mean_colours(rgb, of_point, len(unique)), of_point)


def tiles_of(cells: Int32[Array, "v 3"], tiling: Tiling) -> Iterator[Tile]:
    """Tiles whose cores are a partition of the voxels.

    Args:
        cells: of the voxels.
        tiling: their size.
    """
    everything = np.arange(len(cells))
    if len(cells):
        yield from _halved(cells, everything, cells.min(axis=0), cells.max(axis=0), tiling)


def _halved(
    cells: Int32[Array, "v 3"],
    rows: Int64[Array, " m"],
    low: Int32[Array, " 3"],
    high: Int32[Array, " 3"],
    tiling: Tiling,
) -> Iterator[Tile]:
    """Tiles of the box from `low` to `high`, both inclusive; `rows` are the voxels that it and its margin can contain."""
    near, margin = cells[rows], tiling.margin
    kept = ((near >= low - margin) & (near <= high + margin)).all(axis=1)
    rows, near = rows[kept], near[kept]
    core = ((near >= low) & (near <= high)).all(axis=1)
    if not core.any():
        return
    low, high = near[core].min(axis=0), near[core].max(axis=0)
    axis = int((high - low).argmax())
    if len(rows) <= tiling.max_voxels or high[axis] - low[axis] < margin:
        kept = ((near >= low - margin) & (near <= high + margin)).all(axis=1)
        yield Tile(rows[kept], core[kept])
        return
    cut = int(np.clip(np.median(near[core, axis]), low[axis] + 1, high[axis]))
    below, above = high.copy(), low.copy()
    below[axis], above[axis] = cut - 1, cut
    yield from _halved(cells, rows, low, below, tiling)
    yield from _halved(cells, rows, above, high, tiling)


def _unique(keys: Int64[Array, " n"]) -> tuple[Int64[Array, " v"], Int32[Array, " n"]]:
    """Sorted unique keys and the index of each key among them; NumPy's `unique` needs twice as many arrays at once."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    new = np.empty(len(keys), bool)
    new[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    place = np.empty(len(keys), np.int32)
    place[order] = np.cumsum(new, dtype=np.int32) - 1
    return ordered[new], place


def _mean_colours(rgb: UInt8[Array, "n 3"] | None, voxel: Int32[Array, " n"], count: int) -> Float32[Array, "v 3"]:
    means = np.zeros((count, 3), np.float32)
    if rgb is not None and count:
        number = np.bincount(voxel, minlength=count)
        for channel in range(3):
            total = np.bincount(voxel, weights=rgb[:, channel], minlength=count)
            means[:, channel] = total / number * (2 / 255) - 1
    return means


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, BLOCK_POINTS):
        yield slice(start, min(start + BLOCK_POINTS, count))
