"""`ov3d predict` as a shell calls it: JSON, a table, one line where it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ov3d.common.base.runs import Run
from ov3d.common.exporters.ply import write_ply
from tests.cli.conftest import Ov3d
from tests.points.networks import VOCABULARY, make_network, remember, room, write_run


@pytest.fixture
def run(tmp_path: Path, one_thread: None) -> Run:
    remember(*VOCABULARY, "seat")
    return write_run(tmp_path / "run", make_network())


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    xyz, rgb = room(count=2_000)
    xyz[5] = np.nan
    return write_ply(tmp_path / "scan.ply", xyz, rgb=rgb)


def test_json_says_what_was_labelled(ov3d: Ov3d, run: Run, scan: Path, tmp_path: Path) -> None:
    done = ov3d(
        "predict", run.path, scan, "-o", tmp_path / "out.ply", "--prompts", "chair, seat", "--json", "--device", "cpu"
    )
    assert done.code == 0
    data = json.loads(done.out)
    assert list(data["classes"]) == ["chair", "seat"]
    assert sum(data["classes"].values()) + data["unlabelled"] == data["points"]
    assert data["not_finite"] == 1
    assert data["seconds"] > 0
    assert data["peak_bytes"] > 1e7
    assert "Note: outside the training vocabulary, so weakly supervised: seat." in done.err
    assert "Note: 1 of " in done.err
    assert (tmp_path / "out.ply").is_file()


def test_people_read_a_table(ov3d: Ov3d, run: Run, scan: Path, tmp_path: Path) -> None:
    done = ov3d("predict", run.path, scan, "-o", tmp_path / "out.ply", "--quiet")
    assert (done.code, done.err) == (0, "")
    for word in (*VOCABULARY, "(no label)", "out.ply"):
        assert word in done.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--classes", "chiar"], 2, "Did you mean chair"),
        (["--classes", "chair,"], 2, "has an empty name"),
        (["--classes", "chair", "--prompts", "seat"], 2, "cannot be combined"),
        (["--threshold", "7"], 2, "between -1 and 1, got 7"),
        (["--device", "tpu"], 2, "Unknown device"),
    ],
)
def test_wrong_options_are_one_line(
    ov3d: Ov3d, run: Run, scan: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    done = ov3d("predict", run.path, scan, "-o", tmp_path / "out.ply", *arguments)
    assert done.code == code
    assert message in done.error
    assert not (tmp_path / "out.ply").exists()


def test_wrong_files_are_one_line(ov3d: Ov3d, run: Run, scan: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.ply"
    cut.write_bytes(scan.read_bytes()[:-30])
    for path, message in {cut: "truncated", tmp_path / "nowhere.ply": "does not exist"}.items():
        done = ov3d("predict", run.path, path, "-o", tmp_path / "out.ply")
        assert done.code == 1
        assert message in done.error
    fused = write_run(tmp_path / "fused", None, stages=("fuse",))
    assert "missing: guide" in ov3d("predict", fused.path, scan, "-o", tmp_path / "out.ply").error
    assert "No run found" in ov3d("predict", tmp_path / "norun", scan, "-o", tmp_path / "out.ply").error
    assert ov3d("predict", run.path, scan).code == 2
