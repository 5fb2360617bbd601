"""Low-rank codes: small where features allow it, the scores kept in any case."""

from __future__ import annotations

import numpy as np
import pytest

from ov3d.common.lifting.lowrank import RANK_STEP, compress

DIM = 160


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _features(rank: int, noise: float, num_rows: int = 3000) -> np.ndarray:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(num_rows, rank)) @ rng.normal(size=(rank, DIM)) / np.sqrt(rank)
    return _unit(rows + noise * rng.normal(size=rows.shape)).astype(np.float16)


def _probes(seed: int = 1) -> np.ndarray:
    return _unit(np.random.default_rng(seed).normal(size=(40, DIM)))


def _scores(code: np.ndarray, basis: np.ndarray, text: np.ndarray) -> np.ndarray:
    return code.astype(np.float32) @ (basis @ text.T)


@pytest.mark.parametrize("rank", [5, 30])
def test_rank_follows_the_features(rank: int) -> None:
    features = _features(rank, 0.0)
    found = compress(features, _probes())
    assert rank <= found.rank <= rank + 2 * RANK_STEP
    assert found.energy_kept > 0.99999
    np.testing.assert_allclose(found.basis @ found.basis.T, np.eye(found.rank), atol=1e-5)
    unseen = _probes(seed=2)
    change = _scores(found.code, found.basis, unseen) - features.astype(np.float32) @ unseen.T
    assert np.abs(change).max() < 1e-3


@pytest.mark.parametrize("noise", [0.0, 0.001, 0.01, 0.3])
def test_no_probe_loses_more_than_the_tolerance(noise: float) -> None:
    features, probes = _features(12, noise), _probes()
    for tolerance in (1e-3, 1e-2):
        found = compress(features, probes, tolerance=tolerance)
        change = np.abs(_scores(found.code, found.basis, probes) - features.astype(np.float32) @ probes.T).max()
        assert change <= tolerance
        assert found.max_error == pytest.approx(change, abs=1e-6)


def test_features_without_structure_are_kept_as_they_are() -> None:
    features = _features(DIM, 0.0)
    found = compress(features, _probes())
    np.testing.assert_array_equal(found.code, features)
    np.testing.assert_array_equal(found.basis, np.eye(DIM, dtype=np.float32))
    assert (found.max_error, found.energy_kept) == (0.0, 1.0)


def test_a_rare_direction_is_not_lost_when_someone_may_ask_for_it() -> None:
    """Two points in three thousand hold what the probe asks for: the energy of the rest must not outvote them."""
    features = _features(5, 0.0)
    rare = _unit(np.random.default_rng(7).normal(size=(1, DIM)))
    features[[10, 2000]] = rare.astype(np.float16)
    blind, asked = compress(features, _probes()[:1]), compress(features, rare)
    np.testing.assert_allclose(_scores(asked.code[[10, 2000]], asked.basis, rare), 1.0, atol=1e-3)
    assert asked.rank >= blind.rank


def test_narrow_or_few_rows_need_no_basis() -> None:
    narrow = _unit(np.random.default_rng(0).normal(size=(200, 64))).astype(np.float16)
    assert compress(narrow, narrow[:2].astype(np.float32)).rank == 64
    for num_rows in (0, 3):
        few = _features(3, 0.0)[:num_rows]
        np.testing.assert_array_equal(compress(few, _probes()).code, few)
