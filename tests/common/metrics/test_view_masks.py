"""Masks in views: the protocols of 3D-OVS and LangSplat, their layouts, and every fault by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.datasets import load_dataset
from ov3d.common.metrics.label_files import FaultyFilesError
from ov3d.common.metrics.view_folders import evaluate_views
from ov3d.common.metrics.views import ViewIoU, mask_of_relevancy

CLASSES = ("banana", "camera", "white sheet")
SIZE = (48, 80)


def save(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((mask * 255).astype(np.uint8)).save(path)


def labels_of(view: int) -> np.ndarray:
    """Vertical stripes of three classes; the camera is not in view 1."""
    labels = np.zeros(SIZE, np.uint8)
    labels[:, 16:40] = 1 if view == 0 else 2
    labels[:, 40:] = 2
    return labels


def scene_of_3d_ovs(root: Path) -> tuple[Path, Path]:
    folder = root / "bed/segmentations"
    folder.mkdir(parents=True)
    (folder / "classes.txt").write_text("camera\n banana \nwhite sheet\n\n")
    for view, name in enumerate(("02", "11")):
        for idx, one in enumerate(CLASSES):
            save(folder / name / f"{one}.png", labels_of(view) == idx)
    found = root / "found"
    found.mkdir()
    for view, name in enumerate(("02", "11")):
        Image.fromarray(labels_of(view)).save(found / f"{name}.png")
    return root / "bed", found


# ------------------------------------------------------------------------------------------------------------ the metric


def test_absent_from_both_is_zero_and_the_mean_is_flat() -> None:
    truth, found = np.zeros((2, 4, 4), bool), np.zeros((2, 4, 4), bool)
    truth[0, :2] = found[0, :1] = True
    metric = ViewIoU()
    metric.update("a", ["x", "y"], found, truth)
    metric.update("b", ["x"], truth[:1], truth[:1])
    scores = metric.compute()
    assert scores.pairs == {("a", "x"): 0.5, ("a", "y"): 0.0, ("b", "x"): 1.0}
    assert scores.mean_iou == 0.5
    assert scores.by_class == {"x": 0.75, "y": 0.0}


def test_a_pixel_is_right_only_as_a_whole_row() -> None:
    """Two masks claim pixel 1: right for the first class, wrong for the second, so wrong."""
    truth = np.array([[[1, 1, 0, 0]], [[0, 0, 1, 0]]], bool)
    found = np.array([[[1, 1, 0, 0]], [[0, 1, 1, 0]]], bool)
    metric = ViewIoU()
    metric.update("a", ["x", "y"], found, truth)
    assert metric.compute().accuracy == 3 / 4


def test_merging_in_any_order() -> None:
    rng = np.random.default_rng(0)
    views = {str(idx): rng.random((2, 3, 5, 5)) < 0.5 for idx in range(5)}
    forward, parts = ViewIoU(), [ViewIoU(), ViewIoU()]
    for idx, (name, (found, truth)) in enumerate(views.items()):
        forward.update(name, CLASSES, found, truth)
        parts[idx % 2].update(name, CLASSES, found, truth)
    parts[1].merge(parts[0])
    assert parts[1].compute().mean_iou == forward.compute().mean_iou
    assert parts[1].compute().pairs == forward.compute().pairs
    with pytest.raises(UsageError, match="counted twice"):
        parts[1].merge(parts[0])
    with pytest.raises(UsageError, match="already been counted"):
        forward.update("0", CLASSES, *views["0"])
    with pytest.raises(DataError, match="One mask per class"):
        forward.update("9", ["x"], *views["0"])


def test_relevancy_is_stretched_and_cut_as_langsplat_does() -> None:
    """Threshold 0.4 of a relevancy on [-1, 1] is 0.7 of the span; the level with the highest peak answers."""
    low = np.linspace(0.0, 0.5, 11)[None]
    high = np.linspace(0.2, 0.7, 11)[::-1][None]
    mask = mask_of_relevancy(np.stack([low, high]))
    assert mask[0].tolist() == [True] * 3 + [False] * 8
    assert not mask_of_relevancy(np.full((3, 3), 0.9)).any()
    percent = np.arange(101)[None] / 100  # 0.4 after stretching is 0.7 before: 0.71 is the first above
    assert mask_of_relevancy(percent)[0].tolist() == [False] * 71 + [True] * 30
    with pytest.raises(DataError, match="must be"):
        mask_of_relevancy(np.full((4, 4), np.nan))


# --------------------------------------------------------------------------------------------------------------- 3D-OVS


def test_3d_ovs_scores_an_absent_class_as_zero(tmp_path: Path) -> None:
    truth, found = scene_of_3d_ovs(tmp_path)
    report = evaluate_views(load_dataset("3d-ovs"), truth, found)
    assert {row.name: row.scores["IoU"] for row in report.classes} == {"banana": 1.0, "camera": 0.5, "white sheet": 1.0}
    assert report.means == {"mIoU": pytest.approx(5 / 6), "pixel Acc": 1.0}
    assert report.protocol == "3d-ovs"


def test_3d_ovs_is_scored_at_an_eighth(tmp_path: Path) -> None:
    """One wrong column of pixels vanishes at an eighth, by nearest neighbour, unless it is the one that is kept."""
    truth, found = scene_of_3d_ovs(tmp_path)
    labels = labels_of(0)
    labels[:, 17] = 0
    Image.fromarray(labels).save(found / "02.png")
    assert evaluate_views(load_dataset("3d-ovs"), truth, found).means["pixel Acc"] == 1.0
    labels[:, 20] = 0
    Image.fromarray(labels).save(found / "02.png")
    assert evaluate_views(load_dataset("3d-ovs"), truth, found).means["pixel Acc"] == pytest.approx(1 - 1 / 20)
    np.save(found / "02.npy", labels[4::8, 4::8])
    (found / "02.png").unlink()
    assert evaluate_views(load_dataset("3d-ovs"), truth, found).means["pixel Acc"] == pytest.approx(1 - 1 / 20)


def test_langsplat_on_3d_ovs_asks_only_for_what_is_there(tmp_path: Path) -> None:
    truth, _ = scene_of_3d_ovs(tmp_path)
    masks = tmp_path / "masks"
    for view, name in enumerate(("02", "11")):
        for idx, one in enumerate(CLASSES):
            save(masks / name / f"{one}.png", labels_of(view) == idx)
    report = evaluate_views(load_dataset("3d-ovs"), truth, masks, protocol="langsplat")
    assert report.means == {"mIoU": 1.0}
    assert report.facts["masks"] == 5


def test_several_scenes_and_a_list(tmp_path: Path) -> None:
    truth, found = scene_of_3d_ovs(tmp_path / "scenes")
    (tmp_path / "all").mkdir()
    found.rename(tmp_path / "all/bed")
    report = evaluate_views(load_dataset("3d-ovs"), truth.parent, tmp_path / "all", wanted=["bed/02"])
    assert (report.num_scans, report.groups) == (1, {"bed": {"IoU": 1.0}})


def test_faults_of_masks_are_all_listed(tmp_path: Path) -> None:
    truth, found = scene_of_3d_ovs(tmp_path)
    Image.fromarray(labels_of(0)[:40]).save(found / "02.png")
    (found / "11.png").unlink()
    save(found / "11/banana.png", labels_of(1) == 0)
    save(found / "11/bananna.png", labels_of(1) == 0)
    save(found / "12.png", labels_of(1) == 0)
    with pytest.raises(FaultyFilesError) as caught:
        evaluate_views(load_dataset("3d-ovs"), truth, found)
    faults = [f"{Path(fault.path).name}: {fault.why}" for fault in caught.value.faults]
    assert faults == [
        "12.png: it has no truth",
        "02.png: it is 40x80 (h x w), the truth 48x80 or 6x10",
        "bananna.png: it is not a class of the view",
        "11: it has no mask of 'camera'",
        "11: it has no mask of 'white sheet'",
    ]
    labels = labels_of(0)
    labels[3, 4] = 3
    Image.fromarray(labels).save(found / "02.png")
    with pytest.raises(FaultyFilesError, match="it holds 3, which is not a class from 0 to 2"):
        evaluate_views(load_dataset("3d-ovs"), truth, found, wanted=["bed/02"])
    (found / "02.png").write_bytes(b"not an image")
    with pytest.raises(FaultyFilesError, match="cannot be read"):
        evaluate_views(load_dataset("3d-ovs"), truth, found, wanted=["bed/02"])
    (found / "02.png").unlink()
    with pytest.raises(FaultyFilesError, match="its prediction is missing"):
        evaluate_views(load_dataset("3d-ovs"), truth, found, wanted=["bed/02"])


def test_folders_without_views(tmp_path: Path) -> None:
    truth, found = scene_of_3d_ovs(tmp_path)
    for name in ("3d-ovs", "lerf-ovs"):
        with pytest.raises(DataError, match="No annotated view"):
            evaluate_views(load_dataset(name), found, found)
        with pytest.raises(DataError, match="folder of predictions .* does not exist"):
            evaluate_views(load_dataset(name), truth, tmp_path / "nowhere")
    with pytest.raises(UsageError, match="no protocol '3d-ovs'.* It has: langsplat"):
        evaluate_views(load_dataset("lerf-ovs"), truth, found, protocol="3d-ovs")


# ------------------------------------------------------------------------------------------------------------- LERF-OVS


def lerf_scene(root: Path) -> tuple[Path, Path]:
    folder = root / "label/teatime"
    folder.mkdir(parents=True)
    box = [[10, 5], [29, 5], [29, 24], [10, 24]]
    other = [[50, 30], [59, 30], [59, 39], [50, 39]]
    objects = [
        {"category": "bear", "bbox": [10, 5, 29, 24], "segmentation": box},
        {"category": "bear", "bbox": [50, 30, 59, 39], "segmentation": [other]},
        {"category": "tea in a glass", "bbox": [0, 0, 1, 1], "segmentation": [[60, 0], [79, 0], [79, 9], [60, 9]]},
    ]
    info = {"name": "frame_00002.jpg", "width": SIZE[1], "height": SIZE[0]}
    (folder / "frame_00002.json").write_text(json.dumps({"info": info, "objects": objects}))
    found = root / "found"
    mask = np.zeros(SIZE, bool)
    mask[5:25, 10:30] = True
    save(found / "teatime/frame_00002/bear.png", mask)
    glass = np.zeros(SIZE, np.float32)
    glass[:10, 60:70] = 1.0
    np.save(found / "teatime/frame_00002/tea in a glass.npy", glass)
    return root, found


def test_lerf_ovs_unites_objects_of_a_category(tmp_path: Path) -> None:
    truth, found = lerf_scene(tmp_path)
    report = evaluate_views(load_dataset("lerf-ovs"), truth, found)
    rows = {row.name: row.scores["IoU"] for row in report.classes}
    assert rows == {"bear": pytest.approx(400 / 500), "tea in a glass": pytest.approx(0.5)}
    assert report.means == {"mIoU": pytest.approx(0.65)}
    assert report.groups == {"teatime": {"IoU": pytest.approx(0.65)}}


def test_a_broken_annotation_is_named(tmp_path: Path) -> None:
    truth, found = lerf_scene(tmp_path)
    (truth / "label/teatime/frame_00003.json").write_text("{}")
    with pytest.raises(FaultyFilesError, match=r"cannot be scored: it is not an annotation with info \(width"):
        evaluate_views(load_dataset("lerf-ovs"), truth, found)
