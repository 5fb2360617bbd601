"""A text side without a network, and folders of label maps and arrays for the box of `tests.common.scenes`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ov3d.common.language.cards import NO_IMAGE, EncoderCard, Identity
from ov3d.common.scenes.scene import Scene

DIM = 16
CARD = EncoderCard("minilm", NO_IMAGE, Identity("words", "seed:0", "none", "float32"), DIM, 20.0, 0.5, True)


class WordEncoder:
    """Every word its own direction, whatever article stands before it."""

    card = CARD

    def encode_text(self, prompts: Sequence[str]) -> np.ndarray:
        rows = [np.random.default_rng(list(one.split()[-1].encode())).normal(size=DIM) for one in prompts]
        return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)

    def num_tokens_lost(self, prompt: str) -> int:
        return 0


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> WordEncoder:
    """The word encoder in place of every text encoder."""
    encoder = WordEncoder()
    monkeypatch.setattr("ov3d.common.encoders.create_text_encoder", lambda spec, *, device: encoder)
    return encoder


def write_maps(folder: Path, scene: Scene, *, void: int = 255) -> Path:
    """The scene's labels as a segmenter would write them: floor 3, box 7, nothing `void`."""
    folder.mkdir(parents=True)
    for frame in scene.frames:
        assert frame.labels is not None
        ids = np.array([3, 7, void], np.uint8)[frame.labels.load()]
        Image.fromarray(ids).save(folder / f"{frame.name}.png")
    (folder / "names.yaml").write_text("3: floor\n7: a box\n")
    return folder
