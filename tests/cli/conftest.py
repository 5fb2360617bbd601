"""Run the command line in this process, and compare what it prints with a file that people have read."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

SNAPSHOTS = Path(__file__).parent / "snapshots"


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of a failure."""
        lines = [line for line in self.err.splitlines() if line.startswith("Error: ")]
        assert len(lines) == 1, f"not one error line:\n{self.err}"
        assert "Traceback" not in self.err
        return lines[0].removeprefix("Error: ")


Ov3d = Callable[..., Done]


@pytest.fixture
def ov3d(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ov3d:
    """`ov3d("query", "a cat")` runs the command as a shell would."""
    from ov3d.cli.app import main

    def run(*args: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["ov3d", *map(str, args)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture
def snapshot() -> Callable[[str, str], None]:
    """`snapshot("query-help", text)` compares words, not spaces: terminals wrap differently. OV3D_SNAPSHOTS=1 writes anew."""

    def check(name: str, text: str) -> None:
        path = SNAPSHOTS / f"{name}.txt"
        if os.environ.get("OV3D_SNAPSHOTS"):
            path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n", encoding="utf-8")
        assert _words(text) == _words(path.read_text(encoding="utf-8")), f"{name} changed (OV3D_SNAPSHOTS=1 accepts)"

    return check


def _words(text: str) -> list[str]:
    return re.findall(r"\S+", text)
