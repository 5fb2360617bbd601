"""Voxels of clouds of any size, and tiles of them: every voxel in one core, with all that is around it."""

from __future__ import annotations

import numpy as np
import pytest

from ov3d.common.base.errors import DataError
from ov3d.common.sparse import tiles
from ov3d.common.sparse.tiles import Tiling, tiles_of, voxels_of
from tests.points.networks import room


@pytest.mark.parametrize("coarsest", [1, 4])
def test_voxels_are_those_of_plain_numpy(coarsest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    xyz, rgb = room(count=3_000)
    xyz -= np.array([1.7, 2.2, 0.3], np.float32)  # some coordinates negative
    cells = np.floor((xyz + np.float32(0.025)) / np.float32(0.05)).astype(np.int64)
    expected, inverse = np.unique(cells, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    for block in (1 << 20, 1_000):
        monkeypatch.setattr(tiles, "BLOCK_POINTS", block)
        found = voxels_of(xyz, rgb, 0.05, coarsest=coarsest)
        corner = expected[0] - found.cells[0]
        assert (corner % coarsest == 0).all() and (cells.min(axis=0) - corner < coarsest).all()
        assert np.array_equal(found.cells, expected - corner)
        assert np.array_equal(found.of_point, inverse)
    for voxel in (0, len(found) // 2):
        mean = rgb[inverse == voxel].mean(axis=0) * (2 / 255) - 1
        assert np.abs(found.colours[voxel] - mean).max() < 1e-6
    assert not voxels_of(xyz, None, 0.05).colours.any()


@pytest.mark.parametrize(("max_voxels", "margin"), [(10**9, 5), (3000, 5), (1500, 20), (1, 8)])
def test_cores_are_a_partition_and_margins_complete(max_voxels: int, margin: int) -> None:
    cells = voxels_of(*room(), 0.05, coarsest=4).cells
    covered = np.zeros(len(cells), int)
    for tile in tiles_of(cells, Tiling(max_voxels, margin)):
        core = tile.rows[tile.core]
        covered[core] += 1
        low, high = cells[core].min(axis=0) - margin, cells[core].max(axis=0) + margin
        inside = np.flatnonzero(((cells >= low) & (cells <= high)).all(axis=1))
        assert np.array_equal(tile.rows, inside)
        assert len(tile.rows) <= max_voxels or np.ptp(cells[core], axis=0).max() < margin
    assert (covered == 1).all()


def test_a_cloud_too_large_for_its_voxels_is_said() -> None:
    xyz = np.array([[0, 0, 0], [3e5, 0, 0]], np.float32)
    with pytest.raises(DataError, match="300,000 across.*--scale"):
        voxels_of(xyz, None, 0.05)


def test_no_point() -> None:
    empty = voxels_of(np.zeros((0, 3), np.float32), None, 0.05)
    assert len(empty) == 0
    assert list(tiles_of(empty.cells, Tiling())) == []
