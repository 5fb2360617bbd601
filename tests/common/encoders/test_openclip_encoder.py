"""open_clip encoders with a tiny model of seeded random weights, and every way to ask for one that is not there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ov3d.common.base.errors import DataError, MissingModelError, UsageError
from ov3d.common.encoders import create_encoder
from ov3d.common.encoders.openclip import SOFTMAX_PRESENCE_THRESHOLD, OpenClipEncoder, import_open_clip
from ov3d.common.encoders.openclip_weights import OpenClipSpec, parse_openclip, why_no_download
from ov3d.common.encoders.templates import CLIP_TEMPLATES

CPU = torch.device("cpu")

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def _save(folder: Path, *, seed: int = 0, safe: bool = True) -> Path:
    """A folder as open_clip saves one, with a seeded tiny model."""
    open_clip = import_open_clip()
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": TINY, "preprocess_cfg": {"mean": [0.5] * 3}})
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        state = open_clip.model.CLIP(**TINY).state_dict()
    if safe:
        from safetensors.torch import save_file

        save_file(state, folder / "open_clip_model.safetensors")
    else:
        torch.save(state, folder / "open_clip_pytorch_model.bin")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.mark.parametrize(("dtype", "atol"), [("float32", 1e-5), ("bfloat16", 1e-2)])
def test_vectors_are_open_clips_own(folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, atol: float) -> None:
    monkeypatch.setenv("OV3D_DTYPE", dtype)
    encoder = create_encoder(f"openclip:local-dir:{folder}", device=CPU)
    assert encoder.card.image.dtype == dtype
    open_clip = import_open_clip()
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    from PIL import Image

    tokenizer = open_clip.get_tokenizer("ViT-B-32", context_length=16)
    with torch.inference_mode():
        image = model.eval().encode_image(preprocess(Image.fromarray(pixels))[None], normalize=True)
        sentences = [template.format("a cat") for template in CLIP_TEMPLATES]
        text = F.normalize(model.encode_text(tokenizer(sentences), normalize=True).mean(0), dim=0)
    crops = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    torch.testing.assert_close(encoder.encode_crops(crops), image, atol=atol, rtol=0)
    np.testing.assert_allclose(encoder.encode_text(["cat"])[0], text.numpy(), atol=1e-5)


def test_the_card_recreates_the_encoder_and_names_its_weights(folder: Path, tmp_path: Path) -> None:
    encoder = create_encoder(f"openclip:local-dir:{folder}", device=CPU, dtype="float32")
    card = encoder.card
    assert create_encoder(card.spec, device=CPU, dtype="float32").card == card
    assert (card.dim, card.knows_attributes, card.presence_threshold) == (16, True, SOFTMAX_PRESENCE_THRESHOLD)
    assert card.logit_scale == pytest.approx(1 / 0.07, rel=1e-4)
    other = create_encoder(f"openclip:local-dir:{_save(tmp_path / 'other', seed=1)}", device=CPU, dtype="float32").card
    assert other.image.key != card.image.key
    assert other.text.key != card.text.key
    halved = OpenClipEncoder(f"local-dir:{folder}", device=CPU, dtype="bfloat16")
    assert halved.card.text == card.text  # text stays fp32, so its cache is shared
    assert halved.card.image.dtype == "bfloat16"
    crops = torch.randint(0, 256, (3, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert F.cosine_similarity(halved.encode_crops(crops), encoder.encode_crops(crops)).min() > 0.99
    np.testing.assert_array_equal(halved.encode_text(["a cat"]), encoder.encode_text(["a cat"]))


def test_a_torch_checkpoint_loads_without_pickled_objects(tmp_path: Path) -> None:
    folder = _save(tmp_path / "tiny", safe=False)
    assert create_encoder(f"openclip:local-dir:{folder}", device=CPU).card.dim == 16

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "owned"),))

    torch.save({"state_dict": Evil()}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(DataError, match="Cannot load"):
        create_encoder(f"openclip:local-dir:{folder}", device=CPU)
    assert not (tmp_path / "owned").exists()


def test_tokens_beyond_the_context_are_counted(folder: Path) -> None:
    encoder = create_encoder(f"openclip:local-dir:{folder}", device=CPU)
    assert encoder.num_tokens_lost("cat") == 0
    assert encoder.num_tokens_lost("cat " * 100) > 80


@pytest.mark.slow
def test_random_weights_follow_their_seed() -> None:
    first, again, other = (create_encoder(f"openclip:ViT-S-32-alt/random:{seed}", device=CPU) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.encode_text(["a cat"]), again.encode_text(["a cat"]))
    assert first.card == again.card
    assert first.card.image.weights == "seed:3"
    assert not np.allclose(first.encode_text(["a cat"]), other.encode_text(["a cat"]))


@pytest.mark.parametrize(
    ("rest", "error", "says"),
    [
        ("", UsageError, "no model ''.*openclip:ViT-B-16/openai"),
        ("VitB32/openai", UsageError, "no model 'VitB32'.*Did you mean ViT-B-32"),
        ("ViT-B-32", UsageError, "names no weights.*openai"),
        ("ViT-B-32/opnai", UsageError, "no weights 'opnai'.*Did you mean openai"),
        ("ViT-B-32/random:x", UsageError, "must be an integer, got 'x'"),
        ("ViT-B-32/gone.pt", DataError, "No checkpoint gone.pt"),
        ("ViT-B-32//gone/x", DataError, "No checkpoint /gone/x"),
        ("local-dir:/gone", DataError, "No open_clip_config.json"),
        ("hf-hub:", UsageError, "names no repository"),
        ("hf-hub:a/b/c", UsageError, "names no repository.*hf-hub:OWNER/NAME"),
    ],
)
def test_what_is_not_there_is_said(rest: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        create_encoder(f"openclip:{rest}", device=CPU)


def test_specs_mean_the_same_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_clip = import_open_clip()
    (tmp_path / "w.safetensors").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert parse_openclip("ViT-B-32/w.safetensors", open_clip).spec == f"openclip:ViT-B-32/{tmp_path}/w.safetensors"
    assert parse_openclip(f"ViT-B-32/{tmp_path}/w.safetensors", open_clip).path == tmp_path / "w.safetensors"
    assert parse_openclip("ViT-B-32/OpenAI", open_clip) == OpenClipSpec("ViT-B-32", tag="openai")
    assert parse_openclip("ViT-B-32/random:7", open_clip).spec == "openclip:ViT-B-32/random:7"


@pytest.mark.usefixtures("downloads_fail")
def test_weights_that_cannot_be_had_are_an_error_with_its_reason() -> None:
    with pytest.raises(
        MissingModelError, match=r"openclip:ViT-B-32/openai are not on this machine.*cannot be reached"
    ) as failure:
        create_encoder("openclip:ViT-B-32/openai", device=CPU)
    assert "--encoder offline" in failure.value.hint
    # A sentence-piece tokenizer that only a hub has: refused at once, not after minutes of attempts.
    with pytest.raises(
        MissingModelError, match=r"tokenizer of openclip:ViT-B-16-SigLIP/random:0 is not .*cannot be reached"
    ):
        create_encoder("openclip:ViT-B-16-SigLIP/random:0", device=CPU)


@pytest.mark.usefixtures("downloads_fail")
def test_the_switch_against_downloads_is_obeyed_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert why_no_download({"hf_hub": "a/b"}) == "HF_HUB_OFFLINE forbids downloads"
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert "openaipublic.azureedge.net cannot be reached" in why_no_download(
        {"url": "https://openaipublic.azureedge.net/clip/models/x/ViT-B-32.pt"}
    )
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    assert why_no_download({"hf_hub": "a/b"}) == ""


def test_a_checkpoint_of_another_model_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="Cannot load"):
        create_encoder(f"openclip:ViT-S-32-alt/{folder}/open_clip_model.safetensors", device=CPU)
    (folder.parent / "cut.safetensors").write_bytes((folder / "open_clip_model.safetensors").read_bytes()[:1000])
    with pytest.raises(DataError, match="Cannot load"):
        create_encoder(f"openclip:ViT-S-32-alt/{folder.parent}/cut.safetensors", device=CPU)


def _hub_cache(folder: Path, root: Path) -> Path:
    """A saved model as the hub's client keeps it: blobs aside, a snapshot that `main` refers to."""
    repository = root / "models--somebody--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    for file in folder.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    return snapshot


@pytest.mark.usefixtures("downloads_fail")
def test_a_hub_name_is_passed_through(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(
        MissingModelError, match="openclip:hf-hub:somebody/tiny are not on this machine.*cannot be reached"
    ):
        create_encoder("openclip:hf-hub:somebody/tiny", device=CPU)
    snapshot = _hub_cache(folder, tmp_path / "hub")
    encoder = create_encoder("openclip:hf-hub:somebody/tiny", device=CPU, dtype="float32")
    local = create_encoder(f"openclip:local-dir:{folder}", device=CPU, dtype="float32")
    assert encoder.card.spec == "openclip:hf-hub:somebody/tiny"
    assert encoder.card.image.weights == local.card.image.weights
    np.testing.assert_array_equal(encoder.encode_text(["a cat"]), local.encode_text(["a cat"]))
    (snapshot / "open_clip_config.json").unlink()
    with pytest.raises(MissingModelError, match="cannot be reached"):
        create_encoder("openclip:hf-hub:somebody/tiny", device=CPU)
