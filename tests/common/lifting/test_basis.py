"""The shared basis: unseen rooms keep their directions and their answers, and what no basis fits stays at full rank."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ov3d.common.base.errors import CorruptFileError
from ov3d.common.features.crops import CropPlan
from ov3d.common.features.extract import extract_features
from ov3d.common.features.store import FeatureStore
from ov3d.common.lifting.basis import BasisConfig, TextMetric, choose_basis, read_basis, write_basis
from ov3d.common.lifting.features import SOURCE_KEY, encoded, thinned
from ov3d.common.lifting.lift import LiftConfig, LiftedFeatures, lift, read_lifted, write_lifted
from ov3d.common.worlds.gallery import GalleryConfig, write_gallery
from tests.colour_encoder import ColourEncoder

DIM, SCENES, UNSEEN = 160, 5, 5


def _scene(number: int, texts: np.ndarray, rows: int = 3000) -> np.ndarray:
    """Unit features around a few directions that scenes share, one text, and things that only this scene has."""
    rng = np.random.default_rng(number)
    common = np.random.default_rng(99).normal(size=(6, DIM))
    own = rng.normal(size=(4, DIM))
    parts = np.concatenate([common, texts, own])
    weights = rng.dirichlet(np.full(len(parts), 0.15), rows)
    values = weights @ (parts / np.linalg.norm(parts, axis=1, keepdims=True)) + 0.003 * rng.normal(size=(rows, DIM))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


CONFIG = BasisConfig(energy=0.995)
"""The scenes here hold noise of 0.3 per cent, which no small basis keeps."""


@pytest.fixture(scope="module")
def texts() -> np.ndarray:
    values = np.random.default_rng(7).normal(size=(12, DIM)) + 0.5
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def test_an_unseen_scene_keeps_directions_and_answers(texts: np.ndarray) -> None:
    basis = choose_basis(((str(n), _scene(n, texts)) for n in range(SCENES)), texts, CONFIG)
    assert basis.made_from == ("0", "1", "2", "3", "4")
    assert basis.energy_kept >= 0.96
    features = _scene(UNSEEN, texts)
    coder = basis.coder(features[::2])
    assert coder is not None
    assert len(basis.rows) == coder.num_shared < len(coder.basis) <= DIM // 2  # it has rows of its own
    back = coder.encode(features).astype(np.float16).astype(np.float32) @ coder.basis
    cosine = (features * back).sum(1) / np.linalg.norm(back, axis=1)
    assert cosine.mean() >= 0.99
    assert (1 - np.square(features - back).sum() / np.square(features).sum()) >= 0.993
    assert coder.energy_kept >= 0.994
    agreement = ((features @ texts.T).argmax(1) == (back @ texts.T).argmax(1)).mean()
    assert agreement >= 0.99
    shared = basis.coder(_scene(0, texts))
    assert shared is not None
    np.testing.assert_array_equal(shared.encoder[: shared.num_shared], coder.encoder[: coder.num_shared])


def test_texts_decide_which_directions_are_kept(texts: np.ndarray) -> None:
    scenes = [(str(n), _scene(n, texts)) for n in range(SCENES)]
    features = _scene(UNSEEN, texts)
    errors = []
    for weight in (0.0, 20.0):
        coder = choose_basis(
            iter(scenes), texts, BasisConfig(energy=0.8, shared_energy=0.75, text_weight=weight)
        ).coder(features)
        assert coder is not None
        errors.append(np.abs((coder.encode(features) @ coder.basis - features) @ texts.T).mean() / len(coder.basis))
    assert errors[1] < 0.6 * errors[0]


def test_the_metric_is_undone(texts: np.ndarray) -> None:
    metric = TextMetric.of(texts, 1.5)
    values = np.random.default_rng(0).normal(size=(20, DIM))
    np.testing.assert_allclose(metric.undo(metric.apply(values)), values, atol=1e-10)
    wanted = np.square(values).sum(1) + 1.5 * DIM / len(texts) * np.square(values @ texts.T).sum(1)
    np.testing.assert_allclose(np.square(metric.apply(values)).sum(1), wanted, rtol=1e-5)
    np.testing.assert_array_equal(TextMetric.of(texts[:0], 1.5).apply(values), values)


def test_what_no_basis_fits_stays_whole(texts: np.ndarray) -> None:
    noise = np.random.default_rng(1).normal(size=(2000, DIM)).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    assert choose_basis([("a", noise)], texts, CONFIG).coder(noise) is None
    assert choose_basis([("a", _scene(0, texts))], texts, BasisConfig(energy=1)).coder(_scene(0, texts)) is None
    fine = choose_basis([("a", _scene(0, texts))], texts, CONFIG)
    assert fine.coder(noise) is None  # a scene unlike all others
    narrow = texts[:, :32]
    assert choose_basis([("a", _scene(0, texts)[:, :32])], narrow, BasisConfig()).coder(narrow) is None


def test_files_come_back(texts: np.ndarray, tmp_path: Path) -> None:
    basis = choose_basis([("a", _scene(0, texts))], texts, BasisConfig(text_weight=2))
    path = write_basis(tmp_path / "basis.safetensors", basis)
    back = read_basis(path)
    np.testing.assert_array_equal(back.rows, basis.rows)
    assert (back.config, back.made_from, back.key) == (basis.config, basis.made_from, basis.key)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CorruptFileError):
        read_basis(path)


def test_codes_of_whole_features_equal_lifted_codes(texts: np.ndarray, tmp_path: Path) -> None:
    features = _scene(3, texts, 400)
    ones = np.ones(400)
    whole = LiftedFeatures(
        features.astype(np.float16),
        np.arange(0, 1200, 3, dtype=np.int32),
        ones.astype(np.float32),
        ones.astype(np.int32),
        1200,
        "k",
    )
    sample = thinned(whole, 150)
    assert len(sample) == 134
    assert sample.facts[SOURCE_KEY] == "k" != sample.key
    coder = choose_basis([("k", sample.features())], texts, CONFIG).coder(sample.features())
    low = encoded(whole, coder)
    assert low.code.shape[1] < DIM // 2
    assert np.abs(low.scores(texts) - whole.scores(texts)).mean() < 0.01
    path = write_lifted(tmp_path / "low.safetensors", low)
    back = read_lifted(path)
    np.testing.assert_array_equal(back.point_row, low.point_row)
    assert (back.key, back.facts) == (low.key, low.facts)
    write_lifted(tmp_path / "sparse.safetensors", replace(low, num_points=10**6))
    np.testing.assert_array_equal(read_lifted(tmp_path / "sparse.safetensors").point_row, low.point_row)


def test_generated_rooms_that_were_not_seen(tmp_path: Path) -> None:
    encoder = ColourEncoder()
    store = FeatureStore(tmp_path / "features", encoder.card, CropPlan(fractions=(0.1,), stride=0.5))
    config = LiftConfig(border=2)
    rooms = []
    for seed in range(4):
        room = GalleryConfig(seed=seed, photographs=(), furniture=5, num_views=4, width=96, height=72)
        scene = write_gallery(tmp_path / str(seed), room)
        extract_features(scene.frames, store, encoder)
        assert scene.cloud is not None
        rooms.append((scene, lift(scene.cloud, scene.frames, store, config)))
    texts = encoder.encode_text(["floor", "box", "sea", "grass"])
    samples = ((str(idx), thinned(full, 4000).features()) for idx, (_, full) in enumerate(rooms[:3]))
    basis = choose_basis(samples, texts, CONFIG)
    scene, full = rooms[3]
    assert scene.cloud is not None
    coder = basis.coder(lift(scene.cloud, scene.frames, store, config, sample_rows=1000).features())
    low = lift(scene.cloud, scene.frames, store, config, coder=coder)
    assert low.basis is not None
    np.testing.assert_array_equal(low.norms, full.norms)
    first, second = full.features(), low.features()
    assert ((first * second).sum(1) / np.linalg.norm(second, axis=1)).mean() >= 0.99
    assert (full.scores(texts).argmax(1) == low.scores(texts).argmax(1)).mean() >= 0.99
    assert low.code.shape[1] * 4 <= full.code.shape[1]
