"""From a capture to answers through the command line alone, with a small encoder that sees colours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.capture import write_capture
from tests.cli.conftest import Ov3d
from tests.colour_encoder import ColourEncoder, colour_encoder

__all__ = ["colour_encoder"]

SMALL = ("--set", "lift.border=2")


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return write_capture(tmp_path / "desk")


@pytest.fixture
def encoder(colour_encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch) -> ColourEncoder:
    monkeypatch.setattr("ov3d.common.encoders.create_encoder", lambda spec, *, device: colour_encoder)
    return colour_encoder


@pytest.fixture
def trained(ov3d: Ov3d, capture: Path, encoder: ColourEncoder) -> Path:
    done = ov3d("train", "points", capture, "--stages", "fuse", *SMALL, "--json", "--quiet")
    assert done.code == 0, done.err
    return Path(json.loads(done.out)["run"])


@pytest.mark.usefixtures("encoder")
def test_extract_skips_what_is_stored(ov3d: Ov3d, capture: Path) -> None:
    planned = ov3d("extract-features", capture, "--dry-run", "--json")
    assert planned.code == 0, planned.err
    assert json.loads(planned.out)["scenes"][0]["missing"] == 5
    first = json.loads(ov3d("extract-features", capture, "--json", "--quiet").out)["scenes"][0]
    assert (first["images"], first["skipped"]) == (5, 0)
    assert first["crops"] > 0
    assert first["bytes"] > 0
    again = ov3d("extract-features", capture, "--json", "--quiet")
    assert json.loads(again.out)["scenes"][0]["skipped"] == 5
    shown = ov3d("extract-features", capture, "--quiet")
    assert shown.code == 0
    assert "desk" in shown.out
    assert "Features of colour" in shown.out


@pytest.mark.usefixtures("encoder")
def test_without_extraction_what_is_missing_is_said(ov3d: Ov3d, capture: Path) -> None:
    done = ov3d("train", "points", capture, "--stages", "fuse", "--no-extract", "--quiet")
    assert done.code == 1
    assert "No cached features for 5 of 5 images" in done.error
    assert "Run: ov3d extract-features" in done.error


def test_query_finds_the_box(ov3d: Ov3d, trained: Path, tmp_path: Path) -> None:
    done = ov3d("query", "the box", "--json", "-o", tmp_path / "found")
    answer = json.loads(done.out)
    assert done.code == 0
    assert Path(answer["run"]) == trained
    assert "newest run" in done.err
    best = answer["objects"][0]
    assert abs(best["centre"][0]) < 0.1
    assert abs(best["centre"][1]) < 0.1
    names = {Path(path).name for path in answer["files"]}
    assert {"points.ply", "top-down.png", "view-0.png"} <= names
    shown = ov3d("query", "the box", trained, "--quiet")
    assert shown.err == ""
    assert "score" in shown.out


def test_nothing_there_is_an_answer(ov3d: Ov3d, trained: Path) -> None:
    done = ov3d("query", "a piano", trained, "--quiet")
    assert done.code == 0
    assert "othing in this scene matches 'a piano'" in done.out
    assert json.loads(ov3d("query", "a piano", trained, "--json").out)["objects"] == []


@pytest.mark.usefixtures("trained")
def test_eval_compares_with_the_truth(ov3d: Ov3d) -> None:
    done = ov3d("eval", "latest", "--json", "--threshold", "-1")
    assert done.code == 0, done.err
    reports = json.loads(done.out)["reports"]
    assert len(reports) == 2  # the points, and the 2D teacher on the same views
    shown = ov3d("eval", "latest", "--quiet")
    assert "box" in shown.out


@pytest.mark.usefixtures("trained")
def test_a_damaged_cache_is_found_and_mended(ov3d: Ov3d, capture: Path, tmp_path: Path) -> None:
    assert ov3d("cache", "verify", "--quiet").code == 0
    file = sorted((tmp_path / "cache" / "features").rglob("*.safetensors"))[0]
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    done = ov3d("cache", "verify", "--quiet")
    assert done.code == 1
    assert "damaged" in done.error
    mended = ov3d("extract-features", capture, "--json")
    assert json.loads(mended.out)["scenes"][0]["images"] == 1
    assert file.name in mended.err
    assert ov3d("cache", "verify", "--quiet").code == 0


def test_resume_refuses_what_is_no_run(ov3d: Ov3d, capture: Path, tmp_path: Path) -> None:
    done = ov3d("train", "points", capture, "--resume", tmp_path)
    assert "not a run that can be resumed (looked for config.yaml)" in done.error


def test_resume_refuses_another_scale_or_layout(ov3d: Ov3d, capture: Path, trained: Path) -> None:
    call = ("train", "points", capture, "--resume", trained, "--quiet", "--json")
    done = ov3d(*call, "--scale", "2")
    assert (done.code, done.error) == (
        2,
        f"Run {trained} was started without --scale, not with 2.0. Leave --scale out, or start a new run.",
    )
    assert "was started without --layout, not with scannet" in ov3d(*call, "--layout", "scannet").error
    (trained / "manifest.json").unlink()  # as a killed run leaves it
    assert ov3d(*call, "--scale", "2").code == 2
    assert json.loads(ov3d(*call).out)["manifest"]["scale"] is None


def test_doctor_reads_the_scene(ov3d: Ov3d, capture: Path) -> None:
    done = ov3d("doctor", capture, "--json", "--quiet")
    facts = {fact["name"]: fact["value"] for fact in json.loads(done.out)["facts"]}
    assert done.code == 0, done.err
    assert facts["frames"].startswith("5 (5 of 64x48); 5 with depth")
    assert "made from depth" in facts["points"]
    assert "seen" in facts
    machine = ov3d("doctor", "--quiet")
    assert "torch" in machine.out
