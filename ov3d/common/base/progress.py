"""Progress reporting for long work, independent of who displays it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable


@runtime_checkable
class Task(Protocol):
    """One progress bar."""

    def advance(self, amount: int | float = 1) -> None: ...


@runtime_checkable
class Progress(Protocol):
    """What the command line passes to long work: progress bars, and single lines."""

    def task(self, description: str, total: int | float) -> AbstractContextManager[Task]: ...

    def say(self, line: str) -> None: ...


class Silent:
    """A `Progress` that prints nothing."""

    @contextmanager
    def task(self, description: str, total: int | float) -> Iterator[Task]:
        """An invisible bar."""
        yield self

    def advance(self, amount: int | float = 1) -> None:
        """Do nothing."""

    def say(self, line: str) -> None:
        """Do nothing."""
