"""A fourth backend is one folder and one line: a toy passes the contract, and every command works on its runs.

Its source is `tests/toy_backend`; here it is a package of its own, as somebody's new folder is.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from ov3d.backends import BACKENDS, get_backend
from ov3d.common.base.runs import read_run
from ov3d.common.exporters.ply import write_ply
from ov3d.common.learning.backend import Backend
from ov3d.common.readers import load_scene
from ov3d.common.readers.ply import read_vertices
from tests import test_backend_contract as contract
from tests.cli.capture import write_capture
from tests.cli.conftest import Ov3d, ov3d
from tests.colour_encoder import colour_encoder
from tests.common.small_scenes import CLASSES, box_cloud
from tests.test_backend_contract import (
    scene,
    test_a_resumed_run_equals_an_uninterrupted_one,
    test_a_run_is_not_resumed_with_other_settings,
    test_declares_itself,
    test_fits_and_beats_chance,
    test_has_the_rooms_of_every_backend,
    test_save_and_load_are_bit_equal,
    test_the_index_scores_as_the_backend_does,
    test_what_it_takes_is_told_beforehand,
)

__all__ = [
    "colour_encoder",
    "ov3d",
    "scene",
    "test_a_resumed_run_equals_an_uninterrupted_one",
    "test_a_run_is_not_resumed_with_other_settings",
    "test_declares_itself",
    "test_fits_and_beats_chance",
    "test_has_the_rooms_of_every_backend",
    "test_save_and_load_are_bit_equal",
    "test_the_index_scores_as_the_backend_does",
    "test_what_it_takes_is_told_beforehand",
]

TOY = Path(__file__).parent / "toy_backend"


@pytest.fixture(autouse=True)
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """The toy, added through the one line; the contract's tests take it in place of theirs."""
    shutil.copytree(TOY, tmp_path / "packages" / "toy_backend")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    for name in [name for name in sys.modules if name.partition(".")[0] == "toy_backend"]:
        monkeypatch.delitem(sys.modules, name)  # of another test's folder
    importlib.invalidate_caches()
    monkeypatch.setitem(BACKENDS, "toy", "toy_backend.backend:ToyBackend")
    monkeypatch.setitem(contract.SETTINGS, "toy", [])
    return get_backend("toy")


def test_it_is_short() -> None:
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in TOY.rglob("*.py")) < 120


@pytest.mark.usefixtures("colour_encoder")
def test_every_command_works_on_its_runs(ov3d: Ov3d, tmp_path: Path) -> None:
    desk = write_capture(tmp_path / "desk")
    (row,) = json.loads(ov3d("train", "toy", desk, "--dry-run", "--json").out)["scenes"]
    assert (row["scene"], row["images"]) == ("desk", 5)
    done = ov3d("train", "toy", desk, "--outputs", tmp_path / "outputs", "--json")
    assert done.code == 0, done.err
    run = read_run(json.loads(done.out)["run"]).path

    answer = json.loads(ov3d("query", "the box", run, "--threshold", "0.5", "-o", tmp_path / "found", "--json").out)
    true = box_cloud()
    assert true.labels is not None
    (found,) = answer["objects"]
    np.testing.assert_allclose(found["centre"], true.xyz[true.labels == 1].mean(0), atol=0.1)
    orbit = ("--render", "orbit", "--frames", "2", "--size", "48", "-o", tmp_path / "orbit.png")
    assert ov3d("query", "the box", run, *orbit).code == 0
    assert (tmp_path / "orbit.png").is_file()

    (report,) = json.loads(ov3d("eval", run, "--protocol", "points", "--json").out)["reports"]
    assert report["means"]["mIoU"] > 0.9
    assert "--protocol of a toy run must be points, got semantic" in ov3d("eval", run, "--protocol", "semantic").error

    scan = write_ply(tmp_path / "scan.ply", true.xyz, rgb=true.rgb)
    prompts = ("--prompts", ",".join(CLASSES))
    done = ov3d("predict", run, scan, "-o", tmp_path / "labelled.ply", *prompts, "--json")
    assert json.loads(done.out)["points"] == len(true)
    assert (read_vertices(tmp_path / "labelled.ply")["label"] == true.labels).all()
    assert load_scene(tmp_path / "labelled.ply").cloud is not None
