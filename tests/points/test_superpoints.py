"""Superpoints: pieces that a wall and a box are told apart by, the same every time; majority inside them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ov3d.common.base.errors import DataError
from ov3d.common.lifting.lift import LiftedFeatures
from ov3d.common.scenes.scene import IGNORE
from ov3d.points.superpoints import SuperpointConfig, pooled_features, pooled_key, propagate, superpoints


def _corner(step: float = 0.05) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A floor and a wall that meet, the wall's left half red: positions, colours, the three true pieces."""
    side = np.arange(0, 2, step)
    u, v = (part.ravel() for part in np.meshgrid(side, side))
    noise = np.random.default_rng(0).normal(0, 0.002, (2, len(u)))
    floor = np.column_stack([u, v, noise[0]])
    wall = np.column_stack([u, noise[1] - step, v + step])
    xyz = np.concatenate([floor, wall]).astype(np.float32)
    piece = np.concatenate([np.zeros(len(u), int), np.where(u < 1, 1, 2)])
    rgb = np.array([[90, 90, 90], [200, 30, 30], [220, 220, 220]], np.uint8)[piece]
    return xyz, rgb, piece


def test_planes_and_colours_are_told_apart() -> None:
    xyz, rgb, truth = _corner()
    found = superpoints(xyz, rgb)
    agreed = propagate(truth.astype(np.int32), found)
    assert (agreed == truth).mean() > 0.95
    assert found.max() + 1 <= 12  # pieces, not crumbs
    assert np.array_equal(np.unique(found), np.arange(found.max() + 1))
    by_shape = superpoints(xyz, None)
    shape_truth = np.minimum(truth, 1).astype(np.int32)
    assert (propagate(shape_truth, by_shape) == shape_truth).mean() > 0.95


def test_the_same_every_time_and_in_any_unit() -> None:
    xyz, rgb, _ = _corner()
    once = superpoints(xyz, rgb)
    assert np.array_equal(once, superpoints(xyz.copy(), rgb.copy()))
    eight = superpoints(xyz * np.float32(8), rgb)  # a power of two: the same digits
    assert np.array_equal(once, eight)


def test_a_larger_scale_gives_larger_pieces() -> None:
    xyz, rgb, _ = _corner()
    counts = [superpoints(xyz, rgb, SuperpointConfig(scale=scale, min_voxels=1)).max() for scale in (0.02, 0.2, 5.0)]
    assert counts[0] > counts[1] > counts[2]


def test_few_points() -> None:
    assert superpoints(np.zeros((0, 3), np.float32), None).tolist() == []
    assert superpoints(np.zeros((1, 3), np.float32), None).tolist() == [0]
    assert superpoints(np.zeros((5, 3), np.float32), None).tolist() == [0] * 5
    assert len(np.unique(superpoints(np.eye(3, dtype=np.float32), None))) <= 3
    with pytest.raises(DataError, match="not finite"):
        superpoints(np.full((3, 3), np.nan, np.float32), None)


def test_majority_ties_to_the_smaller_and_unknown_points_follow() -> None:
    labels = np.array([3, 1, IGNORE, IGNORE, IGNORE, 5, 5, 2], np.int32)
    superpoint = np.array([0, 0, 0, 1, 1, 2, 2, 2], np.int32)
    assert propagate(labels, superpoint).tolist() == [1, 1, 1, IGNORE, IGNORE, 5, 5, 5]
    assert propagate(np.zeros(0, np.int32), np.zeros(0, np.int32)).tolist() == []


@settings(max_examples=50, deadline=None)
@given(
    arrays(np.int32, 40, elements=st.integers(IGNORE, 4)),
    arrays(np.int32, 40, elements=st.integers(0, 6)),
)
def test_majority_is_that_of_a_plain_loop(labels: np.ndarray, superpoint: np.ndarray) -> None:
    expected = np.empty(40, np.int32)
    for number in range(40):
        votes = [label for label, own in zip(labels, superpoint, strict=True) if own == superpoint[number]]
        known = [int(label) for label in votes if label != IGNORE]
        expected[number] = min(set(known), key=lambda label: (-known.count(label), label)) if known else IGNORE
    assert np.array_equal(propagate(labels, superpoint), expected)


def test_pooling_gives_the_mean_of_a_piece() -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(size=(30, 4))
    norms = np.linalg.norm(means, axis=1)
    point_row = np.arange(0, 60, 2, dtype=np.int32)
    superpoint = (np.arange(60, dtype=np.int32) // 2 * 7) % 5 + 3
    code = (means / norms[:, None]).astype(np.float16)
    views = np.ones(30, np.int32)
    lifted = LiftedFeatures(code, point_row, norms.astype(np.float32), views, 60, "key")
    pooled = pooled_features(lifted, superpoint)
    means = code.astype(np.float64) * norms.astype(np.float32)[:, None]
    expected = np.stack([means[superpoint[point_row] == superpoint[point]].mean(axis=0) for point in point_row])
    assert np.allclose(pooled.code * pooled.norms[:, None], expected, atol=2e-3)
    assert np.allclose(pooled.norms, np.linalg.norm(expected, axis=1), atol=1e-6)
    assert pooled.key == pooled_key(lifted) != lifted.key


def test_pooling_nothing_gives_nothing() -> None:
    none = np.zeros(0, np.int32)
    lifted = LiftedFeatures(np.zeros((0, 4), np.float16), none, np.zeros(0, np.float32), none, 9, "key")
    assert len(pooled_features(lifted, np.zeros(9, np.int32))) == 0
