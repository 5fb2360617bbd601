"""Validation and cleaning of user prompts, done once at the entry points; code below uses prompts unchanged."""

from __future__ import annotations

from ov3d.common.base.errors import UsageError
from ov3d.common.language.text_cache import shortened

MAX_PROMPT_CHARACTERS = 1000
"""Far more than any text encoder reads; a longer prompt is probably a file passed by mistake."""


def clean_prompt(prompt: str) -> str:
    """The prompt with single spaces between its words.

    Raises:
        UsageError: it is empty, longer than `MAX_PROMPT_CHARACTERS`, or holds control characters.
    """
    cleaned = " ".join(prompt.split())
    if len(cleaned) > MAX_PROMPT_CHARACTERS:
        raise UsageError(
            f"The prompt must have at most {MAX_PROMPT_CHARACTERS:,} characters, got {len(cleaned):,}.",
            'Name the thing in a few words, for example "a red chair".',
        )
    if not any(character.isprintable() and not character.isspace() for character in cleaned):
        raise UsageError("The prompt is empty.", 'Name what to look for, for example "a chair".')
    for character in cleaned:
        if ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 or 0xD800 <= ord(character) <= 0xDFFF:
            raise UsageError(
                f"The prompt {shortened(cleaned)!a} contains U+{ord(character):04X}, a control character or half of one.",
                "Type it again, as UTF-8.",
            )
    return cleaned
