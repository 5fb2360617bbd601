"""Label maps as a teacher: a map gives back its own class, void gives nothing, and what is wrong is said in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.progress import Silent
from ov3d.common.datasets import load_dataset
from ov3d.common.lifting.lift import LiftConfig, lift
from ov3d.common.readers import load_scene
from ov3d.common.scenes.cameras import Camera
from ov3d.common.scenes.distortion import Distortion, straighten_nearest
from ov3d.common.scenes.scene import Frame, Scene
from ov3d.common.teachers import open_teacher
from ov3d.common.teachers.label_names import read_names
from ov3d.common.teachers.labels import LabelTeacher
from ov3d.common.teachers.teacher import Teacher
from ov3d.common.teachers.words import WORDS, word_threshold
from tests.common.small_scenes import box_scene
from tests.common.teachers.fakes import WordEncoder, words, write_maps

__all__ = ["words"]

CPU = torch.device("cpu")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return box_scene(tmp_path / "scene", 4)


@pytest.fixture
def maps(tmp_path: Path, scene: Scene) -> Path:
    return write_maps(tmp_path / "maps", scene)


def _bound(spec: str, scene: Scene) -> LabelTeacher:
    teacher = open_teacher(spec, device=CPU)
    assert isinstance(teacher, LabelTeacher)
    teacher.features_of(scene, extract=True, progress=Silent())
    return teacher


def _centres(frame: Frame) -> np.ndarray:
    return frame.camera.pixel_centres()


def test_every_pixel_has_its_classes_vector_and_void_has_none(scene: Scene, maps: Path, words: WordEncoder) -> None:
    teacher = _bound(f"labels:{maps}", scene)
    text = words.encode_text(["floor", "box"])
    for frame in scene.frames:
        assert frame.labels is not None
        truth = frame.labels.load().ravel()
        features = teacher.source.pixel_features(frame, _centres(frame))
        np.testing.assert_array_equal(teacher.source.known(frame, _centres(frame)), truth >= 0)
        assert (truth < 0).any()
        assert not features[truth < 0].any()
        np.testing.assert_allclose(features[truth >= 0], text[truth[truth >= 0]], atol=1e-6)
        relevancy = teacher.source.relevancy(frame, text[1], 4)
        expected = (features @ text[1]).reshape(frame.camera.height, -1)[::4, ::4]
        np.testing.assert_allclose(relevancy, expected, atol=1e-6)


def test_lifted_points_know_their_class_and_only_from_views_that_do(
    scene: Scene, maps: Path, words: WordEncoder
) -> None:
    teacher = _bound(f"labels:{maps}", scene)
    assert scene.cloud is not None
    assert scene.cloud.labels is not None
    lifted = lift(scene.cloud, scene.frames, teacher.source, LiftConfig(border=2))
    classes = lifted.scores(words.encode_text(["floor", "box"])).argmax(axis=1)
    assert (classes == scene.cloud.labels[lifted.point_row]).mean() > 0.97
    assert np.median(lifted.norms) == pytest.approx(1, abs=1e-5)  # void views would pull the mean down
    first = scene.frames[0]
    Image.new("L", (64, 48), 255).save(maps / f"{first.name}.png")
    without = lift(scene.cloud, scene.frames, _bound(f"labels:{maps}", scene).source, LiftConfig(border=2))
    fewer = lift(scene.cloud, scene.frames[1:], teacher.source, LiftConfig(border=2))
    np.testing.assert_array_equal(without.point_row, fewer.point_row)
    np.testing.assert_array_equal(without.code, fewer.code)


def test_the_key_follows_masks_names_and_text(
    scene: Scene, maps: Path, words: WordEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = scene.frames[0]
    keys = [_bound(f"labels:{maps}", scene).source.key(frame)]
    assert _bound(f"labels:{maps}", scene).source.key(frame) == keys[0]
    (maps / "names.yaml").write_text("3: floor\n7: crate\n")
    keys.append(_bound(f"labels:{maps}", scene).source.key(frame))
    monkeypatch.setattr(words, "card", replace(words.card, text=replace(words.card.text, weights="seed:1")))
    keys.append(_bound(f"labels:{maps}", scene).source.key(frame))
    ids = np.asarray(Image.open(maps / "0.png")).copy()
    ids[0, 0] = 7
    Image.fromarray(ids).save(maps / "0.png")
    keys.append(_bound(f"labels:{maps}", scene).source.key(frame))
    keys.append(_bound(f"labels:{maps},corrupt=15", scene).source.key(frame))
    keys.append(_bound(f"labels:{maps},corrupt=30", scene).source.key(frame))
    keys.append(_bound(f"labels:{maps},corrupt=30,seed=1", scene).source.key(frame))
    assert len(set(keys)) == len(keys)


@pytest.mark.usefixtures("words")
def test_the_card_makes_the_teacher_again_from_any_folder(
    scene: Scene, maps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    card = open_teacher("labels:maps,corrupt=15", device=CPU).card
    assert card.spec == f"labels:{maps}@minilm,corrupt=15,seed=0"
    monkeypatch.chdir("/")
    assert open_teacher(card.spec, device=CPU).card == card
    assert open_teacher("labels:scene", device=CPU).card.spec == "labels:scene@minilm"


@pytest.mark.usefixtures("words")
def test_a_scenes_own_labels(scene: Scene) -> None:
    half = replace(scene, frames=(scene.frames[0], replace(scene.frames[1], labels=None)))
    teacher = open_teacher("labels:scene", device=CPU)
    assert [frame.name for frame in teacher.features_of(half, extract=True, progress=Silent())] == ["0"]
    with pytest.raises(DataError, match="Frame 1 has no label map"):
        teacher.source.key(half.frames[1])
    with pytest.raises(DataError, match="box has no label images with names"):
        teacher.features_of(replace(scene, classes=()), extract=True, progress=Silent())


@pytest.mark.usefixtures("words")
def test_maps_of_a_distorted_photograph_are_straightened_with_it(tmp_path: Path) -> None:
    lens = Distortion("opencv", (0.2, 0.05), Camera(40, 30, 30.0, 30.0, 20.0, 15.0))
    camera = lens.pinhole()
    (tmp_path / "maps").mkdir()
    ids = np.random.default_rng(0).integers(0, 3, (30, 40)).astype(np.uint8)
    Image.fromarray(ids).save(tmp_path / "maps" / "a.png")
    (tmp_path / "maps" / "classes.txt").write_text("wall\nvoid\nchair\n")
    frame = Frame("a", tmp_path / "a.jpg", camera, np.eye(4), distortion=lens)
    Image.new("RGB", (40, 30)).save(frame.image_path)
    teacher = _bound(f"labels:{tmp_path / 'maps'}", Scene("s", tmp_path, "test", (frame,)))
    expected = straighten_nearest(ids, lens, camera, outside=1)
    np.testing.assert_array_equal(teacher.source.known(frame, _centres(frame)).reshape(expected.shape), expected != 1)


def test_names_files(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("wall\nunlabeled\nchair\n")
    names = read_names(tmp_path)
    assert (names.ids, names.names) == ((0, 2), ("wall", "chair"))
    assert names.void == (1, 255, 65535)
    (tmp_path / "names.yaml").write_text("255: road\n4: null\n0:  tree \n")  # it wins over classes.txt
    names = read_names(tmp_path)
    assert (names.ids, names.names, names.void) == ((0, 255), ("tree", "road"), (4, 65535))
    (tmp_path / "names.yaml").write_text("dataset: semantickitti\n")
    names = read_names(tmp_path)
    assert names.ids == tuple(range(1, 20))
    assert 0 in names.void
    assert names.names[4] == "bus"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0: [road, street]\n", "must be text"),
        ("[1, 2", "is not valid YAML"),
        ("- wall\n", "must be a mapping of ids to names"),
        ("wall: 0\n", "ids must be integers from 0 to 65535, got 'wall'"),
        ("-1: wall\n", "ids must be integers from 0 to 65535, got -1"),
        ("70000: wall\n", "must be integers from 0 to 65535"),
        ("0: 7\n", "the name of id 0 must be text, got 7"),
        ("0: ''\n", "must be text"),
        ("0: null\n", "names no classes"),
        ("dataset: scanet\n", "Did you mean scannet"),
    ],
)
def test_names_that_are_none(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "names.yaml").write_text(text)
    with pytest.raises((DataError, UsageError), match=says):
        read_names(tmp_path)


@pytest.mark.usefixtures("words")
def test_what_is_wrong_with_a_folder_is_said(scene: Scene, maps: Path, tmp_path: Path) -> None:
    def error(spec: str = f"labels:{maps}") -> str:
        with pytest.raises(DataError) as caught:
            open_teacher(spec, device=CPU).extract(scene, progress=Silent())
        assert "\n" not in str(caught.value)
        return str(caught.value)

    (tmp_path / "empty").mkdir()
    assert "is empty" in error(f"labels:{tmp_path / 'empty'}")
    assert "No folder" in error(f"labels:{tmp_path / 'gone'}")
    assert "minlm is not a text encoder: Did you mean minilm" in error(f"labels:{maps}@minlm")
    whole = (maps / "1.png").read_bytes()
    (maps / "1.png").write_bytes(whole[: len(whole) // 2])
    assert "1.png cannot be read" in error()
    Image.new("L", (32, 24), 3).save(maps / "1.png")
    assert "1.png is 32x24, the photograph of frame 1 64x48" in error()
    Image.new("RGB", (64, 48)).save(maps / "1.png")
    assert "one channel" in error()
    Image.new("L", (64, 48), 9).save(maps / "1.png")
    assert "1.png holds the id 9, which has no name" in error()
    Image.fromarray(np.full((48, 64), 40_000, np.uint16)).save(maps / "1.png")
    assert "holds the id 40000, which has no name" in error()
    (maps / "1.png").unlink()
    assert f"No label map for 1 of 4 frames of box (first: {maps / '1.color.png'})" in error()
    (maps / "names.yaml").unlink()
    assert "no names for the ids" in error()


@pytest.mark.usefixtures("words")
def test_frames_are_matched_by_name_and_scenes_have_folders_of_their_own(scene: Scene, maps: Path) -> None:
    twins = tuple(
        replace(frame, name=f"{camera}/0", image_path=Path(f"{camera}/0.jpg"))
        for camera, frame in zip(("left", "right"), scene.frames, strict=False)
    )
    with pytest.raises(DataError, match="left/0 and right/0 of box would share the label map"):
        _bound(f"labels:{maps}", replace(scene, frames=twins))
    for cam in ("left", "right"):
        (maps / "box" / cam).mkdir(parents=True)
        Image.new("L", (64, 48), 3 if cam == "left" else 7).save(maps / "box" / cam / "0.png")
    source = _bound(f"labels:{maps}", replace(scene, frames=twins)).source
    middle = np.array([[32.0, 24.0]])
    assert source.pixel_features(twins[0], middle) @ source.pixel_features(twins[1], middle).T < 0.9


def _gate(teacher: Teacher, vectors: np.ndarray, owner: np.ndarray, scene: Scene) -> None:
    """Argmax over a list of text vectors gives every pixel of an uncorrupted map its own class."""
    frame = scene.frames[0]
    teacher.features_of(scene, extract=True, progress=Silent())
    features = teacher.source.pixel_features(frame, _centres(frame)).astype(np.float16).astype(np.float32)
    found = owner[(features @ vectors.T).argmax(axis=1)]
    np.testing.assert_array_equal(found.reshape(24, -1), np.arange(found.max() + 1)[None].repeat(24, 0))


def _one_column_a_class(folder: Path, ids: tuple[int, ...]) -> Scene:
    folder.mkdir()
    camera = Camera(len(ids), 24, 30.0, 30.0, len(ids) / 2, 12.0)
    Image.fromarray(np.array(ids, np.uint8)[None].repeat(24, 0)).save(folder / "a.png")
    Image.new("RGB", (len(ids), 24)).save(folder / "a.jpg")
    return Scene("s", folder, "test", (Frame("a", folder / "a.jpg", camera, np.eye(4)),))


@pytest.mark.offline_weights
@pytest.mark.parametrize("name", ["nuscenes-panoptic", "nuscenes-lidarseg", "semantickitti", "scannet", "s3dis"])
def test_gate_maps_of_the_data_sets_give_back_their_classes(tmp_path: Path, name: str) -> None:
    spec = load_dataset(name)
    classes = [one for one in spec.classes if one.kind != "ignored"]
    scene = _one_column_a_class(tmp_path / "maps", tuple(one.id for one in classes))
    (tmp_path / "maps" / "names.yaml").write_text("".join(f"{one.id}: {one.name}\n" for one in classes))
    teacher = open_teacher(f"labels:{tmp_path / 'maps'}", device=CPU)
    _gate(teacher, teacher.text([one.name for one in classes]), np.arange(len(classes)), scene)
    # By the data set's prompts too, several a class, of which the best counts.
    (tmp_path / "maps" / "names.yaml").write_text(f"dataset: {name}\n")
    teacher = open_teacher(f"labels:{tmp_path / 'maps'}", device=CPU)
    prompts = [spec.prompts(one.name) for one in classes]
    owner = np.repeat(np.arange(len(classes)), [len(several) for several in prompts])
    _gate(teacher, teacher.text([prompt for several in prompts for prompt in several]), owner, scene)


@pytest.mark.offline_weights
@pytest.mark.shared_data
def test_gate_the_shelfs_own_labels(shared_data: Path) -> None:
    scene = load_scene(shared_data / "nerf" / "apc-shelf")
    teacher = _bound("labels:scene", scene)
    text = teacher.text(scene.classes)
    for frame in scene.frames[:3]:
        assert frame.labels is not None
        truth = frame.labels.load().ravel()
        features = teacher.source.pixel_features(frame, _centres(frame)[truth >= 0])
        np.testing.assert_array_equal((features @ text.T).argmax(axis=1), truth[truth >= 0])
    assert teacher.source.has(scene.frames[0])
    assert not teacher.source.has(scene.frames[-1])  # views 10 to 14 have no labels


@pytest.mark.offline_weights
def test_minilm_reads_names_as_people_ask_for_them() -> None:
    teacher = open_teacher("labels:scene", device=CPU)
    vectors = teacher.text(["chair", "a chair", "the chair", "traffic_cone", "a traffic cone", "piano"])
    assert teacher.card.dim == 384
    np.testing.assert_allclose(vectors[1:3], vectors[[0, 0]], atol=1e-6)
    np.testing.assert_allclose(vectors[3], vectors[4], atol=1e-6)
    assert vectors[0] @ vectors[5] < teacher.card.presence_threshold < vectors[0] @ vectors[1]


@pytest.mark.offline_weights
def test_thresholds_lie_above_words_that_mean_different_things(scene: Scene) -> None:
    minilm = open_teacher("labels:scene", device=CPU)
    assert word_threshold(minilm.text(WORDS)) == pytest.approx(minilm.card.presence_threshold, abs=0.005)
    other = open_teacher("labels:scene@offline", device=CPU)
    assert other.card.spec == "labels:scene@offline:lite0"
    assert other.card.presence_threshold == word_threshold(other.text(WORDS))
