"""Label maps and arrays through the whole command line: extract, train, query, eval."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.capture import write_capture
from tests.cli.conftest import Ov3d
from tests.common.small_scenes import box_scene
from tests.common.teachers.fakes import DIM, WordEncoder, words, write_maps

__all__ = ["words"]

SMALL = ("--set", "lift.border=2")


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return write_capture(tmp_path / "desk")


@pytest.fixture
def maps(tmp_path: Path, capture: Path) -> Path:
    return write_maps(tmp_path / "maps", box_scene(tmp_path / "again", 5))


def _train(ov3d: Ov3d, capture: Path, encoder: str, *more: str) -> dict[str, object]:
    done = ov3d("train", "points", capture, "--encoder", encoder, *SMALL, *more, "--json", "--quiet")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_label_maps_from_extraction_to_scores(
    ov3d: Ov3d, capture: Path, maps: Path, words: WordEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = ov3d("extract-features", capture, "--encoder", f"labels:{maps}", "--json", "--quiet")
    assert checked.code == 0, checked.err
    assert json.loads(checked.out)["scenes"][0]["images"] == 5
    assert json.loads(checked.out)["encoder"] == f"labels:{maps}@minilm"
    planned = ov3d("extract-features", capture, "--encoder", f"labels:{maps}", "--dry-run", "--json", "--quiet")
    assert json.loads(planned.out)["scenes"][0]["missing"] == 0
    manifest = _train(ov3d, capture, f"labels:{maps}")["manifest"]
    assert manifest["teacher"]["kind"] == "labels"  # type: ignore[index]
    assert manifest["teacher"]["names"] == {"3": "floor", "7": "a box"}  # type: ignore[index]
    for _ in range(2):  # the second time the text cache answers, and no encoder is made
        answer = ov3d("query", "the box", "--json", "--quiet")
        assert answer.code == 0, answer.err
        assert abs(json.loads(answer.out)["objects"][0]["centre"][0]) < 0.1
        monkeypatch.setattr("ov3d.common.encoders.create_text_encoder", None)
    monkeypatch.setattr("ov3d.common.encoders.create_text_encoder", lambda spec, *, device: words)
    reports = json.loads(ov3d("eval", "latest", "--json", "--quiet").out)["reports"]
    assert reports[0]["means"]["mIoU"] > 0.95
    assert reports[1]["means"]["mIoU"] == 1.0  # the maps are the truth


def test_a_stated_corruption_stands_beside_every_result(ov3d: Ov3d, capture: Path, words: WordEncoder) -> None:
    run = str(_train(ov3d, capture, "labels:scene,corrupt=30,seed=1")["run"])
    line = "the teacher's labels were corrupted by 30 % (seed 1): "
    scored = ov3d("eval", run, "--quiet")
    assert scored.code == 0, scored.err
    assert line in " ".join(scored.out.split())
    assert "bound to surfaces" in " ".join(scored.out.split())
    assert line in ov3d("query", "the box", run).err
    trained = ov3d("train", "points", capture, "--encoder", "labels:scene,corrupt=15", *SMALL)
    assert "desk: the teacher's labels were corrupted by 15 % (seed 0)" in " ".join(trained.err.split())
    assert "corrupted by 15 %" in " ".join(trained.out.split())
    extracted = ov3d("extract-features", capture, "--encoder", "labels:scene,corrupt=0")
    assert "corrupted by 0 % (seed 0): 0.0 %" in " ".join(extracted.err.split())


def test_arrays_made_elsewhere(ov3d: Ov3d, capture: Path, tmp_path: Path, words: WordEncoder) -> None:
    text = np.concatenate([words.encode_text(["floor", "box"]), np.zeros((1, DIM), np.float32)])
    (tmp_path / "arrays").mkdir()
    for frame in box_scene(tmp_path / "again", 5).frames:
        assert frame.labels is not None
        np.save(tmp_path / "arrays" / f"{frame.name}.npy", text[frame.labels.load()].astype(np.float16))
    spec = f"features:{tmp_path / 'arrays'}"
    assert "does not name the text encoder" in ov3d("train", "points", capture, "--encoder", spec).error
    _train(ov3d, capture, spec, "--text-encoder", "minilm")
    answer = ov3d("query", "the box", "--json", "--quiet")
    assert json.loads(answer.out)["encoder"] == f"{spec}@minilm"
    assert json.loads(answer.out)["num_objects"] == 1
    reports = json.loads(ov3d("eval", "latest", "--json", "--quiet").out)["reports"]
    assert [report["means"]["mIoU"] > 0.95 for report in reports] == [True, True]


def test_points_made_elsewhere_need_no_photographs(ov3d: Ov3d, tmp_path: Path, words: WordEncoder) -> None:
    from ov3d.common.exporters.ply import write_ply
    from tests.common.small_scenes import box_cloud

    cloud = box_cloud()
    assert cloud.labels is not None
    (tmp_path / "scan").mkdir()
    write_ply(tmp_path / "scan" / "scan.ply", cloud.xyz, rgb=cloud.rgb)
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "points.npy", words.encode_text(["floor", "box"])[cloud.labels])
    _train(ov3d, tmp_path / "scan" / "scan.ply", f"features:{tmp_path / 'arrays'}@minilm")
    answer = ov3d("query", "the box", "--json", "--quiet", "-o", tmp_path / "found")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["num_objects"] == 1


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("--encoder", "labels:/gone"), 1, "No folder /gone"),
        (("--encoder", "labels:scene,corupt=30"), 2, "Did you mean corrupt"),
        (("--encoder", "labels:scene,corrupt=31"), 2, "corrupt must be one of"),
        (("--encoder", "labels:scene", "--refine", "dino"), 2, "--refine does not apply to"),
        (("--encoder", "offline", "--text-encoder", "minilm"), 2, "has its own text side"),
        (("--encoder", "minilm"), 2, "encodes only text"),
        (("--encoder", "label:scene"), 2, "Did you mean labels"),
        (("--encoder", "features:/gone"), 2, "does not name the text encoder"),
    ],
)
def test_what_is_wrong_is_one_line(
    ov3d: Ov3d, capture: Path, words: WordEncoder, args: tuple[str, ...], code: int, says: str
) -> None:
    done = ov3d("extract-features", capture, *args)
    assert done.code == code, done.err
    assert says in done.error
