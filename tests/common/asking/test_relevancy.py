"""Softmax, relevancy, connected voxels and found objects, against slow twins and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial import cKDTree

from ov3d.common.asking.relevancy import (
    find_objects,
    peak_score,
    percentile,
    point_spacing,
    relevancy,
    voxel_size_for,
)
from ov3d.common.asking.voxel_components import grow, label_components, voxelise
from ov3d.common.base.errors import DataError


def blob(rng: np.random.Generator, centre: tuple[float, float, float], half: tuple[float, float, float]) -> np.ndarray:
    """Points on a 5 cm lattice that fill a box, slightly jittered."""
    axes = [np.arange(-edge, edge + 1e-6, 0.05) for edge in half]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3) + centre
    return (points + rng.uniform(-0.005, 0.005, points.shape)).astype(np.float32)


def room() -> tuple[np.ndarray, np.ndarray]:
    """A floor that scores 0.05 and three boxes of 0.5, 0.4 and 0.3 with noise."""
    rng = np.random.default_rng(3)
    floor = blob(rng, (0.0, 0.0, 0.0), (3.0, 3.0, 0.0))
    boxes = [
        blob(rng, (1.0, 1.0, 1.0), (0.2, 0.3, 0.4)),
        blob(rng, (-1.0, 1.0, 0.5), (0.1, 0.1, 0.1)),
        blob(rng, (0.0, -2.0, 0.6), (0.5, 0.1, 0.2)),
    ]
    scores = [
        np.full(len(floor), 0.05),
        *(np.full(len(box), peak) for box, peak in zip(boxes, (0.4, 0.5, 0.3), strict=True)),
    ]
    values = np.concatenate(scores) + rng.normal(0, 0.005, sum(map(len, scores)))
    order = rng.permutation(len(values))
    return np.concatenate([floor, *boxes])[order], values.astype(np.float32)[order]


# --------------------------------------------------------------------------------------------------------- relevancy


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 5), st.floats(0.1, 50), st.integers(0, 100))
def test_relevancy_is_the_least_pairwise_softmax(n: int, k: int, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    positive, negatives = rng.uniform(-1, 1, n), rng.uniform(-1, 1, (n, k))
    twin = np.exp(scale * positive)[:, None] / (np.exp(scale * positive)[:, None] + np.exp(scale * negatives))
    np.testing.assert_allclose(relevancy(positive, negatives, scale), twin.min(1), atol=1e-5)


def test_relevancy_stays_finite_at_any_scale_and_is_one_half_at_a_tie() -> None:
    positive = np.array([1.0, -1.0, 0.3], np.float32)
    values = relevancy(positive, np.array([[-1.0], [1.0], [0.3]], np.float32), 1e6)
    np.testing.assert_allclose(values, [1.0, 0.0, 0.5])
    assert (relevancy(positive, np.zeros((3, 0), np.float32), 10.0) == 1).all()


def test_percentile_and_peak() -> None:
    values = np.random.default_rng(0).normal(size=1001).astype(np.float32)
    assert percentile(values, 50.0) == np.median(values)
    assert percentile(values, 99.5) == np.sort(values)[995]
    assert peak_score(values) == pytest.approx(np.sort(values)[-101:].mean())
    assert peak_score(np.array([0.25], np.float32)) == 0.25


# ------------------------------------------------------------------------------------------------- connected voxels


@pytest.mark.parametrize("share", [0.02, 0.08, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_components_equal_scipy(share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    filled = rng.random((17, 23, 19)) < share
    cells = np.argwhere(filled)
    points = np.repeat(cells, 2, axis=0) + rng.uniform(0.05, 0.95, (2 * len(cells), 3))
    points = np.concatenate([points, [[0.0, 0.0, 0.0]]])  # pins the lattice to the array's
    filled[0, 0, 0] = True
    shuffled = rng.permutation(len(points))
    grid = voxelise(points[shuffled], 1.0)
    ours = label_components(grid, np.zeros(grid.num_voxels, np.int64))[grid.voxel_of]
    theirs = ndimage.label(filled, np.ones((3, 3, 3)))[0][tuple(np.floor(points[shuffled]).astype(int).T)]
    assert grid.num_voxels == filled.sum()
    pairs = {(a, b) for a, b in zip(ours.tolist(), theirs.tolist(), strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_edges_are_each_pair_of_touching_voxels_once() -> None:
    points = np.random.default_rng(1).uniform(0, 6, (120, 3))
    grid = voxelise(points, 1.0)
    cell = np.zeros((grid.num_voxels, 3))
    cell[grid.voxel_of] = np.floor(points - points.min(0))
    a, b = np.triu_indices(grid.num_voxels, 1)
    twin = np.abs(cell[a] - cell[b]).max(1) <= 1
    assert {tuple(sorted(pair)) for pair in grid.edges.tolist()} == set(
        zip(a[twin].tolist(), b[twin].tolist(), strict=True)
    )
    assert len(grid.edges) == twin.sum()


def test_a_long_winding_chain_is_one_component() -> None:
    steps = np.random.default_rng(2).integers(-1, 2, (3000, 3))
    grid = voxelise(np.cumsum(steps, axis=0).astype(np.float64) + 0.5, 1.0)
    assert (label_components(grid, np.zeros(grid.num_voxels, np.int64)) == 0).all()


def test_regions_keep_apart_and_grow_down_to_their_level_only() -> None:
    line = np.column_stack([np.arange(12) + 0.5, np.zeros(12), np.zeros(12)])
    values = np.array([9, 5, 4, 3, 2, 1, 2, 3, 4, 5, 9, 0], np.float32)
    grid = voxelise(line, 1.0)
    cores = label_components(grid, np.where(values >= 9, 0, -1))
    assert cores.tolist() == [0, -1, -1, -1, -1, -1, -1, -1, -1, -1, 1, -1]
    grown = grow(grid, cores, values, np.array([2, 4], np.float32), 99)
    assert grown.tolist() == [0, 0, 0, 0, 0, -1, -1, -1, 1, 1, 1, -1]
    assert grow(grid, cores, values, np.array([2, 4], np.float32), 1).tolist() == [0, 0, *[-1] * 7, 1, 1, -1]
    touching = label_components(grid, np.array([0] * 6 + [1] * 6))
    assert touching.tolist() == [0] * 6 + [1] * 6


def test_too_fine_voxels_are_refused() -> None:
    with pytest.raises(DataError, match="too small"):
        voxelise(np.array([[0.0, 0, 0], [1e9, 0, 0]]), 1.0)


# ----------------------------------------------------------------------------------------------------- found objects


def test_objects_have_the_right_order_centres_and_sizes() -> None:
    xyz, scores = room()
    found = find_objects(xyz, scores, threshold=0.2, voxel_size=0.1)
    assert [round(item.score, 1) for item in found] == [0.5, 0.4, 0.3]
    np.testing.assert_allclose([item.centre for item in found], [[-1, 1, 0.5], [1, 1, 1], [0, -2, 0.6]], atol=0.01)
    np.testing.assert_allclose([item.size for item in found], [[0.2] * 3, [0.4, 0.6, 0.8], [1, 0.2, 0.4]], atol=0.06)
    assert [item.num_points for item in found] == [5**3, 9 * 13 * 17, 21 * 5 * 9]
    for item in found:
        assert (scores[item.point_idx] > 0.2).all()
        assert (np.diff(item.point_idx) > 0).all()


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 3), st.integers(0, 2), st.tuples(*[st.integers(-50, 50)] * 3), st.integers(0, 99))
def test_moving_or_turning_the_world_or_shuffling_points_changes_nothing(
    turns: int, axis: int, shift: tuple[int, int, int], seed: int
) -> None:
    xyz, scores = room()
    a, b = [i for i in range(3) if i != axis]
    turn = np.eye(3)
    turn[[a, a, b, b], [a, b, a, b]] = np.round(
        [np.cos(turns * np.pi / 2), -np.sin(turns * np.pi / 2), np.sin(turns * np.pi / 2), np.cos(turns * np.pi / 2)]
    )
    order = np.random.default_rng(seed).permutation(len(xyz))
    moved = (xyz.astype(np.float64) @ turn.T + shift).astype(np.float32)[order]
    before = find_objects(xyz, scores, threshold=0.2, voxel_size=0.1)
    after = find_objects(moved, scores[order], threshold=0.2, voxel_size=0.1)
    assert len(after) == len(before) == 3
    for old, new in zip(before, after, strict=True):
        assert new.score == pytest.approx(old.score, abs=1e-6)
        assert set(order[new.point_idx].tolist()) == set(old.point_idx.tolist())
        np.testing.assert_allclose(new.centre, old.centre @ turn.T + shift, atol=1e-4)
        np.testing.assert_allclose(new.size, np.abs(turn) @ old.size, atol=1e-4)


def test_a_strong_object_sheds_its_halo_and_a_faint_one_grows_to_half_its_height() -> None:
    x = np.arange(0, 10, 0.05)
    line = np.column_stack([x, 0 * x, 0 * x]).astype(np.float32)
    for peak in (0.8, 0.22):
        scores = (peak * np.exp(-(((x - 5) / 1.0) ** 2))).astype(np.float32)
        (item,) = find_objects(line, scores, threshold=0.2, voxel_size=0.15, background=0.0)
        half_width = np.sqrt(-np.log(0.5 * item.score / peak))
        members = x[item.point_idx]
        assert np.ptp(members) / 2 == pytest.approx(half_width, abs=0.06)
        assert item.centre[0] == pytest.approx(5, abs=0.02)
        assert item.score >= 0.2


def test_two_equal_peaks_with_a_bridge_over_the_threshold_come_apart() -> None:
    x = np.arange(0, 10, 0.05)
    line = np.column_stack([x, 0 * x, 0 * x]).astype(np.float32)
    scores = np.maximum(0.6 * np.exp(-((x - 3) ** 2) / 0.2), 0.6 * np.exp(-((x - 7) ** 2) / 0.2)) + 0.0
    scores = np.maximum(scores, np.where((x > 3) & (x < 7), 0.25, 0)).astype(np.float32)
    found = find_objects(line, scores, threshold=0.2, voxel_size=0.15)
    assert [round(float(item.centre[0])) for item in found] == [3, 7]  # a tie in score: the lesser centre first


def test_a_prompt_that_the_whole_scene_answers_is_one_object() -> None:
    xyz, scores = room()
    found = find_objects(xyz[scores > 0.3], scores[scores > 0.3] * 0 + 0.5, threshold=0.2, voxel_size=5.0)
    assert [item.num_points for item in found] == [int((scores > 0.3).sum())]


@pytest.mark.parametrize("n", [0, 1, 9])
def test_too_few_points_are_no_object(n: int) -> None:
    xyz = np.zeros((n, 3), np.float32)
    assert find_objects(xyz, np.full(n, 0.9, np.float32), threshold=0.2, voxel_size=0.1) == []
    found = find_objects(xyz, np.full(n, 0.9, np.float32), threshold=0.2, voxel_size=0.1, min_points=1)
    assert [item.num_points for item in found] == ([n] if n else [])
    for item in found:
        assert np.isfinite([*item.centre, *item.size, item.score]).all()


def test_values_that_are_not_finite_belong_to_no_object() -> None:
    xyz, scores = room()
    xyz, scores = xyz.copy(), scores.copy()
    best = np.argsort(scores)[-40:]
    scores[best[::4]], scores[best[1::4]] = np.nan, np.inf
    xyz[best[2::4], 1] = np.nan
    xyz[best[3::4], 2] = np.inf
    found = find_objects(xyz, scores, threshold=0.2, voxel_size=0.1)
    assert len(found) == 3
    members = np.concatenate([item.point_idx for item in found])
    assert np.isfinite(xyz[members]).all()
    assert np.isfinite(scores[members]).all()
    assert np.isfinite([[item.score, *item.centre, *item.size] for item in found]).all()


# ----------------------------------------------------------------------------------------------------- point spacing


@pytest.mark.parametrize("seed", range(3))
def test_point_spacing_is_near_the_median_of_all_points(seed: int) -> None:
    rng = np.random.default_rng(seed)
    walls = rng.uniform(0, 4, (6000, 3))
    walls[np.arange(6000), rng.integers(0, 3, 6000)] = 0
    points = walls.astype(np.float32)
    truth = np.median(cKDTree(points).query(points, 2)[0][:, 1])
    assert point_spacing(points) == pytest.approx(truth, rel=0.25)
    assert voxel_size_for(points) == pytest.approx(3 * point_spacing(points))
    assert voxel_size_for(points, 0.02) == pytest.approx(0.06)


def test_point_spacing_of_a_lattice_is_exact_and_repeated_points_do_not_count() -> None:
    lattice = np.stack(np.meshgrid(*[np.arange(8)] * 3), -1).reshape(-1, 3).astype(np.float32) * 0.25
    assert point_spacing(np.repeat(lattice, 3, axis=0)) == pytest.approx(0.25)
    assert point_spacing(np.zeros((5, 3), np.float32)) == 0
    assert voxel_size_for(np.zeros((1, 3), np.float32)) == 1
