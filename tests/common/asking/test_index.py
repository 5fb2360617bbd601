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
from ov3d.common.scenes.scene import World

CARD = EncoderCard("fake", Identity("i", "w", "p", "f"), Identity("t", "w", "p", "f"), 20, 10.0, 0.2, False)


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
