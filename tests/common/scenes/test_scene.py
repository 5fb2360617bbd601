"""Scenes and the images they point at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ov3d.common.base.errors import DataError
from ov3d.common.scenes.cameras import Camera
from ov3d.common.scenes.scene import (
    IGNORE,
    DepthImage,
    Frame,
    LabelImage,
    LazyScenes,
    Scene,
    SceneSource,
    World,
)

CAMERA = Camera(4, 3, 4.0, 4.0, 2.0, 1.5)


def _save(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values).save(path)
    return path


def _frame(name: str, path: Path) -> Frame:
    return Frame(name, path, CAMERA, np.eye(4))


def test_depth_is_scaled_and_missing_is_zero(tmp_path: Path) -> None:
    millimetres = np.array([[0, 1500, 65535, 1]] * 3, np.uint16)
    depth = DepthImage(_save(tmp_path / "d.png", millimetres), 0.001, CAMERA).load()
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth[0], [0, 1.5, 65.535, 0.001], rtol=1e-6)


def test_depth_of_another_size_or_with_colours_is_refused(tmp_path: Path) -> None:
    small = DepthImage(_save(tmp_path / "d.png", np.zeros((2, 2), np.uint16)), 0.001, CAMERA)
    with pytest.raises(DataError, match="has shape"):
        small.load()
    coloured = DepthImage(_save(tmp_path / "c.png", np.zeros((3, 4, 3), np.uint8)), 0.001, CAMERA)
    with pytest.raises(DataError, match="has shape"):
        coloured.load()


def test_labels_beyond_the_classes_and_the_void_are_unknown(tmp_path: Path) -> None:
    path = _save(tmp_path / "l.png", np.array([[0, 1, 2, 255]], np.uint8))
    assert LabelImage(path, 2).load().tolist() == [[0, 1, IGNORE, IGNORE]]
    assert LabelImage(path, 3, void=0).load().tolist() == [[IGNORE, 1, 2, IGNORE]]


def test_an_image_is_checked_when_it_is_loaded(tmp_path: Path) -> None:
    good = _save(tmp_path / "a.png", np.full((3, 4, 3), 7, np.uint8))
    assert (_frame("a", good).load_image() == 7).all()
    with pytest.raises(DataError, match="is 5x3, but its intrinsics are for 4x3"):
        _frame("b", _save(tmp_path / "b.png", np.zeros((3, 5, 3), np.uint8))).load_image()
    noise = np.random.default_rng(0).integers(0, 255, (3, 4, 3)).astype(np.uint8)
    cut = _save(tmp_path / "cut.png", noise)
    cut.write_bytes(cut.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"cut\.png cannot be read"):
        _frame("cut", cut).load_image()
    with pytest.raises(DataError, match="Image .* does not exist"):
        _frame("gone", tmp_path / "gone.png").load_image()


def test_frames_are_found_by_name(tmp_path: Path) -> None:
    scene = Scene("room", tmp_path, "scannet", tuple(_frame(name, tmp_path) for name in "abc"))
    assert scene.frame("b").name == "b"
    assert [frame.name for frame in scene.with_frames(["c", "a"]).frames] == ["a", "c"]
    with pytest.raises(DataError, match="no frame 'z'"):
        scene.frame("z")
    with pytest.raises(DataError, match="no frame 'z'"):
        scene.with_frames(["a", "z"])


def test_a_source_reads_a_scene_only_when_asked() -> None:
    read: list[str] = []

    def load(name: str) -> Scene:
        read.append(name)
        return Scene(name, Path(name), "none")

    source = LazyScenes(("a", "b"), load)
    assert isinstance(source, SceneSource)
    assert len(source) == 2
    assert read == []
    assert source[1].name == "b"
    assert read == ["b"]
    assert [scene.name for scene in source] == ["a", "b"]


def test_units_have_a_name() -> None:
    assert World().unit_name == "m"
    assert World(units="arbitrary").unit_name == "units"
