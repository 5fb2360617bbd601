"""A dual encoder that sees colours: quick, exact enough to find a red box, and wide enough for a low-rank basis to matter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from ov3d.common.base.shapes import Array, Float, Float32, UInt8
from ov3d.common.language.cards import EncoderCard, Identity

DIM = 96
COLOURS = {"floor": (90, 90, 90), "box": (200, 40, 40), "sea": (20, 60, 200), "grass": (30, 180, 30)}
CARD = EncoderCard(
    spec="colour",
    image=Identity("colour anchors", "seed:0", "none", "float32"),
    text=Identity("colour names", "seed:0", "none", "float32"),
    dim=DIM,
    logit_scale=10.0,
    presence_threshold=0.8,
    knows_attributes=True,
)
_ANCHORS = np.random.default_rng(0).uniform(0, 255, (DIM, 3)).astype(np.float32)


class ColourEncoder:
    """Crops into responses of colour anchors; prompts by their last word, unknown ones into noise.

    Attributes:
        crops: how many were encoded so far.
    """

    card = CARD

    def __init__(self) -> None:
        self.crops = 0

    def encode_crops(self, crops: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        self.crops += len(crops)
        pixels = crops.float().flatten(2).transpose(1, 2)
        distance = torch.cdist(pixels, torch.from_numpy(_ANCHORS)[None].expand(len(crops), -1, -1))
        return torch.nn.functional.normalize(torch.exp(-((distance / 70) ** 2)).mean(1), dim=1)

    def encode_text(self, prompts: Sequence[str]) -> Float32[Array, "k d"]:
        return np.stack([self._word(prompt.split()[-1]) for prompt in prompts])

    def num_tokens_lost(self, prompt: str) -> int:
        return 0

    def _word(self, word: str) -> Float32[Array, " d"]:
        if word in COLOURS:
            response = np.exp(-((np.linalg.norm(_ANCHORS - COLOURS[word], axis=1) / 70) ** 2))
        else:
            response = np.random.default_rng(list(word.encode())).normal(size=DIM)
        return (response / np.linalg.norm(response)).astype(np.float32)


@pytest.fixture
def colour_encoder(monkeypatch: pytest.MonkeyPatch) -> ColourEncoder:
    """The colour encoder, in place of whatever encoder a configuration names; by itself it is not refined."""
    encoder = ColourEncoder()
    monkeypatch.setattr(
        "ov3d.common.teachers.suitable_refinement", lambda refine, spec: "none" if refine == "auto" else refine
    )
    monkeypatch.setattr("ov3d.common.encoders.create_encoder", lambda spec, *, device: encoder)
    return encoder
