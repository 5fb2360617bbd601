"""Bad input: one clear line, the right exit code, nothing lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.cli.capture import write_capture
from tests.cli.conftest import Ov3d
from tests.colour_encoder import colour_encoder

__all__ = ["colour_encoder"]


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return write_capture(tmp_path / "desk")


def _train(ov3d: Ov3d, capture: Path) -> str:
    done = ov3d("train", "points", capture, "--quiet")
    assert done.code == 1
    assert done.out == ""
    return done.error


def test_a_path_that_is_no_scene_says_what_was_looked_for(ov3d: Ov3d, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for path in (empty, tmp_path / "nowhere"):
        done = ov3d("extract-features", path)
        assert done.code == 1
        assert str(path) in done.error
    assert "color" in ov3d("doctor", empty).error


@pytest.mark.usefixtures("colour_encoder")
def test_missing_intrinsics_are_named(ov3d: Ov3d, capture: Path) -> None:
    shutil.rmtree(capture / "intrinsic")
    assert "intrinsic" in _train(ov3d, capture)


@pytest.mark.usefixtures("colour_encoder")
def test_a_reflected_pose_is_named(ov3d: Ov3d, capture: Path) -> None:
    pose = np.loadtxt(capture / "pose" / "2.txt")
    pose[:3, 0] *= -1
    np.savetxt(capture / "pose" / "2.txt", pose)
    error = _train(ov3d, capture)
    assert "2.txt" in error
    assert "reflects" in error


@pytest.mark.usefixtures("colour_encoder")
def test_lost_poses_are_left_out_and_counted(ov3d: Ov3d, capture: Path) -> None:
    np.savetxt(capture / "pose" / "2.txt", np.full((4, 4), -np.inf))
    done = ov3d("extract-features", capture)
    assert done.code == 0
    assert "desk: 1 frame has a pose that is not finite and is left out" in done.err
    for idx in range(5):
        np.savetxt(capture / "pose" / f"{idx}.txt", np.full((4, 4), np.nan))
    assert "pose" in ov3d("extract-features", capture).error


@pytest.mark.usefixtures("colour_encoder")
def test_wrong_poses_are_explained(ov3d: Ov3d, tmp_path: Path, capture: Path) -> None:
    from ov3d.common.exporters.ply import write_ply
    from tests.common.small_scenes import box_cloud

    cloud = box_cloud()
    write_ply(capture / "cloud.ply", cloud.xyz, rgb=cloud.rgb)
    for idx in range(5):
        pose = np.loadtxt(capture / "pose" / f"{idx}.txt")
        np.savetxt(capture / "pose" / f"{idx}.txt", pose @ np.diag([1.0, -1.0, -1.0, 1.0]))
    error = _train(ov3d, capture)
    assert "of the points of desk are seen" in error
    assert "OpenGL" in error


@pytest.mark.usefixtures("colour_encoder")
def test_a_cut_image_is_left_out_and_all_cut_is_an_error(ov3d: Ov3d, capture: Path) -> None:
    images = sorted((capture / "color").iterdir())
    images[0].write_bytes(images[0].read_bytes()[:-200])
    done = ov3d("extract-features", capture)
    assert done.code == 0
    assert "left out: desk, image 0: " in done.out
    assert "truncated" in done.out
    for image in images:
        image.write_bytes(image.read_bytes()[:60])
    assert "None of 5 images can be read" in ov3d("extract-features", capture).error


@pytest.mark.parametrize(
    ("spec", "words"),
    [("oflfine", "Did you mean offline"), ("openclip:ViT-B-99/openai", "ViT-B"), ("offline:lite9", "lite")],
)
def test_an_unknown_encoder_gets_the_nearest_names(ov3d: Ov3d, capture: Path, spec: str, words: str) -> None:
    done = ov3d("extract-features", capture, "--encoder", spec)
    assert done.code == 2
    assert words in done.error


def test_other_wrong_words(ov3d: Ov3d, capture: Path) -> None:
    for args, words in (
        (("train", "lidar", capture), "not available yet"),
        (("train", "pionts", capture), "Did you mean points"),
        (("train", "points", capture, "--set", "lift.bordr=3"), "Did you mean border"),
        (("train", "points", capture, "--stages", "guide"), "fuse"),
        (("train", "points", capture, "--refine", "dyno"), "dino"),
        (("extract-features", capture, "--refine", "dyno"), "dino"),
        (("doctor", capture, "--layout", "scanet"), "scannet"),
        (("extract-features", capture, "--device", "gpu"), "Unknown device"),
    ):
        done = ov3d(*args)
        assert done.code == 2, (args, done.err)
        assert words in done.error, (args, done.error)


@pytest.mark.parametrize("prompt", ["", "   ", "x" * 10_000])
def test_no_prompt_and_a_book_of_one(ov3d: Ov3d, prompt: str) -> None:
    done = ov3d("query", prompt)
    assert done.code == 2
    assert done.error.startswith("The prompt ")


def test_a_query_without_a_run_says_how_to_make_one(ov3d: Ov3d) -> None:
    done = ov3d("query", "a cat")
    assert done.code == 1
    assert "ov3d train points" in done.error
