"""Published protocols on a trained field: filters against slow twins, masks of known answers, and what is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.scenes.cameras import Camera
from ov3d.common.scenes.scene import ClassMasks, Frame, LabelImage, PolygonMasks, Scene
from ov3d.common.scenes.truth import masks_of, other_size
from ov3d.nerf.protocols import BOX, MAJORITY, _scored_classes, best_masks, box_mean, majority, query_mask
from tests.nerf.scenes import Listener

CAMERA = Camera(12, 8, 10.0, 10.0, 6.0, 4.0)


def test_the_box_mean_is_a_mean_over_mirrored_pixels() -> None:
    values = np.random.default_rng(0).uniform(size=(40, 33)).astype(np.float32)
    mean = box_mean(values)
    padded = np.pad(values.astype(np.float64), BOX // 2, mode="reflect")
    for row, column in ((0, 0), (39, 32), (20, 7)):
        assert mean[row, column] == pytest.approx(padded[row : row + BOX, column : column + BOX].mean(), abs=1e-6)


def test_the_majority_of_a_window_wins() -> None:
    mask = np.random.default_rng(1).uniform(size=(15, 11)) < 0.5
    found = majority(mask)
    voting = mask[:-1, :-1]
    for row in range(15):
        for column in range(11):
            window = voting[
                max(0, row - MAJORITY) : row + MAJORITY + 1, max(0, column - MAJORITY) : column + MAJORITY + 1
            ]
            assert found[row, column] == (window.sum() > window.size / 2)


def test_a_query_is_where_its_relevancy_is_high() -> None:
    relevancy = np.full((60, 80), 0.2, np.float32)
    relevancy[10:50, 20:60] = 0.9
    mask = query_mask(relevancy, (120, 160))
    truth = np.zeros((120, 160), bool)
    truth[20:100, 40:120] = True
    assert (mask & truth).sum() / (mask | truth).sum() > 0.85
    assert not query_mask(np.full((60, 80), 0.5, np.float32), (60, 80)).any()


def test_each_pixel_takes_its_best_class_or_none() -> None:
    cosines = np.array([[[0.1, 0.3], [0.3, 0.1], [0.0, 0.0]]], np.float32)
    masks = best_masks(cosines, np.array([[True, True, False]]))
    assert masks.astype(int).tolist() == [[[0, 1, 0]], [[1, 0, 0]]]


def _mask(path: Path, size: tuple[int, int]) -> Path:
    image = np.zeros(size[::-1], np.uint8)
    image[:, : size[0] // 2] = 255
    Image.fromarray(image).save(path)
    return path


def _scene(labels: list[ClassMasks | LabelImage | PolygonMasks | None]) -> Scene:
    frames = [Frame(str(idx), Path("x.png"), CAMERA, np.eye(4), labels=one) for idx, one in enumerate(labels)]
    return Scene("desk", Path("desk"), "llff", tuple(frames), classes=("cup", "hand"))


def test_a_class_without_a_mask_is_told(tmp_path: Path) -> None:
    cup = _mask(tmp_path / "cup.png", (12, 8))
    some = _scene([ClassMasks((cup, cup), 12, 8), ClassMasks((cup, None), 12, 8)])
    listener = Listener()
    assert _scored_classes(some, some.frames, (), listener) == ("cup", "hand")
    assert listener.lines == ["No mask in some views, treated as empty: hand."]
    none = _scene([ClassMasks((cup, None), 12, 8)])
    with pytest.raises(DataError, match="Class 'hand' of desk has no mask in any of the 1 annotated views"):
        _scored_classes(none, none.frames, (), listener)
    assert _scored_classes(none, none.frames, ("cup",), listener) == ("cup",)
    with pytest.raises(UsageError, match="no class 'cap'"):
        _scored_classes(none, none.frames, ("cap",), listener)


def test_ids_that_are_nowhere_are_left_out_aloud(tmp_path: Path) -> None:
    ids = np.zeros((8, 12), np.uint8)
    Image.fromarray(ids).save(tmp_path / "ids.png")
    scene = _scene([LabelImage(tmp_path / "ids.png", 2)])
    listener = Listener()
    assert _scored_classes(scene, scene.frames, (), listener) == ("cup",)
    assert listener.lines == ["Not scored, as no view has a pixel of them: hand."]
    with pytest.raises(DataError, match="'hand' of desk has no mask"):
        _scored_classes(scene, scene.frames, ("hand",), listener)


def test_truth_of_another_size_is_found(tmp_path: Path) -> None:
    right, wide = _mask(tmp_path / "a.png", (12, 8)), _mask(tmp_path / "b.png", (24, 16))
    assert other_size(ClassMasks((right, None), 12, 8), CAMERA) is None
    assert other_size(ClassMasks((right, wide), 12, 8), CAMERA) == (wide, (24, 16))
    assert other_size(LabelImage(wide, 2), CAMERA) == (wide, (24, 16))
    objects = '[{"category": "cup", "segmentation": [[0, 0], [11, 0], [11, 15]]}]'
    text = f'{{"info": {{"width": 24, "height": 16}}, "objects": {objects}}}'
    (tmp_path / "c.json").write_text(text)
    drawn = PolygonMasks(tmp_path / "c.json", ("cup", "hand"), CAMERA)
    assert other_size(drawn, CAMERA) == (tmp_path / "c.json", (24, 16))
    assert masks_of(drawn, 2).shape == masks_of(ClassMasks((right, wide), 12, 8), 2).shape == (2, 8, 12)
    assert masks_of(ClassMasks((right, wide), 12, 8), 2)[1, :, :6].all()
