"""Patch tokens of timm's vision transformers: as a twin in fp64 has them, from a name, a seed or a file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ov3d.common.base.errors import DataError, MissingModelError, UsageError
from ov3d.common.encoders import create_patch_encoder
from ov3d.common.encoders.timm_vit import TimmPatches

CPU = torch.device("cpu")
NAME = "vit_tiny_patch16_224"
DIM, HEADS, LAYERS, PATCH = 192, 3, 12, 16


@pytest.fixture(scope="module")
def encoder() -> TimmPatches:
    return TimmPatches(f"{NAME}/random:0", device=CPU, dtype="float32")


def _twin(weights: dict[str, np.ndarray], pixels: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """A vision transformer (Dosovitskiy et al., 2021) at its own grid of positions, where nothing is interpolated."""

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    rows, columns = grid
    image = pixels.astype(np.float64) / 127.5 - 1
    patches = image.reshape(rows, PATCH, columns, PATCH, 3).transpose(0, 2, 4, 1, 3).reshape(rows * columns, -1)
    x = patches @ weights["patch_embed.proj.weight"].reshape(DIM, -1).T + weights["patch_embed.proj.bias"]
    x = np.concatenate([weights["cls_token"][0], x]) + weights["pos_embed"][0]
    for layer in range(LAYERS):
        name = f"blocks.{layer}"
        q, k, v = np.split(linear(norm(x, f"{name}.norm1"), f"{name}.attn.qkv"), 3, axis=1)
        heads = []
        for part in np.split(np.arange(DIM), HEADS):
            scores = q[:, part] @ k[:, part].T / math.sqrt(len(part))
            shares = np.exp(scores - scores.max(1, keepdims=True))
            heads.append(shares / shares.sum(1, keepdims=True) @ v[:, part])
        x = x + linear(np.concatenate(heads, axis=1), f"{name}.attn.proj")
        hidden = linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")
        hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
        x = x + linear(hidden, f"{name}.mlp.fc2")
    tokens = norm(x, "norm")[1:]
    return (tokens / np.linalg.norm(tokens, axis=1, keepdims=True)).reshape(rows, columns, DIM)


def test_tokens_equal_the_twin(encoder: TimmPatches) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3)).astype(np.uint8)
    weights = {name: value.double().numpy() for name, value in encoder._model.state_dict().items()}
    tokens = encoder.encode_patches(torch.from_numpy(pixels).permute(2, 0, 1), (14, 14))
    np.testing.assert_allclose(tokens.numpy(), _twin(weights, pixels, (14, 14)), atol=2e-5)


def test_any_grid_and_what_it_is_named_by(encoder: TimmPatches) -> None:
    image = torch.zeros((3, 50, 70), dtype=torch.uint8)
    assert encoder.encode_patches(image, (3, 5)).shape == (3, 5, DIM)
    assert encoder.dim == DIM
    assert encoder.identity.weights == "seed:0"
    assert encoder.identity.key != create_patch_encoder(f"timm:{NAME}/random:1", device=CPU).identity.key
    with pytest.raises(UsageError, match="got 0 x 5"):
        encoder.encode_patches(image, (0, 5))


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_weights_from_a_file(encoder: TimmPatches, tmp_path: Path, ending: str) -> None:
    from safetensors.torch import save_file

    state = encoder._model.state_dict()
    path = tmp_path / f"w.{ending}"
    if ending == "pth":  # as DINO's own training code writes them, with a head that is not wanted
        torch.save(
            {"teacher": {f"module.backbone.{k}": v for k, v in state.items()} | {"head.x": state["norm.bias"]}}, path
        )
    else:
        save_file(state, path)
    loaded = TimmPatches(f"{NAME}/{path}", device=CPU, dtype="float32")
    image = torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded.encode_patches(image, (3, 4)), encoder.encode_patches(image, (3, 4)))
    assert len(loaded.identity.weights) == 64
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="Cannot load the checkpoint"):
        TimmPatches(f"{NAME}/{path}", device=CPU)


def test_weights_that_lack_or_would_run_code_are_refused(encoder: TimmPatches, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    state = {name: value for name, value in encoder._model.state_dict().items() if name != "norm.weight"}
    torch.save(state, tmp_path / "short.pth")
    for file, says in (("evil.pth", "Cannot load"), ("short.pth", r"lacks norm\.weight")):
        with pytest.raises(DataError, match=says):
            TimmPatches(f"{NAME}/{tmp_path / file}", device=CPU)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("rest", "error", "says"),
    [
        ("", UsageError, "names no model"),
        ("vit_smal_patch14_dinov2", UsageError, "Did you mean vit_small_patch14_dinov2"),
        ("resnet18", UsageError, "no patch tokens"),
        ("vit_small_patch14_dinov2.lvd", UsageError, "no weights 'lvd'.*lvd142m"),
        (f"{NAME}/random:x", UsageError, "must be an integer"),
        (f"{NAME}/gone.pth", DataError, "No checkpoint gone.pth"),
    ],
)
def test_what_is_not_there_is_said(rest: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        create_patch_encoder(f"timm:{rest}", device=CPU)


@pytest.mark.usefixtures("downloads_fail")
def test_weights_that_cannot_be_had_are_an_error_with_its_reason() -> None:
    with pytest.raises(MissingModelError, match=r"timm:vit_small_patch16_224\.dino are not .*cannot be reached"):
        create_patch_encoder("timm:vit_small_patch16_224.dino", device=CPU)
