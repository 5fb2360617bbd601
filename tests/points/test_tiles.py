"""A network asked tile by tile: the same answers as without tiles."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from ov3d.common.sparse.tiles import MARGIN, Tiling, Voxels, voxels_of
from ov3d.points.network import NetworkSpec
from ov3d.points.tiles import receptive_radius, score_voxels, tiling_of
from tests.points.networks import SPEC, make_network, room, text_vectors

TEXT = text_vectors(*"abcdefgh")
CPU_SHAPE = NetworkSpec(16, 0.05, 16, 3, (24, 32, 64, 96), (48, 48, 64, 64), 1)
"""The levels of the preset `cpu`."""


pytestmark = pytest.mark.usefixtures("one_thread")


def _voxels(spec: NetworkSpec, *, size: float = 4.0) -> Voxels:
    return voxels_of(*room(size=size), spec.voxel_size, coarsest=1 << len(spec.down))


@pytest.mark.parametrize("statistics", ["training", "scan"])
def test_voxels_are_the_networks_own(statistics: Literal["training", "scan"]) -> None:
    xyz, rgb = room()
    xyz -= np.array([1.7, 2.2, 0.3], np.float32)  # some coordinates negative
    network = make_network(spec=replace(SPEC, statistics=statistics))
    codes, voxel = network.codes(xyz, rgb)
    expected = (codes @ (network.basis @ TEXT.T))[voxel]
    voxels = voxels_of(xyz, rgb, network.voxel_size, coarsest=4)
    assert np.array_equal(voxels.of_point, voxel)
    best, score, num_tiles = score_voxels(network, voxels, TEXT)
    assert num_tiles == 1
    assert np.array_equal(best[voxels.of_point], expected.argmax(axis=1))
    assert np.abs(score[voxels.of_point] - expected.max(axis=1)).max() < 1e-5


def test_points_without_colours_are_grey() -> None:
    xyz, rgb = room()
    network = make_network()
    grey = score_voxels(network, voxels_of(xyz, None, 0.05, coarsest=4), TEXT)[1]
    expected = (network.embed(xyz, None) @ TEXT.T).max(axis=1)
    assert np.abs(grey[voxels_of(xyz, None, 0.05).of_point] - expected).max() < 1e-5
    assert not voxels_of(xyz, None, 0.05).colours.any()
    assert voxels_of(xyz, rgb, 0.05).colours.any()


def test_with_the_whole_receptive_field_tiles_change_digits_only() -> None:
    spec = NetworkSpec(16, 0.05, 8, 5, (8,), (8,), 1)
    network = make_network(spec=spec)
    voxels = _voxels(spec)
    whole = score_voxels(network, voxels, TEXT)
    tiled = score_voxels(network, voxels, TEXT, tiling=Tiling(5_000, receptive_radius(spec)))
    assert tiled[2] > 2
    assert np.array_equal(tiled[0], whole[0])
    assert np.abs(tiled[1] - whole[1]).max() < 1e-5


def test_the_receptive_field_is_not_stated_too_small() -> None:
    """Voxels in a line: what an input changes lies within the radius, and reaches further than half of it."""
    network = make_network()
    cells = np.zeros((200, 3), np.int32)
    cells[:, 0] = np.arange(200)
    grey = np.zeros((200, 3), np.float32)
    lit = grey.copy()
    lit[100] = 1
    of_point = np.arange(200, dtype=np.int32)
    scores = [score_voxels(network, Voxels(cells, colours, of_point), TEXT)[1] for colours in (grey, lit)]
    changed = np.flatnonzero(scores[0] != scores[1])
    reach = max(100 - changed.min(), changed.max() - 100)
    assert receptive_radius(SPEC) / 2 < reach <= receptive_radius(SPEC)


def test_tiles_do_not_show() -> None:
    """The levels of the preset `cpu`, whose receptive field is wider than the margin: at least 99.5 % of labels agree."""
    assert receptive_radius(CPU_SHAPE) > 2 * MARGIN
    network = make_network(spec=CPU_SHAPE)
    rooms = [room(seed, size=2.5, count=5_000) for seed in range(6)]
    xyz = np.concatenate([part + np.float32([2.6 * k, 0, 0]) for k, (part, _) in enumerate(rooms)])
    rgb = np.concatenate([part for _, part in rooms])
    voxels = voxels_of(xyz, rgb, 0.05, coarsest=16)
    vectors = network.codes(xyz, rgb)[0] @ network.basis
    # Texts along the axes of what varies: closer calls than those between the words of a trained network.
    axes = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)[2][:4]
    axes -= np.outer(axes @ vectors.mean(axis=0), vectors.mean(axis=0)) / (vectors.mean(axis=0) ** 2).sum()
    text = np.concatenate([axes, -axes]) / np.tile(np.linalg.norm(axes, axis=1), 2)[:, None]
    whole = score_voxels(network, voxels, text)
    tiled = score_voxels(network, voxels, text, tiling=Tiling(len(voxels) * 13 // 20))
    assert tiled[2] >= 3
    assert (np.bincount(whole[0]) > 0.05 * len(voxels)).sum() >= 3
    assert (tiled[0] == whole[0]).mean() >= 0.995


def test_rooms_of_a_building_are_normalised_one_by_one() -> None:
    """Where tiles take their own statistics, they are as large as a room, and what a room says hardly depends on the next."""
    network = make_network(spec=replace(SPEC, statistics="scan"))
    xyz, rgb = room(count=6_000)
    alone = voxels_of(xyz, rgb, network.voxel_size, coarsest=4)
    network.scene_voxels = len(alone)
    assert tiling_of(network) == Tiling(round(1.5 * len(alone)), round(len(alone) ** 0.5 / 4))
    assert tiling_of(make_network()) == Tiling()
    wide = np.concatenate([xyz + np.float32([8 * k, 0, 0]) for k in range(4)])
    dark = np.concatenate([rgb // (k + 1) for k in range(4)])
    voxels = voxels_of(wide, dark, network.voxel_size, coarsest=4)
    best, _, num_tiles = score_voxels(network, voxels, TEXT)
    expected = score_voxels(network, alone, TEXT)[0][alone.of_point]
    first = best[voxels.of_point[: len(xyz)]]
    whole = score_voxels(network, voxels, TEXT, tiling=Tiling())[0][voxels.of_point[: len(xyz)]]
    assert num_tiles == 4
    assert (first == expected).mean() > 0.99 > 0.9 > (whole == expected).mean()


@pytest.mark.gpu
def test_cuda_says_the_same() -> None:
    network = make_network()
    voxels = _voxels(SPEC)
    best, score, _ = score_voxels(network, voxels, TEXT)
    on_cuda = score_voxels(network.to(torch.device("cuda")), voxels, TEXT, tiling=Tiling(5_000))
    assert (on_cuda[0] == best).mean() > 0.999
    assert np.abs(on_cuda[1] - score).max() < 1e-3
