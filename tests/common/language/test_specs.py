"""What is typed after --encoder, taken apart and put together again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ov3d.common.base.errors import UsageError
from ov3d.common.language.specs import LEVELS, BroughtSpec, parse_brought, suitable_refinement, text_spec, with_text


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("labels:maps", BroughtSpec("labels", "maps")),
        ("labels:scene@minilm", BroughtSpec("labels", "scene", "minilm")),
        ("labels:a@b/c", BroughtSpec("labels", "a@b/c")),
        ("labels:a@b@offline:lite2", BroughtSpec("labels", "a@b", "offline:lite2")),
        ("labels:scene,corrupt=30,seed=4", BroughtSpec("labels", "scene", "", 30, 4)),
        (
            "labels:/x/y@openclip:ViT-B-16/openai,corrupt=0",
            BroughtSpec("labels", "/x/y", "openclip:ViT-B-16/openai", 0),
        ),
        ("features:/x,y@openclip:hf-hub:a/b", BroughtSpec("features", "/x,y", "openclip:hf-hub:a/b")),
        ("openclip:ViT-B-16/openai", None),
        ("offline", None),
    ],
)
def test_parts(spec: str, parts: BroughtSpec | None) -> None:
    assert parse_brought(spec) == parts


@given(
    st.builds(
        BroughtSpec,
        st.just("labels"),
        st.text("abc/ .-_", min_size=1).map(lambda text: "/" + text.strip()),
        st.sampled_from(["", "minilm", "offline:lite0", "openclip:ViT-B-16//a/b.pt"]),
        st.sampled_from([None, *LEVELS]),
        st.just(0),
    )
)
def test_what_is_formatted_is_parsed_again(spec: BroughtSpec) -> None:
    assert parse_brought(spec.format()) == spec


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("labels:", "names no folder"),
        ("labels:@minilm", "names no folder"),
        ("labels:x,corupt=30", "no option 'corupt'.*Did you mean corrupt"),
        ("labels:x,corrupt=20", "corrupt must be one of 0, 15, 30, 45.*got '20'"),
        ("labels:x,corrupt=-15", "corrupt must be one of"),
        ("labels:x,corrupt=30,seed=x", "seed must be an integer, got 'x'"),
        ("labels:x,seed=1", "nothing is random"),
        ("labels:x,corrupt=30,corrupt=15", "twice"),
        ("features:x,corrupt=30", "no option 'corrupt'.*has no options"),
    ],
)
def test_what_cannot_be_is_said(spec: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_brought(spec)


def test_the_text_side_of_any_spec() -> None:
    assert text_spec("labels:x") == "minilm"
    assert text_spec("labels:x@offline,corrupt=15") == "offline"
    assert text_spec("features:x@openclip:a/b") == "openclip:a/b"
    assert text_spec("openclip-dense:ViT-B-16/openai") == "openclip:ViT-B-16/openai"
    assert text_spec(" offline:lite2") == "offline:lite2"
    with pytest.raises(UsageError, match="does not name the text encoder.*--text-encoder"):
        text_spec("features:x")


def test_the_option_goes_into_the_spec() -> None:
    assert with_text("features:x", "offline") == "features:x@offline"
    assert with_text("labels:x@minilm,corrupt=15", "minilm") == "labels:x@minilm,corrupt=15,seed=0"
    assert with_text("offline", None) == "offline"
    for spec, text, says in (
        ("offline", "minilm", "has its own text side"),
        ("labels:x@minilm", "offline", "a different text encoder"),
        ("features:x", "opneclip:a/b", "Did you mean openclip"),
    ):
        with pytest.raises(UsageError, match=says):
            with_text(spec, text)


@pytest.mark.parametrize(
    ("refine", "spec", "meant"),
    [
        ("auto", "offline", "dino"),
        ("auto", " offline:lite2", "dino"),
        ("auto", "openclip:ViT-B-16/openai", "none"),
        ("auto", "labels:maps", "none"),
        ("none", "offline", "none"),
        ("timm:vit", "offline", "timm:vit"),
    ],
)
def test_auto_is_the_refinement_that_suits_the_encoder(refine: str, spec: str, meant: str) -> None:
    assert suitable_refinement(refine, spec) == meant
