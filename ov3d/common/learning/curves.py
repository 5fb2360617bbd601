"""Loss curves: one JSON object per line. Every checkpoint rewrites the whole file, so a resumed run never repeats a line."""

from __future__ import annotations

import json
from pathlib import Path

from ov3d.common.base.files import write_text


class Curves:
    """The curves of a stage.

    Args:
        path: the file.
        last_step: lines of later steps are dropped, because those steps are repeated.
    """

    def __init__(self, path: Path, last_step: int) -> None:
        self.path = path
        self._lines: list[str] = []
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            self._lines = [line for line in lines if json.loads(line)["step"] <= last_step]

    def add(self, step: int, **values: float) -> None:
        """Add a line; values are rounded to six digits."""
        rounded = {name: float(f"{value:.6g}") for name, value in values.items()}
        self._lines.append(json.dumps({"step": step, **rounded}))

    def write(self) -> None:
        """Write the file."""
        write_text(self.path, "".join(f"{line}\n" for line in self._lines))
