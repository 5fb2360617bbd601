"""Prompts: unusual ones pass, and whatever cannot be a prompt is refused before any work is done."""

from __future__ import annotations

import pytest

from ov3d.common.asking.prompt import clean_prompt
from ov3d.common.base.errors import UsageError


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("", "empty"),
        (" \t\n ", "empty"),
        ("\u200b", "empty"),
        ("a" * 10_000, "at most 1,000 characters, got 10,000"),
        ("a \x1b[31mcat", r"U\+001B"),
        ("a cat\x00", r"U\+0000"),
        ("a \udcff cat", r"U\+DCFF"),
    ],
)
def test_what_cannot_be_a_prompt_is_refused(prompt: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as failure:
        clean_prompt(prompt)
    assert failure.value.hint
    str(failure.value).encode("utf-8")  # it can be printed


def test_unusual_prompts_are_prompts() -> None:
    assert clean_prompt("  une  théière\n") == "une théière"
    assert clean_prompt("猫") == "猫"
    assert clean_prompt("🐈") == "🐈"
    assert clean_prompt("x" * 1000) == "x" * 1000
