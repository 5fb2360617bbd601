"""Trainings of the nerf backend for its benchmarks: run, timed, and compared with their teacher."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ov3d.backends import get_backend
from ov3d.common.base.config import load_config
from ov3d.common.base.progress import Silent
from ov3d.common.base.runs import Run
from ov3d.common.learning.run import train_run

LABELS = "labels:scene,corrupt=30,seed=0"
"""A teacher of the capture's own label images, with 30 % of their pixels corrupted."""


class TimedLines(Silent):
    """Prints what training has to say, with the time."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def say(self, line: str) -> None:
        """Print a line."""
        print(f"[{(time.perf_counter() - self._start) / 60:6.2f} min] {line}", flush=True)


def train_nerf(
    scene: Path, overrides: Sequence[str], outputs: Path, run: Path | None = None
) -> tuple[Run, float, float]:
    """A run, and the minutes that it took: of the clock, and of processor time.

    Args:
        scene: folder of the capture.
        overrides: settings.
        outputs: where a new run is made.
        run: a folder that is there already, in place of a new one.
    """
    clock, processor = time.perf_counter(), time.process_time()
    backend = get_backend("nerf")
    config = load_config(backend.config_type, None, overrides)
    done = train_run(backend, scene, config, run=run, outputs=outputs, progress=TimedLines())
    return done, (time.perf_counter() - clock) / 60, (time.process_time() - processor) / 60


def both_ious(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, list[float]]:
    """IoU of the field and of its teacher, for each class that both tables have."""
    return {
        name: [round(table["classes"][name]["iou"], 3) for table in (ours, theirs)]
        for name in ours["classes"]
        if name in theirs["classes"]
    }
