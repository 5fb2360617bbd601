"""What every run keeps, whichever backend makes it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ov3d.backends import train_run
from ov3d.common.base.config import Config
from ov3d.common.base.runs import Run, read_run, write_manifest
from tests.cli.capture import write_capture
from tests.nerf.scenes import Listener


class _Settings(Config):
    """None are needed."""


def _nothing(*_: Any, run: Path, **__: Any) -> Run:
    write_manifest(run, {"indexes": {}})
    return read_run(run)


@pytest.mark.parametrize("threads", [[1], [1, 2]])
def test_a_run_says_with_how_many_threads_it_was_trained(threads: list[int], tmp_path: Path) -> None:
    backend: Any = SimpleNamespace(name="none", config_type=_Settings, train=_nothing)
    scene = write_capture(tmp_path / "desk")
    listener, run, before = Listener(), None, torch.get_num_threads()
    try:
        for number in (*threads, threads[-1]):
            torch.set_num_threads(number)
            trained = train_run(backend, scene, run=run, outputs=tmp_path, device="cpu", progress=listener)
            run = trained.path
    finally:
        torch.set_num_threads(before)
    assert trained.manifest["threads"] == threads
    assert trained.manifest["device"] == "cpu"
    said = [line for line in listener.lines if "threads" in line]
    assert len(said) == len(threads) - 1
    assert all("on 1 threads and goes on with 2" in line for line in said)
