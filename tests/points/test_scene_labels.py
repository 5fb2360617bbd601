"""Scene-level labels: from wherever they are, and one clear line where they are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ov3d.common.base.errors import DataError
from ov3d.common.scenes.cameras import Camera
from ov3d.common.scenes.scene import IGNORE, Frame, LabelImage, PointCloud, Scene
from ov3d.points.scene_labels import scene_labels

CLASSES = ("wall", "floor", "chair", "sofa")
CAMERA = Camera(4, 3, 4.0, 4.0, 2.0, 1.5)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    labels = np.array([2, 0, 2, IGNORE], np.int32)
    cloud = PointCloud(np.zeros((4, 3), np.float32), labels=labels)
    (tmp_path / "room").mkdir()
    return Scene("room", tmp_path / "room", "cloud", cloud=cloud, classes=CLASSES)


def test_true_classes_of_the_cloud_in_the_vocabularys_order(scene: Scene) -> None:
    assert scene_labels(scene, None, CLASSES) == ("wall", "chair")
    assert scene_labels(scene, None, ("chair", "door")) == ("chair",)


def test_true_classes_of_images_where_the_cloud_has_none(scene: Scene, tmp_path: Path) -> None:
    frames = []
    for number, ids in enumerate(([[1, 1, 9, 1]], [[3, 3, 3, 9]])):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.repeat(np.array(ids, np.uint8), 3, axis=0)).save(path)
        frames.append(Frame(str(number), path, CAMERA, np.eye(4), labels=LabelImage(path, 4)))
    assert scene.cloud is not None
    bare = replace(scene, cloud=replace(scene.cloud, labels=None), frames=tuple(frames))
    assert scene_labels(bare, None, CLASSES) == ("floor", "sofa")


def test_a_file_beside_the_scene_wins_over_truth(scene: Scene) -> None:
    (scene.path / "labels.txt").write_text("# what stands here\nSofa\n\n floor \n")
    assert scene_labels(scene, None, CLASSES) == ("floor", "sofa")


def test_a_file_beside_a_lone_cloud(scene: Scene, tmp_path: Path) -> None:
    cloud = scene.path / "scan.ply"
    cloud.write_text("ply")
    (scene.path / "labels.txt").write_text("chair\n")
    assert scene_labels(replace(scene, path=cloud), None, CLASSES) == ("chair",)
    (scene.path / "other.ply").write_text("ply")
    with pytest.raises(DataError, match="2 clouds"):
        scene_labels(replace(scene, path=cloud), None, CLASSES)


@pytest.mark.parametrize("name", ["room.txt", "room/labels.txt"])
def test_a_folder_of_files(scene: Scene, tmp_path: Path, name: str) -> None:
    path = tmp_path / "labels" / name
    path.parent.mkdir(parents=True)
    path.write_text("wall\n")
    assert scene_labels(scene, tmp_path / "labels", CLASSES) == ("wall",)


def test_yaml_by_scene(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "labels.yaml"
    path.write_text("room: [chair, wall]\nhall: [floor]\n")
    assert scene_labels(scene, path, CLASSES) == ("wall", "chair")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("room: [chiar]", "'chiar' is not in the vocabulary. Did you mean chair"),
        ("hall: [chair]\nrooms: [wall]", "has no labels for scene room.* Did you mean rooms"),
        ("room: [chair, Chair]", "lists 'chair' twice"),
        ("room: []", "lists no classes"),
        ("room:", "lists no classes"),
        ("room: chair", "gives room a str, not a list"),
        ("room: [yes]", "class True, which is not text"),
        ("", "is empty"),
        ("- chair", "holds a list, not a mapping"),
        ("room: [chair", "is not valid YAML"),
    ],
)
def test_faults_of_yaml_are_said(scene: Scene, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "labels.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        scene_labels(scene, path, CLASSES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "lists no classes"),
        (b"# nothing\n", "lists no classes"),
        (b"wall\nwall\n", "lists 'wall' twice"),
        (b"wal\n", "Did you mean wall"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_faults_of_text_are_said(scene: Scene, content: bytes, message: str) -> None:
    (scene.path / "labels.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        scene_labels(scene, None, CLASSES)


def test_no_labels_of_a_scene(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"room has no scene-level labels.*labels\.txt, one per line"):
        scene_labels(replace(scene, cloud=None), None, CLASSES)
    with pytest.raises(DataError, match="Scene labels not found"):
        scene_labels(scene, tmp_path / "missing.txt", CLASSES)
    (tmp_path / "labels").mkdir()
    with pytest.raises(DataError, match=r"has no labels for scene room.*room\.txt"):
        scene_labels(scene, tmp_path / "labels", CLASSES)
