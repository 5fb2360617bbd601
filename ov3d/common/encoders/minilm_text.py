"""`minilm`: plain sentence vectors of prompts, for comparing names with names.

The vector of a prompt is all-MiniLM-L6-v2's own, without templates and without an article, so that "a chair", "the chair" and
the class name "chair" have the same vector. It has no image side: it is compared with label maps and other words.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch

from ov3d.common.base.shapes import Array, Float32
from ov3d.common.encoders import minilm
from ov3d.common.encoders.minilm import MiniLM
from ov3d.common.encoders.templates import bare_noun
from ov3d.common.language.cards import NO_IMAGE, EncoderCard, Identity

SPEC = "minilm"

LOGIT_SCALE = 20.0
"""The factor on the cosine that the sentence encoder was trained with."""

PRESENCE_THRESHOLD = 0.53
"""99 of 100 pairs of different everyday words are below it (see `ov3d.common.teachers.words`); sofa and couch have 0.86."""


class MiniLMText:
    """Encodes prompts as the 384 numbers of a sentence encoder.

    Args:
        device: device of the encoder.

    Raises:
        MissingModelError: a package of the `offline` extra is not installed.
        CorruptFileError: a file does not match its known hash.
    """

    def __init__(self, *, device: torch.device) -> None:
        self._device = device
        for file in (minilm.WEIGHTS, minilm.TOKENIZER):  # report missing or changed files now
            file.verified()

    @property
    def card(self) -> EncoderCard:
        """The encoder's card."""
        text = Identity(
            model="all-MiniLM-L6-v2",
            weights=f"{minilm.WEIGHTS.sha256} {minilm.TOKENIZER.sha256}",
            preprocessing="no article, _ and - as spaces, mean pooling",
            dtype="float32",
        )
        return EncoderCard(SPEC, NO_IMAGE, text, minilm.DIM, LOGIT_SCALE, PRESENCE_THRESHOLD, knows_attributes=True)

    def encode_text(self, prompts: Sequence[str]) -> Float32[Array, "k d"]:
        """Unit vectors of prompts."""
        return self._language.encode([_words(prompt) for prompt in prompts]).float().cpu().numpy()

    def num_tokens_lost(self, prompt: str) -> int:
        """The number of tokens of the prompt beyond MiniLM's limit."""
        return max(self._language.num_tokens(_words(prompt)) - minilm.MAX_TOKENS, 0)

    @cached_property
    def _language(self) -> MiniLM:
        return MiniLM(self._device)


def _words(prompt: str) -> str:
    # Class names are written traffic_cone and other-vehicle; a sentence encoder reads words.
    return bare_noun(" ".join(prompt.replace("_", " ").replace("-", " ").split()) or prompt)
