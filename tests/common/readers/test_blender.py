"""Blender's transforms_train/val/test.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ov3d.common.readers import load_scene
from ov3d.common.scenes.scene import Scene
from tests.common.readers.layouts import assert_same_frames, error_of, write_blender, write_json


def test_a_room_in_this_layout_is_the_same_scene(room: Scene, tmp_path: Path) -> None:
    write_blender(tmp_path / "lego", room)
    scene = load_scene(tmp_path / "lego")
    assert (scene.name, scene.layout, scene.notes) == ("lego", "blender", ())
    assert [frame.name for frame in scene.frames] == ["train_r_1", "train_r_2", "test_r_0"]
    assert scene.splits == {"train": ("train_r_1", "train_r_2"), "test": ("test_r_0",)}
    assert scene.world.units == "arbitrary" and scene.world.up == (0, 0, 1)
    order = dict(zip("120", scene.frames, strict=True))
    frames = tuple(order[frame.name] for frame in room.frames)
    assert_same_frames(Scene("lego", tmp_path, "blender", frames), room)


def test_what_is_transparent_is_white(room: Scene, tmp_path: Path) -> None:
    write_blender(tmp_path, room)
    path = tmp_path / "train" / "r_1.png"
    rgba = np.asarray(Image.open(path)).copy()
    rgba[:20, :, 3] = 0
    Image.fromarray(rgba).save(path)
    image = load_scene(tmp_path).frame("train_r_1").load_image()
    assert (image[:20] == 255).all()
    np.testing.assert_array_equal(image[20:], rgba[20:, :, :3])


@pytest.mark.parametrize("orientation", [3, 6])
def test_sizes_that_nobody_stated_are_those_of_the_upright_image(room: Scene, tmp_path: Path, orientation: int) -> None:
    write_blender(tmp_path, room)
    before = load_scene(tmp_path).frame("train_r_1")
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "train" / "r_1.png"
    Image.open(path).save(path, exif=exif)
    after = load_scene(tmp_path).frame("train_r_1")
    assert (after.camera.width, after.camera.height) == ((96, 72) if orientation == 3 else (72, 96))
    np.testing.assert_array_equal(after.world_from_camera, before.world_from_camera)
    assert after.load_image().shape == (after.camera.height, after.camera.width, 3)


def test_what_is_wrong_is_said_in_one_line(room: Scene, tmp_path: Path) -> None:
    write_blender(tmp_path, room)
    train = tmp_path / "transforms_train.json"
    data = json.loads(train.read_text())
    write_json(train, {"frames": data["frames"]})
    assert "has no focal length" in error_of(tmp_path).message
    train.write_text(train.read_text()[:50])
    assert f"{train} is not valid JSON" in error_of(tmp_path).message
    write_json(train, {**data, "frames": [{"file_path": "./train/r_9"}]})
    assert "has no 4x4 transform_matrix" in error_of(tmp_path).message
    write_json(train, {**data, "frames": [{**data["frames"][0], "file_path": "./train/r_9"}]})
    assert "None of the 1 photographs" in error_of(tmp_path).message
    train.unlink()
    assert "is not a scene" in error_of(tmp_path, "blender").message
