"""2D-3D ensemble: the surer feature of each point, the network's where no camera looked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData

from ov3d.common.base.config import load_config
from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.progress import Silent
from ov3d.common.base.runs import Run
from ov3d.common.exporters.ply import write_ply
from ov3d.common.learning.prediction_request import PredictRequest
from ov3d.common.learning.run_lifting import LIFTED_NAME
from ov3d.common.lifting.lift import read_lifted
from ov3d.common.readers.scan import read_scan
from ov3d.common.scenes.scene import LazyScenes, Scene
from ov3d.points.backend import PointsBackend
from ov3d.points.config import PointsConfig
from ov3d.points.ensemble import ensemble_scores, fused_scores
from ov3d.points.network import load_network
from ov3d.points.predict import predict_scan
from tests.colour_encoder import ColourEncoder, colour_encoder
from tests.common.small_scenes import box_scene

__all__ = ["colour_encoder"]

CPU = torch.device("cpu")
SMALL = (
    *("preset=cpu", "lift.border=2", "specialise.steps=4", "specialise.points=300"),
    *("guide.voxel_size=0.1", "guide.stem_dim=4", "guide.down=[4, 4]", "guide.up=[8, 4]", "guide.steps=4"),
)


def test_the_surer_feature_is_taken_whole() -> None:
    fused = np.array([[0.9, 0.1], [0.2, 0.3], [0.5, 0.4], [0.99, 0.0]], np.float32)
    network = np.array([[0.1, 0.8], [0.6, 0.1], [0.1, 0.5], [0.2, 0.3]], np.float32)
    seen = np.array([True, True, True, False])
    expected = np.stack([fused[0], network[1], fused[2], network[3]])
    assert np.array_equal(ensemble_scores(fused, network, seen), expected)


def test_no_prompt_and_no_point() -> None:
    for shape in ((0, 3), (4, 0)):
        empty = np.zeros(shape, np.float32)
        assert ensemble_scores(empty, empty, np.ones(shape[0], bool)).shape == shape


def test_scores_of_different_clouds_are_refused() -> None:
    with pytest.raises(DataError, match="same cloud"):
        ensemble_scores(np.zeros((2, 3), np.float32), np.zeros((3, 3), np.float32), np.ones(2, bool))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """The box; the last points are so far away that no camera sees them."""
    whole = box_scene(tmp_path / "scene", 3)
    assert whole.cloud is not None and whole.cloud.rgb is not None
    xyz = whole.cloud.xyz.copy()
    xyz[-50:] += 30
    return replace(whole, cloud=replace(whole.cloud, xyz=xyz))


@pytest.fixture
def run(scene: Scene, tmp_path: Path, colour_encoder: ColourEncoder) -> Run:
    torch.set_num_threads(1)
    source = LazyScenes((scene.name,), lambda name: scene)
    return PointsBackend().train(source, load_config(PointsConfig, None, SMALL), run=tmp_path / "run", device=CPU)


def test_predict_combines_the_network_with_what_photographs_say(run: Run, scene: Scene, tmp_path: Path) -> None:
    assert scene.cloud is not None
    path = write_ply(tmp_path / f"{scene.name}.ply", scene.cloud.xyz, rgb=scene.cloud.rgb)
    data = predict_scan(run, path, tmp_path / "out.ply", PredictRequest(ensemble=True), device=CPU)
    network = load_network(run.path, CPU)
    lifted = read_lifted(run.indexes[scene.name].with_name(LIFTED_NAME))
    text = ColourEncoder().encode_text(network.vocabulary)
    fused = np.zeros((len(scene.cloud), len(text)), np.float32)
    fused[lifted.point_row] = lifted.scores(text)
    seen = lifted.row_of_point() >= 0
    expected = ensemble_scores(fused, network.embed(scene.cloud.xyz, scene.cloud.rgb) @ text.T, seen)
    vertices = PlyData.read(str(tmp_path / "out.ply"))["vertex"].data
    assert (vertices["label"] == expected.argmax(axis=1)).mean() > 0.999
    assert np.abs(vertices["score"] - expected.max(axis=1)).max() < 1e-5
    assert 0 < data["from_photographs"] == (seen & np.isclose(vertices["score"], fused.max(axis=1))).sum()
    alone = predict_scan(run, path, tmp_path / "alone.ply", device=CPU)
    assert "from_photographs" not in alone
    assert np.array_equal(PlyData.read(str(tmp_path / "alone.ply"))["vertex"]["score"][-50:], vertices["score"][-50:])


def test_another_scene_is_lifted_from_its_own_photographs(run: Run, scene: Scene, tmp_path: Path) -> None:
    assert scene.cloud is not None
    path = write_ply(tmp_path / f"{scene.name}.ply", scene.cloud.xyz, rgb=scene.cloud.rgb)
    scan = read_scan(path)
    text = ColourEncoder().encode_text(("floor", "box"))
    own = fused_scores(run, scan, text, device=CPU, progress=Silent())
    other = fused_scores(run, replace(scan, scene=replace(scene, name="other")), text, device=CPU, progress=Silent())
    assert np.array_equal(own.seen, other.seen) and 0 < own.seen.sum() < len(scan)
    assert np.abs(own.scores - other.scores).max() < 1e-3


def test_without_photographs_one_line_says_what_is_needed(run: Run, scene: Scene, tmp_path: Path) -> None:
    """Neither a cloud of another name nor other points under the name of a scene of the run have any."""
    assert scene.cloud is not None
    request = PredictRequest(ensemble=True)
    lone = write_ply(tmp_path / "lone.ply", scene.cloud.xyz, rgb=scene.cloud.rgb)
    moved = write_ply(tmp_path / f"{scene.name}.ply", scene.cloud.xyz + np.float32(0.25), rgb=scene.cloud.rgb)
    for path in (lone, moved):
        with pytest.raises(UsageError, match=f"{path.name} has none and is not one of the run's scenes.*folder"):
            predict_scan(run, path, tmp_path / "out.ply", request, device=CPU)
        assert not (tmp_path / "out.ply").exists()
