"""How long work says how far it is, without knowing who listens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Task(Protocol):
    """One bar."""

    def advance(self, amount: float = 1.0) -> None: ...


class Progress(Protocol):
    """What the command line hands to long work: bars, and single lines."""

    def task(self, description: str, total: float) -> _TaskContext: ...

    def say(self, line: str) -> None: ...


class _TaskContext(Protocol):
    def __enter__(self) -> Task: ...

    def __exit__(self, *exc: object) -> bool | None: ...


class Silent:
    """A `Progress` that says nothing."""

    @contextmanager
    def task(self, description: str, total: float) -> Iterator[Task]:
        """A bar nobody sees."""
        yield self

    def advance(self, amount: float = 1.0) -> None:
        """Do nothing."""

    def say(self, line: str) -> None:
        """Do nothing."""
