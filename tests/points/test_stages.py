"""The learning stages on the small box: what each leaves behind, what is used again, what is said when it cannot be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ov3d.common.asking.ask import ask, index_path
from ov3d.common.asking.index import read_index
from ov3d.common.base.config import load_config
from ov3d.common.base.errors import DataError, Ov3dError, UsageError
from ov3d.common.base.files import read_json
from ov3d.common.base.runs import Run
from ov3d.common.learning.backend import RunOptions
from ov3d.common.learning.checkpoints import Checkpoint
from ov3d.common.learning.trainer import Trainer
from ov3d.common.scenes.scene import IGNORE, LazyScenes, PointCloud, Scene
from ov3d.points.backend import PointsBackend
from ov3d.points.config import PRESETS, STAGES, PointsConfig
from ov3d.points.network import load_network
from ov3d.points.pseudo_labels import PSEUDO_NAME, read_pseudo_labels
from ov3d.points.stages import pseudo_label
from ov3d.points.superpoints import superpoints
from tests.colour_encoder import ColourEncoder, colour_encoder
from tests.common.small_scenes import CLASSES, box_scene

__all__ = ["colour_encoder"]

CPU = torch.device("cpu")
SMALL = (
    "preset=cpu",
    "lift.border=2",
    "specialise.epochs=6",
    "specialise.points=300",
    "specialise.checkpoint_every=2",
    "guide.voxel_size=0.1",
    "guide.stem_dim=4",
    "guide.down=[4, 4]",
    "guide.up=[8, 4]",
    "guide.epochs=6",
    "guide.checkpoint_every=2",
)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return box_scene(tmp_path / "scene", 3)


class Stopped(BaseException):
    """Stands for a killed process: nothing may catch it."""


def _train(run: Path, *scenes: Scene, settings: tuple[str, ...] = (), **options: bool) -> Run:
    config = load_config(PointsConfig, None, [*SMALL, *settings])
    by_name = {scene.name: scene for scene in scenes}
    source = LazyScenes(tuple(by_name), by_name.__getitem__)
    return PointsBackend().train(source, config, run=run, device=CPU, options=RunOptions(**options))


def _weights(run: Path, stage: str) -> dict[str, bytes]:
    checkpoint = Checkpoint(run / stage / "checkpoint.safetensors")
    return {name: array.tobytes() for name, array in checkpoint._tensors.items()}


def test_presets_fill_in_stages() -> None:
    assert PointsConfig().stages == ("fuse",)
    for preset in ("cpu", "gpu", "paper"):
        assert load_config(PointsConfig, None, [f"preset={preset}"]).stages == STAGES
    config = load_config(PointsConfig, None, ["preset=paper", "stages=[fuse, pseudo-label]", "guide.epochs=3"])
    assert config.stages == STAGES[:2]
    assert (config.guide.voxel_size, config.guide.epochs, config.specialise.scale) == (0.02, 3, 1.0)
    assert (config.guide.augment.turn, config.guide.augment.scale) == ("any", (0.9, 1.1))
    assert set(PRESETS) == {"zero-shot", "cpu", "gpu", "paper"}
    with pytest.raises(UsageError, match="prefix of fuse, pseudo-label"):
        load_config(PointsConfig, None, ["stages=[fuse, guide]"])
    with pytest.raises(UsageError, match="needs validation scenes"):
        load_config(PointsConfig, None, ["guide.select=best"])


@pytest.mark.parametrize("preset", ["gpu", "paper"])
@pytest.mark.usefixtures("colour_encoder")
def test_presets_of_large_networks_train(preset: str, scene: Scene, tmp_path: Path) -> None:
    """A step of each with the preset's own network and losses, on few voxels."""
    settings = [f"preset={preset}", "lift.border=2", "specialise.epochs=1", "guide.epochs=1", "guide.voxel_size=0.5"]
    config = load_config(PointsConfig, None, settings)
    source = LazyScenes((scene.name,), {scene.name: scene}.__getitem__)
    run = PointsBackend().train(source, config, run=tmp_path / "run", device=CPU)
    network = load_network(run.path, CPU)
    assert (network.spec.down, network.spec.blocks) == ((32, 64, 128, 256), 2)
    assert np.isfinite(network.embed(np.zeros((1, 3), np.float32), None)).all()


@pytest.mark.usefixtures("colour_encoder")
def test_every_stage_leaves_what_it_made(scene: Scene, tmp_path: Path) -> None:
    run = _train(tmp_path / "run", scene)
    manifest = run.manifest
    assert manifest["stages"] == list(STAGES)
    assert manifest["prompts"] == list(CLASSES)
    assert manifest["specialised"] is True
    assert set(manifest["seconds"]) == set(STAGES)
    assert manifest["facts"]["box"]["present"] == list(CLASSES)
    folder = index_path(run, "box").parent
    index = read_index(index_path(run, "box"))
    assert index.backend == "points/guide"
    assert index.seen.all()
    assert index.vocabulary == CLASSES
    assert index.facts["specialised"] is True
    assert {path.name for path in folder.iterdir()} == {
        *("lifted.safetensors", "index.safetensors", "views.safetensors", "pseudo-labels.safetensors"),
        "guided.safetensors",
    }
    for stage in ("specialise", "guide"):
        lines = [json.loads(line) for line in (run.path / stage / "curve.jsonl").read_text().splitlines()]
        assert lines[-1]["step"] == 6
        assert Image.open(run.path / stage / "curve.png").size == (720, 400)
    metrics = read_json(run.path / "metrics.json", kind="points-metrics", version=1)
    assert list(metrics["stages"]) == sorted(STAGES)
    assert metrics["stages"]["pseudo-label"]["train"]["mean_iou"] > 0.7
    network = load_network(run.path, CPU)
    assert network.vocabulary == CLASSES
    assert network.threshold == index.encoder.presence_threshold
    pseudo = read_pseudo_labels(folder / PSEUDO_NAME)
    assert pseudo.present == CLASSES
    assert (pseudo.labels != IGNORE).all()


@pytest.mark.usefixtures("colour_encoder")
@pytest.mark.parametrize("num_stages", [2, 3])
def test_any_prefix_of_the_stages_can_be_asked(scene: Scene, tmp_path: Path, num_stages: int) -> None:
    stages = STAGES[:num_stages]
    run = _train(tmp_path / "run", scene, settings=(f"stages=[{','.join(stages)}]",))
    index = read_index(index_path(run, "box"))
    assert index.backend == ("points/fuse" if num_stages == 2 else "points/specialise")
    text = ColourEncoder().encode_text(["a floor", "a box", "sea"])
    own = PointsBackend().scores(run, "box", text)
    assert np.abs(own - index.scores(text)).max() < 1e-3
    with pytest.raises(UsageError, match="has no 3D network"):
        load_network(run.path, CPU)


@pytest.mark.usefixtures("colour_encoder")
@pytest.mark.parametrize(("stage", "step"), [("specialise", 3), ("guide", 1), ("guide", 5)])
def test_a_killed_stage_resumes_to_the_same_bits(
    scene: Scene, tmp_path: Path, stage: str, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("guide.checkpoint_every=3", f"seed={step}")
    _train(tmp_path / "whole", scene, settings=settings)
    take_step = Trainer.take_step

    def dying(self: Trainer) -> None:
        if (self.stage.name, self.step) == (stage, step):
            raise Stopped
        take_step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "take_step", dying)
        with pytest.raises(Stopped):
            _train(tmp_path / "killed", scene, settings=settings)
    _train(tmp_path / "killed", scene, settings=settings)
    for name in ("specialise", "guide"):
        assert _weights(tmp_path / "killed", name) == _weights(tmp_path / "whole", name)
        curves = [(tmp_path / run / name / "curve.jsonl").read_bytes() for run in ("killed", "whole")]
        assert curves[0] == curves[1]


@pytest.mark.usefixtures("colour_encoder")
def test_what_is_done_is_used_again(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _train(tmp_path / "run", scene)
    before = index_path(run, "box").read_bytes()

    def never(self: Trainer) -> None:
        raise AssertionError("nothing is to be trained")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "take_step", never)
        again = _train(tmp_path / "run", scene)
    assert index_path(again, "box").read_bytes() == before
    with pytest.raises(AssertionError, match="nothing is to be"), monkeypatch.context() as patch:
        patch.setattr(Trainer, "take_step", never)
        _train(tmp_path / "run", scene, resume=False)


@pytest.mark.usefixtures("colour_encoder")
def test_nan_stops_a_stage_and_keeps_its_checkpoint(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_step = Trainer.take_step

    def poisoned(self: Trainer) -> None:
        if (self.stage.name, self.step) == ("guide", 4):
            with torch.no_grad():
                next(self.stage.state().modules["network"].parameters()).fill_(float("nan"))
        take_step(self)

    monkeypatch.setattr(Trainer, "take_step", poisoned)
    with pytest.raises(
        DataError, match=r"Loss became NaN or infinite at step 4 of stage guide; network\..*too large"
    ) as caught:
        _train(tmp_path / "run", scene)
    assert "guide.rate=" in caught.value.hint
    kept = Checkpoint(tmp_path / "run" / "guide" / "checkpoint.safetensors")
    assert kept.metadata["step"] == 4
    assert all(np.isfinite(array).all() for array in kept._tensors.values())


@pytest.mark.usefixtures("colour_encoder")
def test_validation_scenes_are_kept_out_and_select_the_best(scene: Scene, tmp_path: Path) -> None:
    other = replace(box_scene(tmp_path / "other", 3), name="other")
    settings = ("validation=[other]", "guide.select=best", "guide.validate_every=2")
    run = _train(tmp_path / "run", scene, other, settings=settings)
    folders = {name: index_path(run, name).parent for name in ("box", "other")}
    assert (folders["box"] / PSEUDO_NAME).is_file()
    assert not (folders["other"] / PSEUDO_NAME).is_file()
    assert read_index(index_path(run, "other")).backend == "points/guide"
    metrics = read_json(run.path / "metrics.json", kind="points-metrics", version=1)["stages"]
    assert set(metrics["guide"]) == {"train", "validation"}
    lines = [json.loads(line) for line in (run.path / "guide" / "curve.jsonl").read_text().splitlines()]
    looked = {line["step"]: line["validation"] for line in lines if "validation" in line}
    assert list(looked) == [2, 4, 6]
    chosen = Checkpoint(run.path / "guide" / "checkpoint.safetensors").metadata["chosen_step"]
    assert looked[chosen] == max(looked.values())
    assert metrics["guide"]["validation"]["mean_iou_present"] == pytest.approx(max(looked.values()), abs=2e-3)


@pytest.mark.usefixtures("colour_encoder")
def test_a_prompt_outside_the_vocabulary_is_said_to_be_weakly_supervised(scene: Scene, tmp_path: Path) -> None:
    run = _train(tmp_path / "run", scene)
    index = read_index(index_path(run, "box"))
    encoder = ColourEncoder()
    inside = ask(index, "box", encoder.encode_text(["box"])[0])
    outside = ask(index, "the sea", encoder.encode_text(["sea"])[0])
    assert not any("weakly" in note for note in inside.notes)
    assert any("outside the training vocabulary: weakly supervised" in note for note in outside.notes)


@pytest.mark.usefixtures("colour_encoder")
def test_what_cannot_be_learnt_is_one_line(scene: Scene, tmp_path: Path) -> None:
    assert scene.cloud is not None
    bare = replace(scene, cloud=replace(scene.cloud, labels=None, instances=None))
    unlabelled = replace(bare, frames=tuple(replace(frame, labels=None) for frame in scene.frames))
    empty = PointCloud(np.zeros((0, 3), np.float32))
    (tmp_path / "labels.yaml").write_text("box: [floor, piano]\n")
    faulty: list[tuple[Scene, tuple[str, ...], str]] = [
        (unlabelled, (), "box has no scene-level labels"),
        (replace(unlabelled, classes=()), (), "has no class names to learn"),
        (scene, (f"labels={tmp_path / 'labels.yaml'}",), "'piano' is not in the vocabulary"),
        (replace(scene, cloud=empty), (), "has no points"),
        (scene, ("validation=[box]",), "none are left to train on"),
        (scene, ("validation=[bocks]",), "Validation scene 'bocks' does not exist"),
        (scene, ("classes=[piano]",), "no true class of the vocabulary"),
    ]
    for number, (one, settings, says) in enumerate(faulty):
        with pytest.raises(Ov3dError, match=says) as caught:
            _train(tmp_path / str(number), one, settings=settings)
        assert "\n" not in caught.value.message
        assert caught.value.hint


@pytest.mark.usefixtures("colour_encoder")
def test_superpoints_are_found_once_and_a_damaged_file_is_made_again(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(pseudo_label, "superpoints", lambda xyz, rgb: asked.append(len(xyz)) or superpoints(xyz, rgb))
    settings = ("pseudo.superpoints=true", "stages=[fuse, pseudo-label]")
    run = _train(tmp_path / "run", scene, settings=settings)
    (pooled,) = run.path.glob("scenes/*/pooled.safetensors")
    content = pooled.read_bytes()
    _train(run.path, scene, settings=settings)
    assert len(asked) == 1
    pooled.write_bytes(content[:-9])
    _train(run.path, scene, settings=settings)
    assert len(asked) == 2 and pooled.read_bytes() == content


@pytest.mark.usefixtures("colour_encoder")
def test_evaluation_is_over_all_classes(scene: Scene, tmp_path: Path) -> None:
    wider = replace(scene, classes=(*CLASSES, "sea"))
    run = _train(tmp_path / "run", wider)
    report = PointsBackend().evaluate(run, wider, device=CPU).to_json()
    assert [table["title"] for table in report["tables"]] == ["points, 3D network", "points, fused"]
    for table in report["tables"]:
        assert set(table["extra"]) == {"mIoU over all classes", "mAcc over all classes"}
        assert table["extra"]["mIoU over all classes"] <= table["mean_iou"]
