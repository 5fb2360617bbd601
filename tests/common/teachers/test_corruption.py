"""A stated corruption: as much as it says, in both halves, of which averaging cures the one and not the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ov3d.common.base.errors import DataError
from ov3d.common.base.progress import Silent
from ov3d.common.language.specs import LEVELS
from ov3d.common.lifting.lift import LiftConfig, LiftedFeatures, lift
from ov3d.common.scenes.cameras import Camera
from ov3d.common.scenes.scene import Frame, PointCloud, Scene
from ov3d.common.teachers import open_teacher
from ov3d.common.teachers.corruption import BLOCK, TILE, UNTOUCHED, Corruption, draw_corruption
from tests.common.small_scenes import box_scene
from tests.common.teachers.fakes import WordEncoder, words

__all__ = ["words"]

CPU = torch.device("cpu")
LARGE = Camera(320, 240, 300.0, 300.0, 160.0, 120.0)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return box_scene(tmp_path_factory.mktemp("scene"), 9, camera=LARGE)


def _truth(frame: Frame) -> np.ndarray:
    assert frame.labels is not None
    return frame.labels.load()


def _quarters(frame: Frame) -> np.ndarray:
    """Four classes in place of two, so that wrong ones differ."""
    truth = _truth(frame)
    columns = np.arange(truth.shape[1]) * 2 // truth.shape[1]
    return np.where(truth < 0, -1, truth * 2 + columns).astype(np.int32)


def _draw(scene: Scene, level: int, seed: int = 0) -> Corruption:
    assert scene.cloud is not None
    return draw_corruption(scene.cloud, scene.frames, _quarters, 5, level=level, seed=seed)


@pytest.mark.parametrize("level", LEVELS)
def test_both_halves_are_as_large_as_stated_and_counted_right(scene: Scene, level: int) -> None:
    drawn = _draw(scene, level)
    changed = labelled = 0
    for frame in scene.frames:
        before, after = _quarters(frame), drawn.apply(frame.name, _quarters(frame))
        np.testing.assert_array_equal(after < 0, before < 0)  # void stays void
        assert set(np.unique(after)) <= {-1, 0, 1, 2, 3}  # wrong ones are classes of the scene: nobody has class 4
        changed += int((before != after).sum())
        labelled += int((before >= 0).sum())
    assert drawn.independent + drawn.surface == pytest.approx(changed / labelled)
    assert drawn.independent == pytest.approx(level / 200, abs=0.02)
    assert drawn.surface == pytest.approx(level / 200, abs=0.01)


def test_the_seed_decides(scene: Scene) -> None:
    first, again, other = _draw(scene, 30), _draw(scene, 30), _draw(scene, 30, seed=1)
    names = [frame.name for frame in scene.frames]
    assert [first.key(name) for name in names] == [again.key(name) for name in names]
    assert [first.key(name) for name in names] != [other.key(name) for name in names]
    assert first.to_json() == {"level": 30, "seed": 0, "independent": first.independent, "surface": first.surface}


def test_patches_are_wrong_in_a_third_of_their_views_at_least(scene: Scene) -> None:
    patches = _draw(scene, 45).patches
    assert len(patches) > 5
    assert (patches[:, 0] >= 2).all()
    assert (3 * patches[:, 1] >= patches[:, 0]).all()
    assert (2 * patches[:, 1] > patches[:, 0]).all()  # and in most of them, so that the mean is wrong


def test_blocks_of_single_views_are_32_pixels_wide(scene: Scene) -> None:
    alone = replace(scene, frames=scene.frames[:1])  # one view sees no patch twice: nothing is bound
    drawn = _draw(alone, 45)
    assert drawn.surface == 0
    assert not len(drawn.patches)
    tiles = drawn.tiles[alone.frames[0].name]
    side = BLOCK // TILE
    blocks = {
        tuple(np.unique(tiles[r : r + side, c : c + side])) for r in range(0, 30, side) for c in range(0, 40, side)
    }
    assert all(len(block) == 1 for block in blocks)
    assert (UNTOUCHED,) in blocks
    assert len(blocks) > 2


def _lifted(scene: Scene, drawn: Corruption, words: WordEncoder) -> tuple[LiftedFeatures, np.ndarray]:
    """Features of the four classes fused onto the points, and the class that each answers to."""
    text = words.encode_text(["north", "south", "east", "west"])

    class Source:
        def key(self, frame: Frame) -> str:
            return drawn.key(frame.name)

        def pixel_features(self, frame: Frame, uv: np.ndarray) -> np.ndarray:
            classes = drawn.apply(frame.name, _truth(frame))
            column, row = uv.astype(int).T
            return np.concatenate([text, np.zeros_like(text[:1])])[classes[row, column]]

    assert scene.cloud is not None
    lifted = lift(scene.cloud, scene.frames, Source(), LiftConfig(border=2))
    return lifted, lifted.scores(text).argmax(axis=1)


def test_averaging_cures_one_half_and_not_the_other(scene: Scene, words: WordEncoder) -> None:
    assert scene.cloud is not None
    assert scene.cloud.labels is not None
    drawn = draw_corruption(scene.cloud, scene.frames, _truth, 2, level=30, seed=0)
    clean = replace(drawn, tiles={name: np.full_like(tiles, UNTOUCHED) for name, tiles in drawn.tiles.items()})
    wrong = {}
    for name, one in (("clean", clean), ("both", drawn)):
        lifted, classes = _lifted(scene, one, words)
        enough = lifted.num_views >= 3
        wrong[name] = float((classes != scene.cloud.labels[lifted.point_row])[enough].mean())
    assert wrong["clean"] < 0.03
    assert 0.6 * drawn.surface < wrong["both"] < drawn.surface + 0.12  # what is bound stays, what is not is outvoted


def test_a_scene_of_one_class_cannot_be_wrong(scene: Scene) -> None:
    assert scene.cloud is not None
    with pytest.raises(DataError, match="fewer than two classes"):
        draw_corruption(scene.cloud, scene.frames, lambda frame: np.zeros((240, 320), np.int32), 3, level=15, seed=0)


@pytest.mark.usefixtures("words")
def test_a_cloud_that_nobody_sees_binds_nothing(scene: Scene) -> None:
    far = replace(scene, cloud=PointCloud(np.full((5, 3), 900, np.float32)))
    drawn = _draw(far, 30)
    assert drawn.surface == 0
    assert drawn.independent == pytest.approx(0.15, abs=0.02)


@pytest.mark.usefixtures("words")
def test_the_teacher_says_its_corruption(scene: Scene, tmp_path: Path) -> None:
    class Listener(Silent):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def say(self, line: str) -> None:
            self.lines.append(line)

    listener = Listener()
    teacher = open_teacher("labels:scene,corrupt=30,seed=2", device=CPU)
    teacher.features_of(scene, extract=True, progress=listener)
    stated = teacher.facts(scene)["corruption"]
    assert (stated["level"], stated["seed"]) == (30, 2)
    assert teacher.describe()["corruption"] == {"level": 30, "seed": 2, "scenes": {"box": stated}}
    assert len(listener.lines) == 1
    assert "corrupted by 30 % (seed 2): 1" in listener.lines[0]
    assert "bound to surfaces" in listener.lines[0]
    plain = open_teacher("labels:scene", device=CPU)
    plain.features_of(scene, extract=True, progress=listener)
    assert plain.facts(scene) == {}
    frame = scene.frames[0]
    assert teacher.source.key(frame) != plain.source.key(frame)
    uv = frame.camera.pixel_centres()
    differs = (teacher.source.pixel_features(frame, uv) != plain.source.pixel_features(frame, uv)).any(axis=1)
    assert 0.1 < differs.mean() < 0.5


@pytest.mark.offline_weights
def test_a_furnished_room_fused_from_its_own_labels(tmp_path: Path) -> None:
    """Near the truth when uncorrupted; far below it at 30 %."""
    from ov3d.common.base.config import load_config
    from ov3d.common.scenes.scene import LazyScenes
    from ov3d.common.worlds.gallery import GalleryConfig, write_gallery
    from ov3d.points.backend import PointsBackend
    from ov3d.points.config import PointsConfig

    config = GalleryConfig(seed=1, num_views=6, width=240, height=180, photographs=("cat", "coffee"), furniture=3)
    room = write_gallery(tmp_path / "room", config)
    assert room.cloud is not None
    assert room.cloud.labels is not None
    cloud = PointCloud(room.cloud.xyz[::12], labels=room.cloud.labels[::12])
    room = replace(room, cloud=cloud)
    scores = {}
    for level in (0, 30):
        settings = load_config(PointsConfig, None, [f"encoder=labels:scene,corrupt={level}"])
        backend, source = PointsBackend(), LazyScenes(("room",), lambda name: room)
        run = backend.train(source, settings, run=tmp_path / str(level), device=CPU)
        report = backend.evaluate(run, room, device=CPU)
        scores[level] = [table.mean_iou for table in report.tables]
        assert f"corrupted by {level} %" in report.notes[0]
    assert scores[0][0] > 0.9
    assert scores[0][1] == 1.0
    assert 0.2 < scores[30][0] < 0.75
    assert 0.2 < scores[30][1] < 0.65
