"""Evaluation of a run: the right numbers for known answers, and a clear line where there is nothing to compare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ov3d.common.asking.ask import index_path
from ov3d.common.asking.index import read_index
from ov3d.common.base.config import load_config
from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.runs import Run
from ov3d.common.lifting.lift import read_lifted
from ov3d.common.metrics.run_report import RunReport
from ov3d.common.scenes.scene import LazyScenes, PointCloud, Scene
from ov3d.points.backend import PointsBackend
from ov3d.points.config import PointsConfig
from tests.colour_encoder import ColourEncoder, colour_encoder
from tests.common.small_scenes import CLASSES, box_scene

__all__ = ["colour_encoder"]

CPU = torch.device("cpu")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return box_scene(tmp_path / "scene", 4)


@pytest.fixture
def run(scene: Scene, tmp_path: Path, colour_encoder: ColourEncoder) -> Run:
    config = load_config(PointsConfig, None, ["lift.border=2"])
    source = LazyScenes(("box",), lambda name: scene)
    return PointsBackend().train(source, config, run=tmp_path / "run", device=CPU)


def _evaluate(run: Run, scene: Scene, **options: object) -> RunReport:
    return PointsBackend().evaluate(run, scene, device=CPU, **options)  # type: ignore[arg-type]


def _slow_iou(labels: np.ndarray, truth: np.ndarray, number: int) -> float:
    both = sum(1 for a, b in zip(labels, truth, strict=True) if a == number and b == number)
    either = sum(1 for a, b in zip(labels, truth, strict=True) if a == number or b == number)
    return both / either


def test_points_are_scored_as_a_slow_loop_scores_them(run: Run, scene: Scene) -> None:
    report = _evaluate(run, scene, classes=("box",), threshold=0.7)
    assert scene.cloud is not None
    assert scene.cloud.labels is not None
    index = read_index(index_path(run, "box"))
    score = index.scores(ColourEncoder().encode_text(["box"]))[:, 0]
    labels = np.where(index.seen, np.where(score >= 0.7, 0, 1), -1)
    truth = np.where(scene.cloud.labels == 1, 0, 1)
    table = report.tables[0]
    assert table.mean_iou == pytest.approx(_slow_iou(labels, truth, 0))
    other = _slow_iou(labels, truth, 1)
    assert table.mean_iou_with_other == pytest.approx((table.mean_iou + other) / 2)
    assert table.scores.coverage == pytest.approx(index.seen.mean())
    assert report.share_seen == pytest.approx(index.seen.mean())
    assert table.mean_iou > 0.7


def test_the_teacher_is_scored_on_the_photographs(run: Run, scene: Scene) -> None:
    report = _evaluate(run, scene)
    assert [table.title for table in report.tables] == ["points", "photographs, dense 2D features"]
    assert report.tables[1].classes == CLASSES
    num_labelled = sum(int((frame.labels.load()[::4, ::4] >= 0).sum()) for frame in scene.frames if frame.labels)
    assert report.tables[1].scores.num_points == num_labelled
    assert report.tables[1].mean_iou > 0.6
    unlabelled = replace(scene, frames=tuple(replace(frame, labels=None) for frame in scene.frames))
    assert len(_evaluate(run, unlabelled).tables) == 1


def test_a_high_threshold_answers_other(run: Run, scene: Scene) -> None:
    report = _evaluate(run, scene, classes=("box",), threshold=2.0)
    assert report.tables[0].mean_iou == 0
    assert report.tables[0].mean_iou_with_other > 0.2
    data = report.to_json()
    assert data["threshold"] == 2.0
    assert set(data["tables"][0]["classes"]) == {"box", "other"}


def test_what_cannot_be_compared_is_said(run: Run, scene: Scene) -> None:
    assert scene.cloud is not None
    with pytest.raises(UsageError, match=r"no class 'bax'\. Did you mean box"):
        _evaluate(run, scene, classes=("bax",))
    with pytest.raises(DataError, match="no true classes"):
        _evaluate(run, replace(scene, cloud=PointCloud(scene.cloud.xyz)))
    labels = scene.cloud.labels
    with pytest.raises(DataError, match="not those of the run"):
        _evaluate(run, replace(scene, cloud=PointCloud(scene.cloud.xyz + np.float32(1), labels=labels)))
    backgrounds = replace(scene, classes=("background", "other"))
    with pytest.raises(DataError, match="no point|No point"):
        _evaluate(run, backgrounds)
    with pytest.raises(UsageError, match="no scene 'x'"):
        _evaluate(run, replace(scene, name="x"))


@pytest.fixture
def learnt(scene: Scene, tmp_path: Path, colour_encoder: ColourEncoder) -> Run:
    """A run with a small, hardly trained 3D network: it and the fused features disagree."""
    settings = ["preset=cpu", "lift.border=2", "specialise.epochs=1", "guide.epochs=1", "guide.voxel_size=0.1"]
    small = ["guide.stem_dim=4", "guide.down=[4, 4]", "guide.up=[8, 4]"]
    source = LazyScenes(("box",), lambda name: scene)
    config = load_config(PointsConfig, None, [*settings, *small])
    return PointsBackend().train(source, config, run=tmp_path / "learnt", device=CPU)


def test_an_ensemble_takes_the_surer_feature_of_each_point(learnt: Run, scene: Scene) -> None:
    report = _evaluate(learnt, scene, ensemble=True)
    assert [table.title for table in report.tables] == ["points, 3D network", "points, fused", "points, 2D-3D ensemble"]
    assert len(_evaluate(learnt, scene).tables) == 2
    assert scene.cloud is not None
    assert scene.cloud.labels is not None
    path = index_path(learnt, "box")
    text = ColourEncoder().encode_text(list(CLASSES))
    network, lifted = read_index(path).scores(text), read_lifted(path.with_name("lifted.safetensors"))
    fused = dict(zip(lifted.point_row.tolist(), lifted.scores(text), strict=True))
    labels = [
        int((fused[point] if point in fused and fused[point].max() >= own.max() else own).argmax())
        for point, own in enumerate(network)
    ]
    table = report.tables[-1]
    expected = np.mean([_slow_iou(np.array(labels), scene.cloud.labels, number) for number in range(len(CLASSES))])
    assert table.to_json()["mean_iou"] == pytest.approx(expected)
    taken = [point for point in fused if fused[point].max() >= network[point].max()]
    assert 0 < len(taken) < len(network)
    assert set(table.to_json()["extra"]) == {"mIoU over all classes", "mAcc over all classes"}
    path.with_name("lifted.safetensors").unlink()
    with pytest.raises(DataError, match="needs the lifted features of box"):
        _evaluate(learnt, scene, ensemble=True)


def test_an_ensemble_without_a_network_is_refused(run: Run, scene: Scene) -> None:
    with pytest.raises(UsageError, match="--ensemble needs a 3D network, and the run has none for box"):
        _evaluate(run, scene, ensemble=True)
