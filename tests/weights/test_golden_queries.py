"""Golden queries with downloaded weights: photographs answer to their own name by a margin. Run: pytest -m weights

The encoders are openclip:ViT-B-16/openai and its dense form, or those of OV3D_GOLDEN_MODELS (names behind `openclip:`, by
commas). A model whose weights cannot be had is skipped with the reason.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from ov3d.common.base.errors import MissingModelError
from ov3d.common.encoders import create_dense_encoder, create_encoder
from ov3d.common.features.crops import channels_first, resized
from ov3d.common.features.tokens import TokenPlan
from ov3d.common.features.windows import encode_tokens
from ov3d.common.scenes.images import load_rgb
from ov3d.common.worlds.photographs import PHOTOGRAPHS, photograph_path

pytestmark = pytest.mark.weights

CPU = torch.device("cpu")
MODELS = os.environ.get("OV3D_GOLDEN_MODELS", "ViT-B-16/openai").split(",")
PROMPTS = {"cat": "a cat", "coffee": "a cup of coffee", "temple": "a temple"}

CROP_MARGIN = 0.03
"""Cosine by which a whole photograph's own prompt must lead; CLIP's usual lead is 0.05 to 0.1."""

DENSE_MARGIN = 0.005
"""The same for the mean over the patches, where background counts too."""


def _photograph(name: str) -> np.ndarray:
    try:
        return load_rgb(photograph_path(PHOTOGRAPHS[name]))
    except MissingModelError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", PROMPTS)
def test_a_whole_photograph_answers_to_its_name(model: str, name: str) -> None:
    image = _photograph(name)
    try:
        encoder = create_encoder(f"openclip:{model}", device=CPU, dtype="float32")
    except MissingModelError as error:
        pytest.skip(str(error))
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    crop = channels_first(image[top : top + side, left : left + side], CPU)[None]
    scores = encoder.encode_crops(crop).numpy() @ encoder.encode_text(list(PROMPTS.values())).T
    _leads(scores[0], name, CROP_MARGIN)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", PROMPTS)
def test_most_patches_of_a_photograph_answer_to_its_name(model: str, name: str) -> None:
    image = _photograph(name)
    try:
        encoder = create_dense_encoder(f"openclip-dense:{model}", device=CPU, dtype="float32")
    except MissingModelError as error:
        pytest.skip(str(error))
    plan = TokenPlan(encoder.window, encoder.patch)
    pixels = channels_first(resized(image, plan.working_size(image.shape[1], image.shape[0])), CPU)
    tokens = encode_tokens(pixels, plan, encoder.encode_windows, batch_size=16).numpy()
    scores = tokens.reshape(-1, tokens.shape[-1]) @ encoder.encode_text(list(PROMPTS.values())).T
    _leads(scores.mean(axis=0), name, DENSE_MARGIN)
    assert (scores.argmax(axis=1) == list(PROMPTS).index(name)).mean() > 0.5


def _leads(scores: np.ndarray, name: str, margin: float) -> None:
    own = list(PROMPTS).index(name)
    assert scores[own] - np.delete(scores, own).max() > margin, dict(zip(PROMPTS, scores.tolist(), strict=True))
