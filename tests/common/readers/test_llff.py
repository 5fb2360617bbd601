"""LLFF folders and 3D-OVS scenes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from ov3d.common.readers import load_scene
from ov3d.common.scenes.scene import IGNORE, ClassMasks, Scene
from tests.common.readers.layouts import assert_same_frames, error_of, ids_by_name, write_colmap, write_llff


def test_a_room_in_this_layout_is_the_same_scene(room: Scene, tmp_path: Path) -> None:
    write_llff(tmp_path / "room", room, masks_of=(0, 2))
    scene = load_scene(tmp_path / "room")
    assert (scene.name, scene.layout, scene.notes) == ("room", "llff", ())
    assert_same_frames(scene, room)
    assert scene.splits == {"train": ("1",), "test": ("0", "2")}
    assert scene.classes == tuple(sorted(room.classes)) and scene.world.units == "arbitrary"
    for idx in (0, 2):
        ours, theirs = scene.frames[idx].labels, room.frames[idx].labels
        assert isinstance(ours, ClassMasks) and theirs is not None
        np.testing.assert_array_equal(ids_by_name(scene, ours.load()), ids_by_name(room, theirs.load()))
        assert ours.load_masks().shape == (len(room.classes), 72, 96)
    assert scene.frames[1].labels is None
    assert scene.frames[0].depth_range == (0.5, 8.0)


def test_masks_belong_to_positions_not_to_names(room: Scene, tmp_path: Path) -> None:
    write_llff(tmp_path, room, masks_of=(1,))
    for number in (2, 1, 0):
        (tmp_path / "images" / f"{number}.png").rename(tmp_path / "images" / f"{number + 3}.png")
    scene = load_scene(tmp_path)
    assert scene.splits["test"] == ("4",)
    assert scene.notes == ("masks 1 belong to image 4: folders are matched by position, not by name",)


def test_masks_of_other_sizes_and_kinds(room: Scene, tmp_path: Path) -> None:
    write_llff(tmp_path, room)
    folder = tmp_path / "segmentations" / "0"
    folder.mkdir(parents=True)
    (folder.parent / "classes.txt").write_text("wall\n floor \n\nlamp\n")
    left, top = np.zeros((36, 48), np.uint8), np.zeros((36, 48), np.uint8)
    left[:, :24], top[:12] = 255, 255
    top[30] = 200  # grey is not white in a file that does not blur
    Image.fromarray(left).save(folder / "floor.jpg", quality=60)
    Image.fromarray(np.dstack([top] * 3)).save(folder / "wall.png")
    scene = load_scene(tmp_path)
    labels = scene.frames[0].labels
    assert isinstance(labels, ClassMasks) and scene.classes == ("floor", "lamp", "wall")
    expected = np.full((72, 96), IGNORE)
    expected[:, :48] = 0
    expected[:24] = 2
    expected[:24, :48] = IGNORE  # two classes claim it
    np.testing.assert_array_equal(labels.load(), expected)
    assert scene.notes == ("1 masks: missing, treated as empty (0/lamp)",)


def test_a_colmap_model_beside_it_is_better_unless_there_are_masks(room: Scene, tmp_path: Path) -> None:
    write_llff(tmp_path / "a", room)
    write_colmap(tmp_path / "b", room, binary=True)
    shutil.copytree(tmp_path / "b" / "sparse", tmp_path / "a" / "sparse")
    assert load_scene(tmp_path / "a").layout == "colmap"
    assert load_scene(tmp_path / "a", layout="llff").layout == "llff"
    write_llff(tmp_path / "c", room, masks_of=(0,))
    shutil.copytree(tmp_path / "b" / "sparse", tmp_path / "c" / "sparse")
    assert load_scene(tmp_path / "c").layout == "llff"
    assert load_scene(tmp_path / "c", layout="colmap").layout == "colmap"


def test_what_is_wrong_is_said_in_one_line(room: Scene, tmp_path: Path) -> None:
    write_llff(tmp_path, room, masks_of=(0,))
    poses = tmp_path / "poses_bounds.npy"
    whole = np.load(poses)

    def message(rows: np.ndarray) -> str:
        np.save(poses, rows)
        return error_of(tmp_path).message

    assert "has 2 poses, " in message(whole[:2]) and "has 3 images" in message(whole[:2])
    assert "not rows of 17 numbers" in message(whole[:, :15])
    assert "cannot be read as an array" in message(np.array([[{}]], dtype=object))
    assert "not rows of 17 numbers" in message(whole.astype(str))
    assert "intrinsics" in message(whole * np.where(np.arange(17) == 4, 2, 1))
    assert "size or focal length" in message(whole * np.where(np.arange(17) == 14, np.nan, 1))
    reflected = whole.copy()
    reflected[1, [0, 5, 10]] *= -1
    assert "pose of 1.png" in message(reflected) and "reflects" in message(reflected)
    np.save(poses, whole)
    data = poses.read_bytes()
    poses.write_bytes(data[: len(data) - 9])
    assert "cannot be read as an array" in error_of(tmp_path).message
    poses.write_bytes(data)
    masks = tmp_path / "segmentations"
    (masks / "7").mkdir()
    assert "has masks for image 7, but there are only 3 images" in error_of(tmp_path).message
    (masks / "7").rmdir()
    (masks / "0" / "unicorn.png").write_bytes(b"")
    assert "unicorn.png is not in classes.txt" in error_of(tmp_path).message
    (masks / "0" / "unicorn.png").unlink()
    (masks / "classes.txt").write_text("a\na\n")
    assert "names a class twice" in error_of(tmp_path).message
    (masks / "classes.txt").write_text("\n")
    assert "names no class" in error_of(tmp_path).message
    (masks / "classes.txt").unlink()
    assert "classes.txt cannot be read" in error_of(tmp_path).message
