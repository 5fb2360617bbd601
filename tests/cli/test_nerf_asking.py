"""A nerf run from the shell: asking it without torch, animating it, scoring it by each protocol. One tiny run serves all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.capture import write_capture
from tests.cli.conftest import Ov3d
from tests.colour_encoder import ColourEncoder
from tests.nerf.scenes import TINY

WHICH = "import sys, atexit; atexit.register(lambda: print(*sorted({'torch', 'scipy'} & set(sys.modules)), file=sys.stderr)); "


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a capture, `desk`, and a run of it, `run`, trained with an encoder that sees colours."""
    from ov3d.backends import get_backend
    from ov3d.common.base.config import load_config
    from ov3d.common.learning.run import train_run

    folder = tmp_path_factory.mktemp("nerf")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        encoder = ColourEncoder()
        patch.setattr("ov3d.common.teachers.suitable_refinement", lambda refine, spec: "none")
        patch.setattr("ov3d.common.encoders.create_encoder", lambda spec, *, device: encoder)
        patch.setenv("OV3D_CACHE", str(folder / "cache"))
        capture = write_capture(folder / "desk")
        (folder / "run").mkdir()
        settings = [*TINY, "field.steps=60", "distil.patches=0", "lift.border=2", 'held_out=["0"]']
        backend = get_backend("nerf")
        config = load_config(backend.config_type, None, settings)
        train_run(backend, capture, config, run=folder / "run", device="cpu")
        yield folder
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OV3D_CACHE", str(place / "cache"))


def test_it_is_asked_without_torch(ov3d: Ov3d, place: Path, tmp_path: Path) -> None:
    first = json.loads(
        ov3d("query", "the box", place / "run", "--json", "--threshold", "0.5").out
    )  # into the text cache
    assert first["notes"] == []
    call = ["query", "the box", str(place / "run"), "--json", "--threshold", "0.5", "-o", str(tmp_path / "found")]
    env = {**os.environ, "OV3D_CHECK_SHAPES": ""}
    env.pop("OV3D_CHECK_SHAPES")
    done = subprocess.run(
        [sys.executable, "-c", WHICH + "from ov3d.cli.app import main; main()", *call, "--quiet"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.split() == []
    answer = json.loads(done.stdout)
    assert answer["objects"] == first["objects"] != []
    names = {Path(path).name for path in answer["files"]}
    views = range(5)
    assert names == {"points.ply", "top-down.png", *(f"{what}-{k}.png" for what in ("view", "mask") for k in views)}
    with Image.open(tmp_path / "found" / "mask-1.png") as mask, Image.open(place / "desk" / "label" / "1.png") as label:
        found, truth = np.asarray(mask) == 255, np.asarray(label) == 1
    assert (found & truth).sum() > 0.5 * truth.sum()


def test_a_prompt_outside_the_classes_is_weakly_supervised(ov3d: Ov3d, place: Path) -> None:
    done = ov3d("query", "grass", place / "run", "--json")
    assert "weakly supervised" in done.err
    assert json.loads(done.out)["notes"] == ["this prompt is outside the training vocabulary: weakly supervised"]


def test_an_orbit_is_rendered_from_the_field_or_painted(ov3d: Ov3d, place: Path, tmp_path: Path) -> None:
    call = (
        "query",
        "the box",
        place / "run",
        "--render",
        "orbit",
        "--frames",
        "4",
        "--size",
        "48",
        "--threshold",
        "0.5",
    )
    done = ov3d(*call, "-o", tmp_path / "a.png")
    assert done.code == 0, done.err
    assert f"Animation: {tmp_path / 'a.png'}" in done.out.replace("\n", "")
    with Image.open(tmp_path / "a.png") as picture:
        assert (picture.n_frames, picture.width, picture.info["loop"]) == (4, 48, 0)  # type: ignore[attr-defined]
    ov3d(*call, "-o", tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    (checkpoint,) = (place / "run").rglob("distil.safetensors")
    checkpoint.rename(checkpoint.with_suffix(".gone"))
    painted = ov3d(*call, "-o", tmp_path / "c.png")
    checkpoint.with_suffix(".gone").rename(checkpoint)
    assert painted.code == 0, painted.err
    assert "The points are painted instead" in painted.err
    assert (tmp_path / "c.png").read_bytes() != (tmp_path / "a.png").read_bytes()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--render", "orbitt"], "Did you mean orbit?"),
        (["--frames", "4"], "--frames works only with --render orbit"),
        (["-o", "x.png"], "-o x.png must be a folder"),
        (["--render", "orbit", "-o", "x.mp4"], "Writing x.mp4 needs ffmpeg"),
    ],
)
def test_wrong_calls_are_told_before_anything_is_read(
    ov3d: Ov3d, more: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    done = ov3d("query", "a cat", "nowhere", *more)
    assert (done.code, said in done.error) == (2, True), done.err


def test_it_labels_no_other_scan(ov3d: Ov3d, place: Path, tmp_path: Path) -> None:
    done = ov3d("predict", place / "run", tmp_path / "scan.ply", "-o", tmp_path / "labelled.ply")
    assert (done.code, "made by the backend nerf, which cannot label new scans" in done.error) == (2, True), done.err


def test_it_is_scored_by_each_protocol(ov3d: Ov3d, place: Path) -> None:
    held_out = json.loads(ov3d("eval", place / "run", "--json", "--quiet").out)["reports"]
    assert [report["protocol"] for report in held_out] == ["held-out", "held-out"]
    assert "teacher" in held_out[1]["title"]
    assert set(held_out[0]["extra"]) == {"pixel acc", "PSNR", "SSIM"}
    assert held_out[0]["means"]["mIoU"] > 0.4  # chance: a quarter
    ovs = json.loads(ov3d("eval", place / "run", "--protocol", "3d-ovs", "--json", "--quiet").out)["reports"]
    assert [(report["protocol"], report["num_scans"], report["facts"]["masks"]) for report in ovs] == [
        ("3d-ovs", 5, 10)
    ] * 2
    assert 0.4 < ovs[0]["means"]["mIoU"] <= 1
    assert 0.5 < ovs[0]["means"]["pixel Acc"] <= 1
    assert set(ovs[0]["extra"]) == {"PSNR", "SSIM"}
    assert any("4 of 5 annotated views were used in training" in note for note in ovs[0]["notes"])
    query = json.loads(ov3d("eval", place / "run", "--protocol", "langsplat", "--classes", "box", "--json", "-q").out)
    assert [(row["name"], row["views"]) for row in query["reports"][0]["classes"]] == [("box", 5)]
    assert query["reports"][0]["means"]["mIoU"] > 0.2
    assert "pixel Acc" not in query["reports"][0]["means"]
    shown = ov3d("eval", place / "run", "--protocol", "3d-ovs", "-q")
    assert "protocol 3d-ovs" in shown.out
    assert "PSNR" in shown.out


def test_masks_of_another_size_are_resized_and_said_once(ov3d: Ov3d, place: Path) -> None:
    for path in (place / "desk" / "label").iterdir():
        with Image.open(path) as image:
            image.resize((128, 96), Image.Resampling.NEAREST).save(path)
    done = ov3d("eval", place / "run", "--protocol", "3d-ovs", "--json")
    for path in (place / "desk" / "label").iterdir():
        with Image.open(path) as image:
            image.resize((64, 48), Image.Resampling.NEAREST).save(path)
    assert done.code == 0, done.err
    (line,) = (line for line in done.err.splitlines() if "different size" in line)
    assert line.startswith(
        "5 views have truth of a different size than the photograph, resized by nearest neighbour (first: "
    )
    assert line.endswith("0.png, 128x96).")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--protocol", "semantic"], "must be held-out or 3d-ovs or langsplat, got semantic"),
        (["--protocol", "3d-ovs", "--threshold", "0.3"], "--threshold does not apply to protocol 3d-ovs"),
        (["--protocol", "langsplat", "--threshold", "0.3"], "--threshold does not apply to protocol langsplat"),
        (["--protocol", "3d-ovs", "--classes", "box"], "--classes does not apply"),
        (["--protocol", "langsplat", "--classes", "bocks"], "has no class 'bocks'"),
    ],
)
def test_wrong_combinations_are_refused(ov3d: Ov3d, place: Path, more: list[str], said: str) -> None:
    done = ov3d("eval", place / "run", "--quiet", *more)
    assert (done.code, said in done.error) == (2, True), done.err
