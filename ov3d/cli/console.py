"""Terminal output: results on stdout, progress and notes on stderr, errors in one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ov3d.common.base.errors import Ov3dError

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


class Console:
    """The output of one command; also the `Progress` passed to long operations.

    Args:
        as_json: print one JSON document on stdout and nothing else.
        quiet: no progress and no notes on stderr.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self._live: RichProgress | None = None

    def say(self, line: str) -> None:
        """Print a note on stderr, unless quiet."""
        if self.quiet:
            return
        if self._live is not None:
            self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def result(self, data: Mapping[str, Any], show: Callable[[RichConsole], None] | None = None) -> None:
        """Print the result: `data` as JSON, or with `show` on a rich console."""
        if self.as_json:
            sys.stdout.write(json.dumps(data, ensure_ascii=False, allow_nan=False) + "\n")
        elif show is not None:
            from rich.console import Console as RichConsole

            show(RichConsole(soft_wrap=False))

    @contextmanager
    def task(self, description: str, total: int | float) -> Iterator[_Task]:
        """A progress bar with the time left, on stderr; nested bars share one display."""
        if self.quiet:
            yield _Task(None, None)
            return
        outermost = self._live is None
        live = self._live or _make_progress()
        if outermost:
            live.start()
            self._live = live
        try:
            bar = live.add_task(description, total=total)
            yield _Task(live, bar)
            live.update(bar, completed=total)
        finally:
            if outermost:
                live.stop()
                self._live = None


class _Task:
    def __init__(self, live: RichProgress | None, bar: TaskID | None) -> None:
        self._live, self._bar = live, bar

    def advance(self, amount: int | float = 1) -> None:
        """Advance the bar."""
        if self._live is not None and self._bar is not None:
            self._live.advance(self._bar, amount)


def _make_progress() -> RichProgress:
    from rich.console import Console as RichConsole
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=RichConsole(stderr=True),
        refresh_per_second=4,
    )


def print_error(error: Ov3dError) -> None:
    """Print an error as one line on stderr."""
    print("Error: " + " ".join(str(error).split()), file=sys.stderr)
