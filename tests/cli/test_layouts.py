"""What is read is said aloud, and may be told: --layout and --scale."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ov3d.common.base.runs import find_run
from ov3d.common.readers import load_scene
from tests.cli.capture import write_capture
from tests.cli.conftest import Ov3d
from tests.colour_encoder import colour_encoder
from tests.common.readers.layouts import write_colmap, write_nerfstudio

__all__ = ["colour_encoder"]


@pytest.mark.usefixtures("colour_encoder")
def test_the_layout_is_said_on_stderr_and_may_be_overridden(ov3d: Ov3d, tmp_path: Path) -> None:
    desk = write_capture(tmp_path / "desk")
    write_nerfstudio(tmp_path / "both", load_scene(desk), with_depth=False)
    (tmp_path / "both" / "transforms.json").rename(tmp_path / "both" / "kept.json")
    write_capture(tmp_path / "both")
    (tmp_path / "both" / "kept.json").rename(tmp_path / "both" / "transforms.json")
    done = ov3d("extract-features", tmp_path / "both", "--dry-run", "--json")
    assert done.code == 0 and json.loads(done.out)["scenes"]
    assert "both: layout scannet, 5 frames, no points, metres" in done.err
    done = ov3d("extract-features", tmp_path / "both", "--dry-run", "--layout", "nerfstudio")
    assert "both: layout nerfstudio, 5 frames, no points, arbitrary units" in done.err
    assert ov3d("extract-features", tmp_path / "both", "--dry-run", "--quiet").err == ""
    done = ov3d("doctor", tmp_path / "both", "--layout", "colmapp")
    assert done.code == 2 and "Did you mean colmap?" in done.error


@pytest.mark.usefixtures("colour_encoder")
def test_a_scale_makes_metres_and_the_run_keeps_it(ov3d: Ov3d, tmp_path: Path) -> None:
    desk = write_capture(tmp_path / "desk")
    done = ov3d("doctor", desk, "--scale", "2", "--json")
    facts = {fact["name"]: fact["value"] for fact in json.loads(done.out)["facts"]}
    assert done.code == 0 and "2 m" in facts["note"]
    done = ov3d("train", "points", desk, "--scale", "2", "--stages", "fuse")
    assert done.code == 0 and "desk: layout scannet" in done.err
    manifest = find_run().manifest
    assert (manifest["layout"], manifest["scale"], manifest["device"]) == (None, 2.0, "cpu")
    assert ov3d("eval", "latest", "--json").code == 0  # reads the scene at the same scale, or points would not match
    for scale in ("0", "-1", "nan"):
        done = ov3d("doctor", desk, "--scale", scale)
        assert done.code == 2 and "--scale" in done.error


def test_a_capture_of_unknown_size_is_told_how_to_get_metres(ov3d: Ov3d, tmp_path: Path) -> None:
    from tests.common.readers.layouts import gallery_room

    room = gallery_room(tmp_path / "room")
    write_colmap(tmp_path / "c", room, binary=True)
    done = ov3d("doctor", tmp_path / "c", "--json")
    world = {fact["name"]: fact for fact in json.loads(done.out)["facts"]}["world"]
    assert world["value"].startswith("arbitrary units") and "--scale" in world["hint"]
    done = ov3d("doctor", tmp_path / "c", "--json", "--scale", "1")
    assert {fact["name"]: fact for fact in json.loads(done.out)["facts"]}["world"]["value"].startswith("metres")
