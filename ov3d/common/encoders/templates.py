"""Sentence templates that a prompt is inserted into for a text encoder, and the noun phrase to insert."""

from __future__ import annotations

from collections.abc import Sequence

CLIP_TEMPLATES = (
    "a photo of {}.",
    "a close-up photo of {}.",
    "a blurry photo of {}.",
    "a cropped photo of {}.",
    "a photo of {} in a room.",
    "a picture of {} in the scene.",
    "{}.",
)
"""For encoders trained on captions. A prompt's vector is the mean over them: crops are close, cropped and often blurry."""

_DETERMINERS = (
    *(
        "a",
        "an",
        "the",
        "this",
        "that",
        "these",
        "those",
        "my",
        "your",
        "his",
        "her",
        "its",
        "our",
        "their",
        "some",
        "any",
    ),
    *("all", "both", "each", "every", "no", "several", "many", "few"),
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
)
_NOT_PLURAL = ("ss", "us", "is")


def noun_phrase(prompt: str) -> str:
    """The prompt with an article where a single countable thing lacks one: `cat` → `a cat`, `two cats` as it is."""
    words = prompt.strip().rstrip(".!?").split()
    if not words:  # only full stops
        return prompt.strip()
    phrase = " ".join(words)
    last = words[-1].lower()
    plural = last.endswith("s") and not last.endswith(_NOT_PLURAL)
    if words[0].lower() in _DETERMINERS or words[0][0].isdigit() or plural or len(words) > 4:
        return phrase
    return f"{'an' if words[0][0].lower() in 'aeiou' else 'a'} {phrase}"


def bare_noun(prompt: str) -> str:
    """The prompt without a leading article: `a cat` → `cat`; a lone article is kept."""
    words = prompt.strip().rstrip(".!?").split()
    if len(words) > 1 and words[0].lower() in ("a", "an", "the"):
        words = words[1:]
    return " ".join(words) or prompt.strip()


def fill(templates: Sequence[str], prompt: str) -> list[str]:
    """The sentences of a prompt, one per template."""
    phrase = noun_phrase(prompt)
    return [template.format(phrase) if "{}" in template else template for template in templates]
