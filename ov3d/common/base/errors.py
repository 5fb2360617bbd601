"""Errors that users can act on.

Every error that a user can cause is an `Ov3dError`: its message says what is wrong and where, its hint how to fix it.
The command line prints both on one line and exits with `exit_code`; any other exception is a bug in ov3d.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Ov3dError(Exception):
    """A failure with a cause the user can act on.

    Args:
        message: what is wrong and where, one sentence.
        hint: what to do about it; may be empty.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UsageError(Ov3dError):
    """The command or call itself is wrong: an unknown option value, an impossible combination."""

    exit_code = 2


class DataError(Ov3dError):
    """The user's files have the wrong content: missing keys, wrong shapes, impossible poses."""


class CorruptFileError(Ov3dError):
    """A file that ov3d wrote is truncated or has been changed."""


class NewerFormatError(Ov3dError):
    """A file was written by a newer ov3d."""


class MissingModelError(Ov3dError):
    """A model, its weights or its package is not on this machine."""


class StorageError(Ov3dError):
    """The disk is full, or a path cannot be written."""


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> list[str]:
    """Up to `count` known names most similar to `name`, best first; empty if none is close."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    return [by_folded[match] for match in difflib.get_close_matches(name.casefold(), list(by_folded), count, 0.5)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for a mistyped name: the nearest known names, or all of them if none is close."""
    names = list(known)
    close = nearest(name, names)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return f"Known: {', '.join(sorted(names))}."
