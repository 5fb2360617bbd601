"""Attributes: taken out before a thing, left where they are the thing or part of its name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ov3d.common.language.attributes import ATTRIBUTES, COMPOUNDS, split_attributes


@pytest.mark.parametrize(
    ("prompt", "left", "ignored"),
    [
        ("a red chair", "a chair", ("red",)),
        ("Red Chair", "Chair", ("red",)),
        ("a big, red chair", "a chair", ("big", "red")),
        ("a red and white chair", "a chair", ("red", "white")),
        ("a very big red apple", "an apple", ("big", "red")),
        ("an orange chair", "a chair", ("orange",)),
        ("A red apple", "An apple", ("red",)),
        ("a big unicorn near a unicorn", "an unicorn near a unicorn", ("big",)),
        ("a red orange", "an orange", ("red",)),
        ("a light blue sofa", "a sofa", ("light", "blue")),
        ("a dark-blue sofa", "a sofa", ("dark-blue",)),
        ("the chair that is red", "the chair", ("red",)),
        ("the chairs which are small and red near a table", "the chairs near a table", ("small", "red")),
        ("a table made of wood", "a table", ("wood",)),
        ("a wooden table on the white floor", "a table on the floor", ("wooden", "white")),
        ("a black cat and a white dog", "a cat and a dog", ("black", "white")),
        ("a tall glass", "a glass", ("tall",)),
        ("a big red panda", "a red panda", ("big",)),
    ],
)
def test_attributes_are_taken_out(prompt: str, left: str, ignored: tuple[str, ...]) -> None:
    assert split_attributes(prompt) == (left, ignored)


@pytest.mark.parametrize(
    "prompt",
    [
        *("a cat", "an orange", "oranges and lemons", "red", "a small", "red, green", "a red panda", "two red pandas"),
        *("a great white shark", "a stone wall", "a goldfish", "a blackboard", "a glass of water", "a wine glass"),
        *("a light", "a traffic light", "a brick", "blue jeans", "the cat is sleeping", "is red", "made of wood", ""),
    ],
)
def test_things_stay_as_they_are(prompt: str) -> None:
    assert split_attributes(prompt) == (prompt, ())


@pytest.mark.parametrize("compound", COMPOUNDS)
def test_names_of_kinds_are_kept(compound: str) -> None:
    assert split_attributes(f"a {compound}") == (f"a {compound}", ())


@pytest.mark.offline_weights
def test_every_class_of_imagenet_keeps_its_first_name() -> None:
    from ov3d.common.encoders.imagenet_names import imagenet_classes

    changed = [entry.names[0] for entry in imagenet_classes() if split_attributes(entry.names[0])[1]]
    assert changed == []


@given(
    st.lists(st.sampled_from([*sorted(ATTRIBUTES)[::5], "cat", "a", "the", "and", "of", "is", "made", "light", ","]))
)
def test_what_is_left_is_never_empty_and_final(words: list[str]) -> None:
    prompt = " ".join(words)
    left, ignored = split_attributes(prompt)
    assert bool(left.strip()) == bool(prompt.strip())
    assert set(ignored) <= set(prompt.replace(",", " ").split())
    if not ignored:
        assert left == prompt
