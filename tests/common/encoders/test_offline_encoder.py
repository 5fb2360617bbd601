"""The offline encoder: each part against an independent implementation, and the right photograph by a margin."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ov3d.common.base.errors import CorruptFileError, MissingModelError, UsageError
from ov3d.common.encoders import create_encoder, offline
from ov3d.common.encoders.efficientnet_lite import VARIANTS, EfficientNetLite, load_efficientnet_lite
from ov3d.common.encoders.imagenet_names import class_vectors, embed_classes, imagenet_classes
from ov3d.common.encoders.minilm import MAX_TOKENS, MiniLM
from ov3d.common.encoders.offline import weights_from_cosines
from ov3d.common.encoders.torchvision_shim import import_torchvision
from ov3d.common.language.cards import EncoderCard, ImageTextEncoder

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def encoder() -> ImageTextEncoder:
    return create_encoder("offline", device=CPU, dtype="float32")


@pytest.fixture(scope="module")
def language() -> MiniLM:
    return MiniLM(CPU)


def _crops(image: np.ndarray, size: int, count: int) -> torch.Tensor:
    """Square crops on a grid over the photograph scaled to a height of 220 px, as it hangs in a generated room."""
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    scaled = F.interpolate(pixels, scale_factor=220 / image.shape[0], mode="bilinear", antialias=True)[0]
    rows, columns = ((scaled.shape[axis] - size) for axis in (1, 2))
    corners = [(int(y), int(x)) for y in np.linspace(0, rows, count) for x in np.linspace(0, columns, count)]
    return torch.stack([scaled[:, y : y + size, x : x + size] for y, x in corners]).round().clamp(0, 255).byte()


def _photographs() -> dict[str, np.ndarray]:
    data = pytest.importorskip("skimage.data")
    china, flower = pytest.importorskip("sklearn.datasets").load_sample_images().images
    return {
        "a cat": data.chelsea(),
        "a cup of coffee": data.coffee(),
        "a temple": china,
        "a motorcycle": data.stereo_motorcycle()[0],
        "a rocket": data.rocket(),
        "a flower": flower,
    }


@pytest.mark.offline_weights
def test_each_photograph_answers_to_its_own_prompt_by_a_margin(encoder: ImageTextEncoder) -> None:
    photographs = _photographs()
    vectors = [encoder.encode_crops(_crops(image, 160, 2)).mean(0) for image in photographs.values()]
    scores = F.normalize(torch.stack(vectors), dim=1) @ torch.from_numpy(encoder.encode_text(list(photographs))).T
    for count, least, margin in (
        (4, 0.3, 0.15),
        (6, 0.15, 0.05),
    ):  # the last two are harder: little rocket in these crops
        table = scores[:count, :count]
        own = table.diagonal()
        others = table.masked_fill(torch.eye(count, dtype=torch.bool), 0).max(1).values
        assert own.min() > least, scores
        assert (own - others).min() > margin, scores


@pytest.mark.offline_weights
def test_things_that_are_not_there_and_bare_walls_score_low(encoder: ImageTextEncoder) -> None:
    rng = np.random.default_rng(0)
    wall = np.clip(rng.normal(180, 4, size=(220, 220, 3)), 0, 255).astype(np.uint8)
    plaster = F.normalize(encoder.encode_crops(_crops(wall, 160, 1)).mean(0), dim=0)
    prompts = ["a cat", "a cup of coffee", "a temple", "a motorcycle", "a giraffe", "a piano"]
    text = torch.from_numpy(encoder.encode_text(prompts))
    assert (text @ plaster).max() < encoder.card.presence_threshold
    cat = encoder.encode_crops(_crops(_photographs()["a cat"], 160, 1)).mean(0)
    assert (text @ F.normalize(cat, dim=0))[1:4].max() < 0.12


@pytest.mark.offline_weights
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_the_folded_network_equals_timms(name: str) -> None:
    import_torchvision()
    timm = pytest.importorskip("timm")
    variant = VARIANTS[name]
    state = torch.load(variant.file.verified(), map_location="cpu", weights_only=True)
    theirs = timm.create_model(f"tf_efficientnet_{name}").eval()
    names = theirs.state_dict()
    assert [key.rpartition(".")[2] for key in names] == [key.rpartition(".")[2] for key in state]
    theirs.load_state_dict(dict(zip(names, state.values(), strict=True)))
    images = torch.rand(2, 3, variant.size, variant.size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        ours = load_efficientnet_lite(variant, CPU, torch.float32)(images)
        torch.testing.assert_close(ours, theirs(images), atol=1e-4, rtol=1e-4)


@pytest.mark.offline_weights
def test_crops_do_not_depend_on_their_batch(encoder: ImageTextEncoder) -> None:
    crops = torch.randint(0, 256, (11, 3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    together = encoder.encode_crops(crops)
    alone = torch.cat([encoder.encode_crops(crop[None]) for crop in crops[[0, 7, 10]]])
    torch.testing.assert_close(together[[0, 7, 10]], alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(11), atol=1e-5, rtol=0)
    assert together.dtype == torch.float32
    assert encoder.encode_crops(crops[:0]).shape == (0, 1000)


@pytest.mark.offline_weights
def test_threads_share_the_work_and_change_nothing(encoder: ImageTextEncoder) -> None:
    crops = torch.randint(0, 256, (17, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    alone = encoder.encode_crops(crops)
    torch.set_num_threads(2)
    shared = encoder.encode_crops(crops)
    assert torch.get_num_threads() == 2
    torch.testing.assert_close(shared, alone, atol=0, rtol=0)


@pytest.mark.offline_weights
def test_text_vectors_are_unit_and_do_not_depend_on_their_batch(encoder: ImageTextEncoder) -> None:
    prompts = [
        "a cat",
        "cat",
        "a very long sentence about a green teapot on a table by the window",
        "qwxz",
        "猫",
        "...",
    ]
    together = encoder.encode_text(prompts)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(together, np.concatenate([encoder.encode_text([p]) for p in prompts]), atol=1e-4)
    np.testing.assert_allclose(together[0], together[1], atol=1e-6)  # an article makes no difference
    names = [entry.names[0] for entry in imagenet_classes()]
    assert "cat" in names[int(together[0].argmax())]
    assert encoder.encode_text(["a teapot"])[0].argmax() == names.index("teapot")


@pytest.mark.offline_weights
def test_tokens_beyond_the_limit_are_counted(encoder: ImageTextEncoder, language: MiniLM) -> None:
    assert encoder.num_tokens_lost("a cat") == 0
    long = "cat " * (MAX_TOKENS + 10)
    assert encoder.num_tokens_lost(long) == 12  # with the marks of start and end
    torch.testing.assert_close(language.encode([long]), language.encode(["cat " * (MAX_TOKENS - 2)]))


@pytest.mark.offline_weights
def test_sentences_do_not_depend_on_padding(language: MiniLM) -> None:
    sentences = ["a cat", "a cup of coffee on a wooden table next to the newspaper", "temple"]
    alone = torch.cat([language.encode([sentence]) for sentence in sentences])
    torch.testing.assert_close(language.encode(sentences), alone, atol=2e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.offline_weights
def test_the_language_model_equals_transformers(language: MiniLM) -> None:
    import_torchvision()  # transformers imports it
    transformers = pytest.importorskip("transformers")
    from ov3d.common.encoders.minilm import WEIGHTS

    folder = str(WEIGHTS.verified().parent)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    theirs = transformers.AutoModel.from_pretrained(folder).eval()
    sentences = ["a cat", "a cup of coffee on a wooden table", "Müller's bicycle-built-for-two!"]
    batch = tokenizer(sentences, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states, mask = theirs(**batch).last_hidden_state, batch["attention_mask"][..., None]
    expected = F.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
    torch.testing.assert_close(language.encode(sentences), expected, atol=2e-6, rtol=0)


@pytest.mark.offline_weights
def test_the_classes_are_imagenets() -> None:
    classes = imagenet_classes()
    assert len(classes) == 1000
    assert (classes[281].names, classes[967].names) == (("tabby", "tabby cat"), ("espresso",))


class _Letters:
    """A sentence's vector is its letters' counts; quick to make, and counted."""

    def __init__(self) -> None:
        self.sentences = 0

    def encode(self, sentences: list[str]) -> torch.Tensor:
        self.sentences += len(sentences)
        counts = [[sentence.count(chr(97 + letter)) + 0.1 for letter in range(26)] for sentence in sentences]
        return F.normalize(torch.tensor(counts), dim=1)


def test_class_vectors_are_made_once_and_a_damaged_file_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    language = _Letters()
    first = class_vectors(language, "letters")
    expected = embed_classes(imagenet_classes()[:20], _Letters())
    torch.testing.assert_close(first[:20], expected, atol=1e-3, rtol=0)
    made = language.sentences
    monkeypatch.setattr("ov3d.common.encoders.imagenet_names._made", {})
    torch.testing.assert_close(class_vectors(language, "letters"), first, atol=0, rtol=0)
    assert language.sentences == made
    (file,) = (tmp_path / "cache" / "text").glob("class-vectors-*")
    file.write_bytes(file.read_bytes()[:-1])
    monkeypatch.setattr("ov3d.common.encoders.imagenet_names._made", {})
    torch.testing.assert_close(class_vectors(language, "letters"), first, atol=0, rtol=0)
    assert language.sentences == 2 * made


@pytest.mark.offline_weights
def test_the_card_recreates_the_encoder(encoder: ImageTextEncoder) -> None:
    card = encoder.card
    assert EncoderCard.from_json(json.loads(json.dumps(card.to_json()))) == card
    assert create_encoder(card.spec, device=CPU, dtype="float32").card == card
    assert (card.spec, card.dim, card.knows_attributes, card.image.dtype) == ("offline:lite0", 1000, False, "float32")
    larger = create_encoder("offline:lite2", device=CPU, dtype="bfloat16").card
    assert larger.text == card.text  # one text cache for all of them
    assert larger.image != card.image
    assert larger.image.dtype == "bfloat16"


@pytest.mark.offline_weights
def test_bf16_gives_nearly_the_same_vectors(encoder: ImageTextEncoder) -> None:
    crops = _crops(_photographs()["a motorcycle"], 160, 1)
    halved = create_encoder("offline", device=CPU, dtype="bfloat16").encode_crops(crops)
    assert halved.dtype == torch.float32
    assert F.cosine_similarity(halved, encoder.encode_crops(crops)).min() > 0.99


@settings(max_examples=60, deadline=None)
@example(np.full((3, 7), 1.8e-54))
@given(arrays(np.float64, (3, 7), elements=st.floats(-1, 1)))
def test_weights_are_distributions_whatever_the_cosines(cosine: np.ndarray) -> None:
    weights = weights_from_cosines(torch.from_numpy(cosine))
    assert bool(torch.isfinite(weights).all())
    assert bool((weights >= 0).all())
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-9)
    for row, row_weights in zip(cosine, weights.numpy(), strict=True):
        if row.max() > 1e-3:
            expected = np.maximum(row, 0) ** 6
            np.testing.assert_allclose(row_weights, expected / expected.sum(), atol=1e-9)
        elif row.max() <= 0:  # nothing points its way: the nearest class alone
            assert row_weights[row.argmax()] == 1


@pytest.mark.offline_weights
def test_a_swapped_weight_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    variant = VARIANTS["lite0"]
    swapped = dataclasses.replace(variant, file=dataclasses.replace(variant.file, sha256="0" * 64))
    monkeypatch.setattr(offline, "VARIANTS", {"lite0": swapped})
    with pytest.raises(CorruptFileError, match=r"efficientnet-lite0-57934424\.pth are not the ones"):
        create_encoder("offline", device=CPU)


def test_a_missing_package_is_named_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = dataclasses.replace(VARIANTS["lite0"].file, distribution="not-installed-weights")
    monkeypatch.setattr(offline, "VARIANTS", {"lite0": dataclasses.replace(VARIANTS["lite0"], file=gone)})
    with pytest.raises(MissingModelError, match="not-installed-weights is not installed") as failure:
        create_encoder("offline", device=CPU)
    assert "ov3d[offline]" in failure.value.hint


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("ofline", "Unknown encoder 'ofline'.*Did you mean offline"),
        ("", "Unknown encoder ''"),
        ("offline:lite3", "no variant 'lite3'.*Did you mean lite"),
    ],
)
def test_unknown_encoders_are_told_the_nearest(spec: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        create_encoder(spec, device=CPU)


def test_tensors_of_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match="3 tensors"):
        EfficientNetLite(VARIANTS["lite0"], [torch.zeros(1)] * 3)
