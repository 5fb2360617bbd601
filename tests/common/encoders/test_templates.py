"""Prompts as noun phrases in sentences."""

from __future__ import annotations

import pytest

from ov3d.common.encoders.templates import CLIP_TEMPLATES, fill, noun_phrase


@pytest.mark.parametrize(
    ("prompt", "phrase"),
    [
        ("cat", "a cat"),
        ("orange", "an orange"),
        ("a cat", "a cat"),
        ("The cat.", "The cat"),
        ("two cats", "two cats"),
        ("cats", "cats"),
        ("3 cats", "3 cats"),
        ("glass", "a glass"),
        ("bus", "a bus"),
        ("someone who is asleep on a bench", "someone who is asleep on a bench"),
        ("...", "..."),
    ],
)
def test_a_lone_thing_gets_its_article(prompt: str, phrase: str) -> None:
    assert noun_phrase(prompt) == phrase


def test_every_template_holds_the_prompt_once() -> None:
    sentences = fill(CLIP_TEMPLATES, "dog {0} {}")  # braces of a prompt are text
    assert len(set(sentences)) == len(CLIP_TEMPLATES)
    assert all(sentence.count("a dog {0} {}") == 1 for sentence in sentences)
