"""Patch tokens of seeded tiny models equal a twin written from the formulas in fp64, window by window."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ov3d.common.base.errors import UsageError
from ov3d.common.encoders import create_dense_encoder, create_encoder
from ov3d.common.encoders.openclip import import_open_clip
from ov3d.common.features.extract import extract_features
from ov3d.common.features.store import FeatureStore
from ov3d.common.features.tokens import TokenPlan
from ov3d.common.features.windows import encode_tokens
from ov3d.common.language.cards import DenseEncoder
from tests.common.small_scenes import box_scene

CPU = torch.device("cpu")
WIDTH, HEADS, LAYERS, PATCH, SIDE, DIM = 32, 2, 3, 8, 32, 16
MEAN, STD = 0.45, 0.3

TINY = {
    "embed_dim": DIM,
    "vision_cfg": {
        "image_size": SIDE,
        "layers": LAYERS,
        "width": WIDTH,
        "head_width": WIDTH // HEADS,
        "patch_size": PATCH,
    },
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def _save(folder: Path, **vision: object) -> Path:
    from safetensors.torch import save_file

    config = {**TINY, "vision_cfg": {**TINY["vision_cfg"], **vision}}  # type: ignore[dict-item]
    folder.mkdir(parents=True)
    preprocess = {"mean": [MEAN] * 3, "std": [STD] * 3}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = import_open_clip().model.CLIP(**config)
        for parameter in model.parameters():  # biases and norms start as zeros and ones: that would hide their absence
            parameter.data += 0.05 * torch.randn_like(parameter)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> DenseEncoder:
    return create_dense_encoder(f"openclip-dense:local-dir:{folder}", device=CPU, dtype="float32")


class Twin:
    """The formulas, in NumPy and fp64, one window at a time."""

    def __init__(self, folder: Path, layer_scale: bool = False) -> None:
        from safetensors.numpy import load_file

        tensors = load_file(folder / "open_clip_model.safetensors")
        self.w = {
            k.removeprefix("visual."): v.astype(np.float64) for k, v in tensors.items() if k.startswith("visual.")
        }
        self.layer_scale = layer_scale

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def gain(self, block: str, which: int) -> np.ndarray | float:
        return self.w[f"{block}.ls_{which}.gamma"] if self.layer_scale else 1.0

    def mlp(self, x: np.ndarray, block: str) -> np.ndarray:
        hidden = self.linear(x, f"{block}.mlp.c_fc")
        hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
        return self.linear(hidden, f"{block}.mlp.c_proj")

    def attention(self, x: np.ndarray, block: str) -> np.ndarray:
        q, k, v = np.split(
            x @ self.w[f"{block}.attn.in_proj_weight"].T + self.w[f"{block}.attn.in_proj_bias"], 3, axis=1
        )
        heads = []
        for part in np.split(np.arange(WIDTH), HEADS):
            scores = q[:, part] @ k[:, part].T / math.sqrt(len(part))
            weights = np.exp(scores - scores.max(1, keepdims=True))
            heads.append(weights / weights.sum(1, keepdims=True) @ v[:, part])
        return self.linear(np.concatenate(heads, axis=1), f"{block}.attn.out_proj")

    def tokens(self, window: np.ndarray) -> np.ndarray:
        """Unit vectors [g, g, d] of a window [h, w, 3] of bytes."""
        image = (window.astype(np.float64) / 255 - MEAN) / STD
        grid = SIDE // PATCH
        patches = image.reshape(grid, PATCH, grid, PATCH, 3).transpose(0, 2, 4, 1, 3).reshape(grid * grid, -1)
        x = patches @ self.w["conv1.weight"].reshape(WIDTH, -1).T
        x = np.concatenate([self.w["class_embedding"][None], x]) + self.w["positional_embedding"]
        x = self.norm(x, "ln_pre")
        for layer in range(LAYERS - 1):
            block = f"transformer.resblocks.{layer}"
            x = x + self.gain(block, 1) * self.attention(self.norm(x, f"{block}.ln_1"), block)
            x = x + self.gain(block, 2) * self.mlp(self.norm(x, f"{block}.ln_2"), block)
        block = f"transformer.resblocks.{LAYERS - 1}"
        x = x[1:]  # the last block without mixing: every patch hands its value to itself
        value = self.norm(x, f"{block}.ln_1") @ self.w[f"{block}.attn.in_proj_weight"][2 * WIDTH :].T
        value = self.linear(value + self.w[f"{block}.attn.in_proj_bias"][2 * WIDTH :], f"{block}.attn.out_proj")
        x = x + self.gain(block, 1) * value
        x = x + self.gain(block, 2) * self.mlp(self.norm(x, f"{block}.ln_2"), block)
        t = self.norm(x, "ln_post") @ self.w["proj"]
        return (t / np.linalg.norm(t, axis=1, keepdims=True)).reshape(grid, grid, DIM)

    def image(self, image: np.ndarray) -> np.ndarray:
        """Unit vectors of an image of whole patches, in windows that overlap by half."""
        rows, columns = image.shape[0] // PATCH, image.shape[1] // PATCH
        grid, step = SIDE // PATCH, SIDE // PATCH // 2
        sums = np.zeros((rows, columns, DIM))
        for r in sorted({*range(0, rows - grid + 1, step), rows - grid}):
            for c in sorted({*range(0, columns - grid + 1, step), columns - grid}):
                tokens = self.tokens(image[r * PATCH : (r + grid) * PATCH, c * PATCH : (c + grid) * PATCH])
                for i in range(grid):
                    for j in range(grid):
                        sums[r + i, c + j] += min(i + 1, grid - i) * min(j + 1, grid - j) * tokens[i, j]
        return sums / np.linalg.norm(sums, axis=2, keepdims=True)


def _image(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_the_tokens_of_a_window_equal_the_twin(encoder: DenseEncoder, folder: Path) -> None:
    assert (encoder.window, encoder.patch) == ((SIDE, SIDE), (PATCH, PATCH))
    windows = np.stack([_image(seed, SIDE, SIDE) for seed in range(3)])
    tokens = encoder.encode_windows(torch.from_numpy(windows).permute(0, 3, 1, 2))
    expected = np.stack([Twin(folder).tokens(window) for window in windows])
    np.testing.assert_allclose(tokens.numpy(), expected, atol=2e-5)
    assert np.ptp(expected, axis=(1, 2)).max() > 0.1  # patches differ


def test_layer_scales_and_the_order_of_axes_are_kept(tmp_path: Path) -> None:
    folder = _save(tmp_path / "scaled", ls_init_value=0.3)
    encoder = create_dense_encoder(f"openclip-dense:local-dir:{folder}", device=CPU, dtype="float32")
    window = _image(1, SIDE, SIDE)
    tokens = encoder.encode_windows(torch.from_numpy(window).permute(2, 0, 1)[None])
    np.testing.assert_allclose(tokens[0].numpy(), Twin(folder, layer_scale=True).tokens(window), atol=2e-5)


@pytest.mark.parametrize("batch_size", [1, 64])
def test_a_large_image_equals_the_twin_window_by_window(encoder: DenseEncoder, folder: Path, batch_size: int) -> None:
    image = _image(2, 56, 72)  # the last windows are moved back to the border
    plan = TokenPlan(encoder.window, encoder.patch)
    assert plan.working_size(72, 56) == (72, 56)
    assert plan.num_crops(72, 56) == 3 * 4
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    tokens = encode_tokens(pixels, plan, encoder.encode_windows, batch_size=batch_size)
    np.testing.assert_allclose(tokens.numpy(), Twin(folder).image(image), atol=3e-5)


def test_the_text_side_is_the_whole_models(encoder: DenseEncoder, folder: Path) -> None:
    whole = create_encoder(f"openclip:local-dir:{folder}", device=CPU, dtype="float32")
    assert encoder.card.text == whole.card.text  # so its cache is shared
    assert encoder.card.image.key != whole.card.image.key
    assert encoder.card.spec == f"openclip-dense:local-dir:{folder}"
    assert create_dense_encoder(encoder.card.spec, device=CPU, dtype="float32").card == encoder.card
    np.testing.assert_array_equal(encoder.encode_text(["a cat"]), whole.encode_text(["a cat"]))


def test_tokens_are_stored_and_found_again(encoder: DenseEncoder, folder: Path, tmp_path: Path) -> None:
    frames = box_scene(tmp_path / "box", 3).frames[:2]
    store = FeatureStore(tmp_path / "store", encoder.card, TokenPlan(encoder.window, encoder.patch))
    report = extract_features(frames, store, encoder)
    assert (report.images, report.crops) == (2, 2 * 3 * 2)
    assert extract_features(frames, store, encoder).skipped == 2
    expected = Twin(folder).image(frames[0].load_image())
    centres = np.array([[4.0, 4.0], [60, 44], [28, 20]])  # of cells, where nothing is interpolated
    found = store.pixel_features(frames[0], centres + 0.25)
    np.testing.assert_allclose(found, [expected[0, 0], expected[5, 7], expected[2, 3]], atol=0.1)
    assert store.features_at(frames[0], centres).shape == (3, 1, DIM)
    assert store.relevancy(frames[0], found[0], 8).shape == (6, 8)
    with pytest.raises(UsageError, match="The store holds crops"):
        extract_features(frames, FeatureStore(tmp_path / "other", encoder.card), _Blind(encoder))  # type: ignore[arg-type]


class _Blind:
    """An encoder of windows that offers no crops."""

    def __init__(self, encoder: DenseEncoder) -> None:
        self.card, self.window, self.patch = encoder.card, encoder.window, encoder.patch
        self.encode_windows = encoder.encode_windows
        self.encode_text, self.num_tokens_lost = encoder.encode_text, encoder.num_tokens_lost


@pytest.mark.parametrize("vision", [{"attentional_pool": True}, {"layers": [1, 1, 1, 1], "width": 8}])
def test_towers_without_patch_tokens_in_the_texts_space_are_refused(tmp_path: Path, vision: dict[str, object]) -> None:
    folder = _save(tmp_path / "other", **vision)
    with pytest.raises(UsageError, match="not a plain ViT"):
        create_dense_encoder(f"openclip-dense:local-dir:{folder}", device=CPU)


def test_unknown_families_are_named() -> None:
    with pytest.raises(UsageError, match="Did you mean openclip-dense"):
        create_dense_encoder("openclip-dens:x/y", device=CPU)
