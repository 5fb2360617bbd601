"""LanguageIndex: what is written comes back, and scores are those of the features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ov3d.common.asking import index as index_module
from ov3d.common.asking.index import LanguageIndex, read_index, write_index
from ov3d.common.base.errors import CorruptFileError, DataError
from ov3d.common.language.cards import EncoderCard, Identity
from ov3d.common.lifting.features import LiftedFeatures
from ov3d.common.lifting.projection import median_spacing
from ov3d.common.scenes.scene import PointCloud, Scene, World

CARD = EncoderCard("fake", Identity("i", "w", "p", "f"), Identity("t", "w", "p", "f"), 20, 10.0, 0.2, False)

DIM = 96


def _index(owner: np.ndarray | None, num_codes: int = 50, num_points: int = 50) -> LanguageIndex:
    rng = np.random.default_rng(0)
    return LanguageIndex(
        xyz=rng.normal(size=(num_points, 3)).astype(np.float32),
        code=rng.normal(size=(num_codes, 6)).astype(np.float16),
        basis=np.linalg.qr(rng.normal(size=(20, 6)))[0].T.astype(np.float32),
        owner=owner,
        scene="room",
        scene_path="/data/room",
        world=World("arbitrary", (0.0, 1.0, 0.0), (5e5, 4e6, 100.0)),
        backend="points/fuse",
        encoder=CARD,
        rgb=rng.integers(0, 255, (num_points, 3), dtype=np.uint8),
        instance=np.arange(num_points, dtype=np.int32),
        vocabulary=("chair", "Käse"),
        facts={"point_spacing": 0.02},
    )


OWNER = np.random.default_rng(3).integers(-1, 8, 50).astype(np.int32)


@pytest.mark.parametrize("owner", [None, OWNER])
def test_comes_back_whole(tmp_path: Path, owner: np.ndarray | None) -> None:
    index = _index(owner, 50 if owner is None else 8)
    path = write_index(tmp_path / "index.safetensors", index)
    back = read_index(path)
    for name in ("xyz", "code", "basis", "owner", "rgb", "instance"):
        np.testing.assert_array_equal(getattr(back, name), getattr(index, name))
    for name in ("scene", "scene_path", "world", "backend", "encoder", "vocabulary", "facts"):
        assert getattr(back, name) == getattr(index, name)
    first = path.read_bytes()
    assert write_index(path, back).read_bytes() == first


def test_scores_are_those_of_the_features(monkeypatch: pytest.MonkeyPatch) -> None:
    text = np.random.default_rng(5).normal(size=(3, 20)).astype(np.float32)
    monkeypatch.setattr(index_module, "SCORE_BLOCK_ROWS", 7)
    own, shared = _index(None), _index(OWNER, 8)
    features = own.code.astype(np.float64) @ own.basis
    np.testing.assert_allclose(own.scores(text), features @ text.T, atol=1e-5)
    features = shared.code.astype(np.float64) @ shared.basis
    expected = np.where(OWNER[:, None] >= 0, features[OWNER] @ text.T, 0)
    np.testing.assert_allclose(shared.scores(text), expected, atol=1e-5)
    np.testing.assert_array_equal(shared.seen, OWNER >= 0)
    prediction = shared.predict(("a", "b", "c"), text)
    labels = prediction.labels(0.5)
    for point in range(50):
        best = int(expected[point].argmax())
        assert labels[point] == (best if OWNER[point] >= 0 and expected[point].max() >= 0.5 else -1)


def _lifted(num_points: int, seen: np.ndarray, basis: np.ndarray | None) -> LiftedFeatures:
    rng = np.random.default_rng(1)
    code = rng.normal(size=(len(seen), 16)) @ rng.normal(size=(16, DIM if basis is None else len(basis)))
    code /= np.linalg.norm(code, axis=1, keepdims=True)
    ones = np.ones(len(seen), np.float32)
    views = np.ones(len(seen), np.int32)
    return LiftedFeatures(code.astype(np.float16), seen, ones, views, num_points, "key", basis)


def _orthonormal(rank: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(2).normal(size=(DIM, rank)))[0].T.astype(np.float32)


@pytest.mark.parametrize("seen", [np.arange(200, dtype=np.int32), np.arange(0, 200, 3, dtype=np.int32)])
@pytest.mark.parametrize("rank", [None, 70])
def test_of_lifted_answers_as_the_features_do(tmp_path: Path, seen: np.ndarray, rank: int | None) -> None:
    lifted = _lifted(200, seen, None if rank is None else _orthonormal(rank))
    xyz = np.random.default_rng(4).normal(size=(200, 3)).astype(np.float32)
    scene = Scene(
        "room", tmp_path, "made", cloud=PointCloud(xyz, np.zeros((200, 3), np.uint8)), world=World("arbitrary")
    )
    card = replace(CARD, dim=DIM)
    text = np.random.default_rng(5).normal(size=(4, DIM)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    expected = np.zeros((200, 4), np.float32)
    expected[seen] = lifted.scores(text)
    kept = LanguageIndex.of_lifted(lifted, scene, card, backend="points/fuse", facts={"frames": 3})
    assert (kept.owner is None) == (len(seen) == 200) and kept.facts["frames"] == 3
    np.testing.assert_allclose(kept.scores(text), expected, atol=1e-6)
    assert kept.facts["point_spacing"] == median_spacing(xyz)
    small = LanguageIndex.of_lifted(
        lifted, scene, card, backend="x", vocabulary=("cat",), facts={"point_spacing": 9.0}, probes=text, tolerance=0.05
    )
    assert np.abs(small.scores(text) - expected).max() <= 0.05 + 1e-6
    assert small.facts["basis_score_error"] <= 0.05 and small.facts["point_spacing"] == 9.0
    assert small.code.shape[1] < lifted.code.shape[1] and (small.backend, small.vocabulary) == ("x", ("cat",))
    back = small.to_scene()
    assert (back.name, back.path, back.world, back.frames) == ("room", tmp_path.resolve(), scene.world, ())
    assert back.cloud is not None
    np.testing.assert_array_equal(back.cloud.xyz, xyz)
    with pytest.raises(DataError, match="200 points do not fit the cloud of room"):
        LanguageIndex.of_lifted(lifted, replace(scene, cloud=PointCloud(xyz[:9])), card, backend="x")


def test_parts_that_do_not_fit_are_refused() -> None:
    index = _index(None)
    with pytest.raises(DataError, match="no owners"):
        _index(None, 8)
    with pytest.raises(DataError, match="do not fit"):
        replace(index, basis=np.zeros((6, 21), np.float32))


def test_a_changed_bit_is_noticed(tmp_path: Path) -> None:
    path = write_index(tmp_path / "index.safetensors", _index(None))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CorruptFileError, match="damaged"):
        read_index(path)
