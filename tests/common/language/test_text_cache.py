"""The text cache: what is kept comes back, and damage counts as missing."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ov3d.common.base import files
from ov3d.common.base.errors import DataError, StorageError
from ov3d.common.language.cards import EncoderCard, Identity
from ov3d.common.language.text_cache import TextCache, encode_prompts

DIM = 8
TEXT = Identity("words", "w1", "none", "float32")
CARD = EncoderCard("fake", Identity("eyes", "w1", "none", "float32"), TEXT, DIM, 10.0, 0.2, True)


class CountingEncoder:
    """A vector a prompt, from its characters."""

    def __init__(self, card: EncoderCard = CARD) -> None:
        self.card = card
        self.asked: list[str] = []

    def encode_crops(self, crops: object) -> object:
        raise AssertionError("text needs no crops")

    def encode_text(self, prompts: Sequence[str]) -> np.ndarray:
        self.asked += prompts
        seeds = [[ord(character) for character in prompt] for prompt in prompts]
        vectors = np.stack([np.random.default_rng(seed).normal(size=DIM) for seed in seeds])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def num_tokens_lost(self, prompt: str) -> int:
        return max(len(prompt.split()) - 5, 0)


def test_asking_again_needs_no_encoder() -> None:
    encoder, cache = CountingEncoder(), TextCache()
    first = encode_prompts(CARD, ["a cat", "a dog", "a cat"], cache, lambda: encoder)
    assert encoder.asked == ["a cat", "a dog"]  # each once
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_array_equal(first, encoder.encode_text(["a cat", "a dog", "a cat"]))

    def no_encoder() -> CountingEncoder:
        raise AssertionError("everything is in the cache")

    again = encode_prompts(CARD, ["a dog", "a cat"], TextCache(), no_encoder)
    np.testing.assert_array_equal(again, first[[1, 0]])
    assert encode_prompts(CARD, [], cache, no_encoder).shape == (0, DIM)


def test_another_text_side_has_entries_of_its_own() -> None:
    other = Identity("words", "w2", "none", "float32")
    cache = TextCache()
    cache.put(TEXT, {"a cat": np.ones(DIM, np.float32)})
    assert cache.get(other, ["a cat"]) == {}
    assert list(cache.get(TEXT, ["a cat", "a dog"])) == ["a cat"]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_entry_is_said_and_made_again(damage: str) -> None:
    said: list[str] = []
    encoder, cache = CountingEncoder(), TextCache(say=said.append)
    whole = encode_prompts(CARD, ["a cat"], cache, lambda: encoder)
    path = cache.path(TEXT, "a cat")
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes({"cut": data[:40], "flip": data, "empty": b""}[damage])
    again = encode_prompts(CARD, ["a cat"], cache, lambda: encoder)
    np.testing.assert_array_equal(again, whole)
    assert len(said) == 1
    assert str(path) in said[0]
    assert "damaged" in said[0]
    assert encoder.asked == ["a cat", "a cat"]
    encode_prompts(CARD, ["a cat"], cache, lambda: encoder)
    assert len(encoder.asked) == 2  # repaired


def test_an_entry_of_another_width_is_made_again() -> None:
    encoder, cache = CountingEncoder(), TextCache()
    cache.put(TEXT, {"a cat": np.ones(3, np.float32)})
    assert encode_prompts(CARD, ["a cat"], cache, lambda: encoder).shape == (1, DIM)


def test_a_full_disk_costs_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise StorageError("The disk is full.")

    monkeypatch.setattr("ov3d.common.language.text_cache.write_tensors", full)
    said: list[str] = []
    assert encode_prompts(CARD, ["a cat"], TextCache(say=said.append), CountingEncoder).shape == (1, DIM)
    assert said == ["The disk is full. The prompt will be encoded again next time."]


def test_truncation_is_said_from_the_cache_too() -> None:
    prompt = "a cat that sits on a mat"
    for _ in range(2):
        said: list[str] = []
        encode_prompts(CARD, [prompt, "a cat"], TextCache(), CountingEncoder, say=said.append)
        assert said == ["The encoder ignores the last 2 tokens of the prompt 'a cat that sits on a mat'; shorten it."]


def test_an_encoder_with_another_text_side_is_refused() -> None:
    other = EncoderCard("other", CARD.image, Identity("words", "w2", "none", "float32"), DIM, 10.0, 0.2, True)
    with pytest.raises(DataError, match="made with a different text encoder"):
        encode_prompts(CARD, ["a cat"], TextCache(), lambda: CountingEncoder(other))


def _put_many(root: Path, seed: int) -> None:
    cache, rng = TextCache(root), np.random.default_rng(seed)
    for _ in range(10):
        cache.put(TEXT, {f"prompt {index}": rng.normal(size=DIM).astype(np.float32) for index in range(3)})


def test_many_processes_may_write_the_same_entries(tmp_path: Path) -> None:
    writers = [
        multiprocessing.get_context("fork").Process(target=_put_many, args=(tmp_path, seed)) for seed in range(3)
    ]
    for writer in writers:
        writer.start()
    said: list[str] = []
    cache = TextCache(tmp_path, say=said.append)
    while any(writer.is_alive() for writer in writers):
        cache.get(TEXT, [f"prompt {index}" for index in range(3)])
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert said == []
    assert len(cache.get(TEXT, [f"prompt {index}" for index in range(3)])) == 3
    assert not list(tmp_path.rglob(f"*{files.TEMPORARY_SUFFIX}"))


def test_reading_needs_neither_torch_nor_scipy() -> None:
    code = (
        "import sys, ov3d.common.language.text_cache, ov3d.common.language.attributes\n"
        "ov3d.common.language.text_cache.TextCache('none').get(ov3d.common.language.cards.Identity('a','b','c','d'), ['x'])\n"
        "print(sorted({'torch', 'scipy', 'pydantic', 'PIL', 'jaxtyping'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={})
    assert ran.stdout.strip() == "[]"


def test_the_cache_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OV3D_CACHE", str(tmp_path / "own"))
    assert files.cache_root() == tmp_path / "own"
    monkeypatch.delenv("OV3D_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert files.cache_root() == tmp_path / "xdg" / "ov3d"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.cache_root() == tmp_path / ".cache" / "ov3d"
