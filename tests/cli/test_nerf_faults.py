"""Bad captures for `ov3d train nerf`: one clear line each, before anything is trained where that can be known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ov3d.common.base.tensor_files import read_tensors
from ov3d.common.readers import load_scene
from tests.cli.capture import write_capture
from tests.cli.conftest import Ov3d
from tests.colour_encoder import colour_encoder
from tests.common.readers.layouts import write_nerfstudio
from tests.nerf.scenes import TINY

__all__ = ["colour_encoder"]


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return write_capture(tmp_path / "desk")


pytestmark = pytest.mark.usefixtures("one_thread")


def _settings(*more: str) -> list[str]:
    return [word for setting in (*TINY, *more) for word in ("--set", setting)]


def _refused(ov3d: Ov3d, capture: Path, *more: str, stages: str = "field") -> str:
    """The error line, and that nothing of it went to stdout."""
    done = ov3d("train", "nerf", capture, "--quiet", "--stages", stages, *_settings(*more))
    assert done.code == 1, done.err
    assert done.out == ""
    return done.error


def _edit_pose(capture: Path, idx: int, scale: tuple[float, float, float]) -> None:
    path = capture / "pose" / f"{idx}.txt"
    pose = np.loadtxt(path)
    pose[:3, :3] *= scale
    np.savetxt(path, pose)


def test_images_without_poses(ov3d: Ov3d, capture: Path) -> None:
    for file in (capture / "pose").iterdir():
        file.unlink()
    error = _refused(ov3d, capture)
    assert "pose" in error and "desk" in error


def test_poses_without_images(ov3d: Ov3d, capture: Path) -> None:
    for file in (capture / "color").iterdir():
        file.unlink()
    assert "No images in" in _refused(ov3d, capture)


def test_poses_without_images_of_nerfstudio(ov3d: Ov3d, capture: Path, tmp_path: Path) -> None:
    write_nerfstudio(tmp_path / "walk", load_scene(capture), with_depth=False)
    listed = json.loads((tmp_path / "walk" / "transforms.json").read_text())["frames"]
    for frame in listed:
        (tmp_path / "walk" / frame["file_path"]).unlink()
    error = _refused(ov3d, tmp_path / "walk")
    assert "transforms.json" in error or "walk" in error
    (tmp_path / "walk" / "transforms.json").write_text(json.dumps({"fl_x": 60, "frames": []}))
    assert "lists no photograph" in _refused(ov3d, tmp_path / "walk")


@pytest.mark.parametrize("kind", ["zero", "singular"])
def test_singular_intrinsics(ov3d: Ov3d, capture: Path, kind: str) -> None:
    for name in ("intrinsic_color.txt", "intrinsic_depth.txt"):
        matrix = np.loadtxt(capture / "intrinsic" / name)
        matrix = np.zeros_like(matrix) if kind == "zero" else matrix * [[0], [1], [1]]
        np.savetxt(capture / "intrinsic" / name, matrix)
    error = _refused(ov3d, capture)
    assert "intrinsic" in error or "fx=0" in error


@pytest.mark.parametrize(
    ("scale", "words"),
    [((-1.0, 1.0, 1.0), "reflects"), ((1.0, 1.0, 1.4), "not orthonormal"), ((0, 0, 0), "orthonormal")],
)
def test_rotations_that_are_none(ov3d: Ov3d, capture: Path, scale: tuple[float, float, float], words: str) -> None:
    _edit_pose(capture, 2, scale)
    error = _refused(ov3d, capture)
    assert words in error and "2" in error


def test_all_cameras_in_one_point(ov3d: Ov3d, capture: Path) -> None:
    for path in (capture / "pose").iterdir():
        pose = np.loadtxt(path)
        pose[:3, 3] = (1.0, 2.0, 3.0)
        np.savetxt(path, pose)
    error = _refused(ov3d, capture)
    assert "stand in one point" in error and "translations" in error


def test_one_photograph_is_too_few(ov3d: Ov3d, tmp_path: Path) -> None:
    error = _refused(ov3d, write_capture(tmp_path / "one", 2))
    assert "needs at least two views" in error and "held_out_every=0" in error


def test_an_empty_grid(ov3d: Ov3d, capture: Path) -> None:
    error = _refused(ov3d, capture, "field.occupancy_threshold=0.99999", "field.occupancy_from=0")
    assert "has no occupied cell" in error and "step 5" in error


@pytest.mark.parametrize("every", [1, 7])
def test_steps_that_are_too_large(ov3d: Ov3d, capture: Path, every: int, tmp_path: Path) -> None:
    """Weights or loss become NaN: step and cause are named, and the last checkpoint is kept whole."""
    error = _refused(
        ov3d, capture, "field.grid_rate=1e30", f"field.checkpoint_every={every}", "field.occupancy_every=2"
    )
    assert (
        "became NaN or infinite at step" in error
        and "learning rate is too large" in error
        and "field.grid_rate=" in error
    )
    for file in (tmp_path / "outputs").rglob("*.safetensors"):
        tensors = read_tensors(file, kind="checkpoint", version=1).tensors
        assert all(np.isfinite(array).all() for array in tensors.values())


@pytest.mark.usefixtures("colour_encoder")
def test_classes_are_looked_at_before_training(ov3d: Ov3d, capture: Path) -> None:
    assert "named twice" in _refused(ov3d, capture, "classes=[cat,Cat]", stages="field,distil")
    shutil.rmtree(capture / "label")
    (capture / "classes.txt").unlink()
    assert "names no classes" in _refused(ov3d, capture, stages="field,distil")
