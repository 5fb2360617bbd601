"""Clouds of any size through the network: their voxels, in tiles that memory holds, each with a margin around its core.

    points -> voxels, once over the whole cloud, sorted as the network sorts them
    voxels -> tiles: boxes halved along their longest side until core and margin hold at most `max_voxels`
    tile   -> vectors of all its voxels, scores of those of the core

Every voxel is in one core. What the network says of it depends on its surroundings up to `receptive_radius`, in fact on far
less: a margin of `MARGIN` voxels leaves hardly a label changed. Tiles are moved by whole steps of the coarsest grid, so that a
voxel falls into the same coarse cells as without tiles.

A network that normalises by the scan's own statistics was trained with one room at a time. Its tiles are as large as a room
with some of what is around it, and each is normalised by its own statistics: four rooms side by side, unseen in training, are
labelled right to 94 % in such tiles, 96 % one by one, and 90 % as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import normalize

from ov3d.common.base.errors import DataError
from ov3d.common.base.progress import Progress, Silent
from ov3d.common.base.shapes import Array, Bool, Float32, Int32, Int64, UInt8
from ov3d.common.sparse.voxels import SparseTensor, VoxelGrid
from ov3d.points.network import INPUT_DIM, NetworkSpec, PointNetwork

MARGIN = 64
"""Voxels around a core that are seen and not answered for."""
MAX_VOXELS = 250_000
"""Voxels of a tile with its margin."""
ROOMY = 1.5
"""Voxels of a tile with its margin, in scenes of the training, where each tile is normalised by itself."""
AXIS_BITS = 21
FARTHEST = 1 << (AXIS_BITS - 1)
BLOCK_POINTS = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Voxels:
    """The voxels that points fall into, sorted by x, then y, then z.

    Attributes:
        cells: relative to a corner that lies on the network's coarsest grid; not negative.
        colours: mean colour in [-1, 1], grey (0) where points have none.
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
        core: which of them are the core's.
    """

    rows: Int64[Array, " m"]
    core: Bool[Array, " m"]


def receptive_radius(spec: NetworkSpec) -> int:
    """How far, in voxels of the finest grid, an input can be from an output that it changes.

    A convolution of side s on a grid of step t reaches (s - 1) / 2 cells; a step down or up, of side 2, less than a cell.
    """
    radius = spec.stem_size // 2
    for level in range(len(spec.down)):
        fine, coarse = 1 << level, 2 << level
        per_level = 2 * spec.blocks  # convolutions of side 3, on the way down at the coarse step, up at the fine one
        radius += per_level * (coarse + fine) + 2 * (coarse - 1)
    return radius


def voxels_of(xyz: Float32[Array, "n 3"], rgb: UInt8[Array, "n 3"] | None, size: float, *, coarsest: int = 1) -> Voxels:
    """The voxels of a cloud: cell = floor(xyz / size + 1/2), as the network has it.

    Args:
        xyz: finite positions, scene units.
        rgb: colours, or none.
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
            f"The cloud is {across:,.0f} across, too much for voxels of {size:g}.",
            "Is it in metres? If not, give --scale, the metres a unit.",
        )
    corner = np.floor(low / coarsest).astype(np.int64) * coarsest if len(xyz) else np.zeros(3, np.int64)
    keys = np.empty(len(xyz), np.int64)
    for rows in _blocks(len(xyz)):
        cell = np.floor((xyz[rows] + np.float32(size / 2)) / np.float32(size)).astype(np.int64) - corner
        keys[rows] = (((cell[:, 0] << AXIS_BITS) + cell[:, 1]) << AXIS_BITS) + cell[:, 2]
    unique, of_point = _unique(keys)
    mask = (1 << AXIS_BITS) - 1
    cells = np.column_stack([(unique >> shift) & mask for shift in (2 * AXIS_BITS, AXIS_BITS, 0)]).astype(np.int32)
    return Voxels(cells, _mean_colours(rgb, of_point, len(unique)), of_point)


@dataclass(frozen=True, slots=True)
class Tiling:
    """How large tiles are.

    Attributes:
        max_voxels: of a tile with its margin; one whose core is no wider than the margin may have more.
        margin: voxels around a core, along each axis.
    """

    max_voxels: int = MAX_VOXELS
    margin: int = MARGIN

    @classmethod
    def of(cls, network: PointNetwork) -> Tiling:
        """As large as memory holds; as a room and a quarter of its width, where tiles are normalised by themselves."""
        if network.spec.statistics == "training":
            return cls()
        usual = network.scene_voxels
        return cls(min(MAX_VOXELS, round(ROOMY * usual)), min(MARGIN, max(8, round(usual**0.5 / 4))))


def tiles_of(cells: Int32[Array, "v 3"], tiling: Tiling) -> Iterator[Tile]:
    """Tiles whose cores are a partition of the voxels.

    Args:
        cells: of the voxels.
        tiling: how large they are.
    """
    everything = np.arange(len(cells))
    if len(cells):
        yield from _halved(cells, everything, cells.min(axis=0), cells.max(axis=0), tiling)


def score_voxels(
    network: PointNetwork,
    voxels: Voxels,
    text: Float32[Array, "k d"],
    *,
    tiling: Tiling | None = None,
    progress: Progress | None = None,
) -> tuple[Int32[Array, " v"], Float32[Array, " v"], int]:
    """The best of some texts for each voxel.

    Args:
        network: in any mode; it is asked in evaluation mode.
        voxels: of `voxels_of`, with the network's voxel size and coarsest step.
        text: unit vectors.
        tiling: how large tiles are; none lets the network decide.
        progress: hears how far it is.

    Returns:
        Rows of `text`, their cosines, and how many tiles there were.
    """
    best, score = np.zeros(len(voxels), np.int32), np.zeros(len(voxels), np.float32)
    count = 0
    for rows, cosines in tile_cosines(network, voxels, text, tiling=tiling, progress=progress or Silent()):
        best[rows] = cosines.argmax(axis=1)
        score[rows] = cosines.max(axis=1)
        count += 1
    return best, score, count


def tile_cosines(
    network: PointNetwork,
    voxels: Voxels,
    text: Float32[Array, "k d"],
    *,
    tiling: Tiling | None = None,
    progress: Progress,
) -> Iterator[tuple[Int64[Array, " c"], Float32[Array, "c k"]]]:
    """The voxels of each tile's core, and their cosines with texts; arguments as of `score_voxels`."""
    q, triangle = (factor.float().to(network.device) for factor in network.factors())
    queries = q.T @ torch.from_numpy(np.ascontiguousarray(text.T, np.float32)).to(network.device)
    with progress.task("Labelling", len(voxels)) as task:
        for tile in tiles_of(voxels.cells, tiling or Tiling.of(network)):
            core = tile.rows[tile.core]
            with network.ready_for(len(tile.rows)):
                cosines = _cosines(network, voxels, tile, triangle, queries)
            yield core, cosines
            task.advance(len(core))


@torch.no_grad()
def _cosines(
    network: PointNetwork,
    voxels: Voxels,
    tile: Tile,
    triangle: Float32[torch.Tensor, "r z"],
    queries: Float32[torch.Tensor, "r k"],
) -> Float32[Array, "c k"]:
    """Cosines of the core's voxels with texts: equation (2) of `ov3d.points.network`."""
    last = network(_input(network, voxels, tile))
    core = torch.from_numpy(np.flatnonzero(tile.core)).to(network.device)
    return (normalize(last[core].float() @ triangle.T, dim=1) @ queries).cpu().numpy()


def _input(network: PointNetwork, voxels: Voxels, tile: Tile) -> SparseTensor:
    """What the network is given of a tile."""
    step = 1 << len(network.spec.down)
    cells = voxels.cells[tile.rows]
    cells = cells - cells.min(axis=0) // step * step  # near zero: the network's keys have fewer bits than ours
    coords = torch.from_numpy(np.concatenate([np.zeros((len(cells), 1), np.int32), cells], axis=1))
    values = torch.ones(len(cells), INPUT_DIM)
    values[:, :3] = torch.from_numpy(voxels.colours[tile.rows])
    return SparseTensor(VoxelGrid(coords.to(network.device)), values.to(network.device))


def _halved(
    cells: Int32[Array, "v 3"],
    rows: Int64[Array, " m"],
    low: Int32[Array, " 3"],
    high: Int32[Array, " 3"],
    tiling: Tiling,
) -> Iterator[Tile]:
    """Tiles of the box from `low` to `high`, both inclusive; `rows` are the voxels that it and its margin can have."""
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
    """Sorted unique keys and the place of each key among them; NumPy's own `unique` holds twice as many arrays at once."""
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
