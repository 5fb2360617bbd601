"""Clouds of any size through the network: tile by tile, each with a margin around its core.

    tile -> vectors of all its voxels, scores of those of the core

The network's output for a voxel depends on its surroundings up to `receptive_radius`, in practice on far less: with a margin
of `MARGIN` voxels hardly any label changes. Tiles are moved by whole steps of the coarsest grid, so a voxel falls into the
same coarse cells as without tiles.

A network that normalises by the scan's own statistics was trained with one room at a time. Its tiles are as large as a room
with some of what is around it, and each is normalised by its own statistics: of four rooms side by side, unseen in training,
94 % of the points are labelled right in such tiles, 96 % room by room, and 90 % as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.nn.functional import normalize

from ov3d.common.base.progress import Progress, Silent
from ov3d.common.base.shapes import Array, Float32, Int32, Int64
from ov3d.common.sparse.tiles import MARGIN, MAX_VOXELS, Tile, Tiling, Voxels, tiles_of
from ov3d.common.sparse.voxels import SparseTensor, VoxelGrid
from ov3d.points.network import INPUT_DIM, NetworkSpec, PointNetwork

ROOMY = 1.5
"""Voxels of a tile with its margin, in scenes of the training, where each tile is normalised by itself."""


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


def tiling_of(network: PointNetwork) -> Tiling:
    """As large as memory holds; as a room and a quarter of its width, where tiles are normalised by themselves."""
    if network.spec.statistics == "training":
        return Tiling()
    usual = network.scene_voxels
    return Tiling(min(MAX_VOXELS, round(ROOMY * usual)), min(MARGIN, max(8, round(usual**0.5 / 4))))


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
        network: in any mode; it is run in evaluation mode.
        voxels: of `voxels_of`, with the network's voxel size and coarsest step.
        text: unit vectors.
        tiling: how large tiles are; by default the network decides.
        progress: receives progress.

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
        for tile in tiles_of(voxels.cells, tiling or tiling_of(network)):
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
    """The network's input for a tile."""
    step = 1 << len(network.spec.down)
    cells = voxels.cells[tile.rows]
    cells = cells - cells.min(axis=0) // step * step  # near zero: the network's keys have fewer bits than ours
    coords = torch.from_numpy(np.concatenate([np.zeros((len(cells), 1), np.int32), cells], axis=1))
    values = torch.ones(len(cells), INPUT_DIM)
    values[:, :3] = torch.from_numpy(voxels.colours[tile.rows])
    return SparseTensor(VoxelGrid(coords.to(network.device)), values.to(network.device))
