"""Superpoints: pieces of surface uniform in geometry and colour, and labels spread over them by majority.

    points -> voxels -> nearest neighbours -> edges, weight w = (1 - |n_i . n_j|) + a |c_i - c_j|
    edges, lightest first: two pieces C1, C2 become one if w <= min(I(C1) + s / |C1|, I(C2) + s / |C2|)           (1)

with n the normals, c the colours around a voxel, I(C) the heaviest edge inside a piece and |C| its voxels: Felzenszwalb and
Huttenlocher, *Efficient Graph-Based Image Segmentation* (IJCV 2004), equations (3) and (4), on a graph of neighbours in space.
Pieces smaller than `min_voxels` then join the neighbour across their lightest edge. No random number is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ov3d.common.base.errors import DataError
from ov3d.common.base.files import hash_text
from ov3d.common.base.shapes import Array, Float32, Int32, Int64, UInt8
from ov3d.common.lifting.lift import LiftedFeatures
from ov3d.common.lifting.projection import median_spacing
from ov3d.common.scenes.scene import IGNORE
from ov3d.common.sparse.neighbors import radius_search
from ov3d.common.sparse.tiles import voxels_of

BLOCK_VOXELS = 1 << 16
TINY = 1e-12


@dataclass(frozen=True, slots=True)
class SuperpointConfig:
    """How pieces are found.

    Attributes:
        spacings: side of a voxel in spacings of the cloud.
        neighbours: voxels that a normal is fitted to, and that edges lead to.
        colour: a, the weight of a difference of colours (1: black beside white counts as much as a right angle).
        scale: s of equation (1): the larger, the larger the pieces.
        min_voxels: smaller pieces join a neighbour.
    """

    spacings: float = 2.0
    neighbours: int = 12
    colour: float = 0.5
    scale: float = 1.0
    min_voxels: int = 8


def superpoints(
    xyz: Float32[Array, "n 3"], rgb: UInt8[Array, "n 3"] | None, config: SuperpointConfig | None = None
) -> Int32[Array, " n"]:
    """The piece that each point belongs to.

    Args:
        xyz: finite positions, any units.
        rgb: colours; None uses geometry alone.
        config: how pieces are found.

    Returns:
        Numbers from 0, without gaps.

    Raises:
        DataError: a coordinate is not finite.
    """
    config = config or SuperpointConfig()
    if not np.isfinite(xyz).all():
        raise DataError("Some point coordinates are not finite.", "Drop those points first.")
    if len(xyz) < 2:
        return np.zeros(len(xyz), np.int32)
    size = config.spacings * median_spacing(xyz)
    voxels = voxels_of(xyz, rgb, size if size > 0 else 1.0)
    centres = _means(xyz, voxels.of_point, len(voxels))
    near = _neighbours(centres, config.neighbours, 3 * size)
    normals, colours = _normals(centres, near), _smooth((voxels.colours + 1) / 2, near)
    first, second = _edges(near)
    weight = 1 - np.abs(np.einsum("ec,ec->e", normals[first], normals[second]))
    if rgb is not None:
        weight += config.colour * np.linalg.norm(colours[first] - colours[second], axis=1) / np.sqrt(np.float32(3))
    piece = _merged(len(voxels), first, second, weight, config)
    return piece[voxels.of_point]


def propagate(labels: Int32[Array, " n"], superpoint: Int32[Array, " n"]) -> Int32[Array, " n"]:
    """The most frequent label of each point's superpoint.

    Args:
        labels: class ids, `IGNORE` for points without one.
        superpoint: of each point.

    Returns:
        One label for all points of a superpoint, the smallest of equally frequent ones; `IGNORE` if no point has one.
    """
    spread = np.full(int(superpoint.max(initial=-1)) + 1, IGNORE, np.int32)
    known = labels != IGNORE
    if known.any():
        count = int(labels.max()) + 1
        pairs, votes = np.unique(superpoint[known].astype(np.int64) * count + labels[known], return_counts=True)
        order = np.lexsort((-pairs, votes))  # the last one written stays: most votes, then the smaller label
        spread[pairs[order] // count] = pairs[order] % count
    return spread[superpoint]


def pooled_features(lifted: LiftedFeatures, superpoint: Int32[Array, " n"]) -> LiftedFeatures:
    """Features as means over superpoints: for features what `propagate` is for labels.

    The mean is that of the points' own means over views, so points whose views disagree count less.

    Args:
        lifted: of a cloud of n points.
        superpoint: of each point of the cloud.

    Returns:
        The same rows; those of one superpoint are equal.
    """
    if not len(lifted):
        return lifted
    _, piece = np.unique(superpoint[lifted.point_row], return_inverse=True)
    piece = piece.reshape(-1).astype(np.int32)
    means = _means(lifted.code * lifted.norms[:, None], piece, int(piece.max()) + 1)
    norms = np.linalg.norm(means, axis=1)
    code = (means / np.maximum(norms, TINY)[:, None]).astype(np.float16)
    return replace(lifted, code=code[piece], norms=norms[piece], key=pooled_key(lifted))


def pooled_key(lifted: LiftedFeatures) -> str:
    """Key of what `pooled_features` computes over the superpoints of the features' own cloud."""
    return hash_text("pooled-2", lifted.key)


def _means(values: Float32[Array, "n c"], voxel: Int32[Array, " n"], count: int) -> Float32[Array, "v c"]:
    number = np.bincount(voxel, minlength=count)
    columns = [np.bincount(voxel, weights=column, minlength=count) / number for column in values.T]
    return np.column_stack(columns).astype(np.float32)


def _neighbours(centres: Float32[Array, "v 3"], count: int, radius: float) -> Int64[Array, "v k"]:
    """The nearest voxels of each, itself first; itself repeated if fewer are within the radius."""
    itself = np.arange(len(centres))[:, None]
    if radius == 0:  # the points lie on top of each other
        return itself
    points = torch.from_numpy(centres)
    near = radius_search(points, points, radius, limit=min(count + 1, len(centres))).indices.numpy()
    return np.where(near >= 0, near, itself)


def _normals(centres: Float32[Array, "v 3"], near: Int64[Array, "v k"]) -> Float32[Array, "v 3"]:
    """The direction in which a voxel's neighbours spread least; its sign means nothing."""
    normals = np.empty_like(centres)
    for start in range(0, len(centres), BLOCK_VOXELS):
        rows = slice(start, start + BLOCK_VOXELS)
        around = centres[near[rows]]
        around = around - around.mean(axis=1, keepdims=True)
        spread = np.einsum("vki,vkj->vij", around, around, dtype=np.float64)
        normals[rows] = np.linalg.eigh(spread)[1][:, :, 0]
    return normals


def _smooth(colours: Float32[Array, "v 3"], near: Int64[Array, "v k"]) -> Float32[Array, "v 3"]:
    """Mean colours of neighbourhoods: the grain of a surface must not look like a border."""
    smooth = np.empty_like(colours)
    for start in range(0, len(colours), BLOCK_VOXELS):
        rows = slice(start, start + BLOCK_VOXELS)
        smooth[rows] = colours[near[rows]].mean(axis=1)
    return smooth


def _edges(near: Int64[Array, "v k"]) -> tuple[Int64[Array, " e"], Int64[Array, " e"]]:
    """Pairs of neighbours, each once, in order."""
    source = np.repeat(np.arange(len(near)), near.shape[1])
    low, high = np.minimum(source, near.ravel()), np.maximum(source, near.ravel())
    apart = low != high
    pairs = np.unique(low[apart] * len(near) + high[apart])
    return pairs // len(near), pairs % len(near)


def _merged(
    count: int,
    first: Int64[Array, " e"],
    second: Int64[Array, " e"],
    weight: Float32[Array, " e"],
    config: SuperpointConfig,
) -> Int32[Array, " v"]:
    """The piece of each voxel by equation (1), on lists: Python reads single elements of arrays ten times slower."""
    order = np.argsort(weight, kind="stable")
    edges = list(zip(first[order].tolist(), second[order].tolist(), weight[order].tolist(), strict=True))
    parent, size, limit = list(range(count)), [1] * count, [config.scale] * count

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for a, b, w in edges:
        a, b = root(a), root(b)
        if a != b and w <= limit[a] and w <= limit[b]:
            parent[b] = a
            size[a] += size[b]
            limit[a] = w + config.scale / size[a]  # edges come in order: w is the heaviest inside
    for a, b, _ in edges:
        a, b = root(a), root(b)
        if a != b and (size[a] < config.min_voxels or size[b] < config.min_voxels):
            parent[b] = a
            size[a] += size[b]
    return np.unique([root(node) for node in range(count)], return_inverse=True)[1].reshape(-1).astype(np.int32)
