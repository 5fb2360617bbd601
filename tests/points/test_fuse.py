"""Stage `fuse`: what is stored is used again, what is damaged is made again, what cannot be is said."""

from __future__ import annotations

import shutil
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
from ov3d.common.features.layout import default_root
from ov3d.common.learning.backend import RunOptions
from ov3d.common.lifting.lift import read_lifted
from ov3d.common.scenes.scene import LazyScenes, PointCloud, Scene
from ov3d.common.scenes.views import read_views
from ov3d.common.teachers import teacher as teacher_module
from ov3d.points.backend import PointsBackend
from ov3d.points.config import PointsConfig
from tests.colour_encoder import ColourEncoder, colour_encoder
from tests.common.small_scenes import box_scene

__all__ = ["colour_encoder"]

CONFIG = load_config(PointsConfig, None, ["lift.border=2"])


class Listener:
    """Remembers the lines that were said."""

    def __init__(self) -> None:
        from ov3d.common.base.progress import Silent

        self.lines: list[str] = []
        self.task = Silent().task

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return box_scene(tmp_path / "scene", 4)


def _train(
    run: Path,
    *scenes: Scene,
    config: PointsConfig = CONFIG,
    progress: Listener | None = None,
    **options: bool,
) -> Run:
    by_name = {scene.name: scene for scene in scenes}
    source = LazyScenes(tuple(by_name), by_name.__getitem__)
    cpu = torch.device("cpu")
    return PointsBackend().train(source, config, run=run, device=cpu, progress=progress, options=RunOptions(**options))


def test_a_run_holds_what_its_manifest_names(scene: Scene, tmp_path: Path, colour_encoder: ColourEncoder) -> None:
    other = replace(box_scene(tmp_path / "other", 3), name="odd/näme ")
    run = _train(tmp_path / "run", scene, other)
    assert list(run.indexes) == ["box", "odd/näme "]
    assert run.manifest["encoder"] == colour_encoder.card.to_json()
    assert run.manifest["stages"] == ["fuse"]
    for one in (scene, other):
        path = index_path(run, one.name)
        index = read_index(path)
        assert index.facts["point_spacing"] == pytest.approx(0.02, abs=1e-3)
        assert index.facts["frames"] == len(one.frames)
        assert index.facts["basis_score_error"] <= 1e-3
        assert index.backend == "points/fuse"
        assert read_views(path.with_name("views.safetensors")).names == tuple(frame.name for frame in one.frames)
        lifted = read_lifted(path.with_name("lifted.safetensors"))
        assert run.manifest["facts"][one.name]["share_seen"] == lifted.share_seen == index.seen.mean()


def test_what_is_stored_is_used_again(
    scene: Scene, tmp_path: Path, colour_encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _train(tmp_path / "run", scene)
    crops = colour_encoder.crops
    assert crops > 300
    lifts = []
    lift = teacher_module.lift
    monkeypatch.setattr(teacher_module, "lift", lambda *args, **options: lifts.append(1) or lift(*args, **options))
    index = index_path(first, "box")
    written = index.read_bytes()
    _train(tmp_path / "run", scene)
    assert (colour_encoder.crops, len(lifts)) == (crops, 0)
    assert index.read_bytes() == written

    _train(tmp_path / "run", scene, resume=False)
    assert len(lifts) == 2  # a sample for the basis, and all
    moved = replace(
        scene, frames=scene.frames[:3]
    )  # other inputs under the same name: the old features must not be used
    _train(tmp_path / "run", moved)
    assert len(lifts) == 4
    assert index.read_bytes() != written


def test_features_of_photographs_may_be_dropped(scene: Scene, tmp_path: Path, colour_encoder: ColourEncoder) -> None:
    other = replace(box_scene(tmp_path / "other", 3), name="other")
    first = _train(tmp_path / "run", scene, other)
    crops = colour_encoder.crops
    shutil.rmtree(default_root())
    again = _train(tmp_path / "run", scene, other, extract=False)
    config = load_config(PointsConfig, None, ["lift.border=2", "seed=1", f"lifted={tmp_path / 'run'}"])
    taken = _train(tmp_path / "taken", scene, other, config=config, extract=False)
    for name in first.indexes:
        for file in ("index.safetensors", "lifted.safetensors"):
            whole = index_path(first, name).with_name(file).read_bytes()
            assert index_path(again, name).with_name(file).read_bytes() == whole
            assert index_path(taken, name).with_name(file).read_bytes() == whole
    assert colour_encoder.crops == crops
    unseen = replace(box_scene(tmp_path / "unseen", 5), name="unseen")
    with pytest.raises(DataError, match="No cached features for 5 of 5"):
        _train(tmp_path / "third", scene, unseen, config=config, extract=False)
    third = _train(tmp_path / "third", scene, unseen, config=config)
    facts = {name: read_lifted(index_path(third, name).with_name("lifted.safetensors")).facts for name in third.indexes}
    assert facts["unseen"]["basis_key"] == facts["box"]["basis_key"] != ""
    assert facts["unseen"]["basis"]["energy_kept"] >= 0.994


def test_a_changed_scene_makes_the_basis_void(scene: Scene, tmp_path: Path, colour_encoder: ColourEncoder) -> None:
    other = replace(box_scene(tmp_path / "other", 3), name="other")
    _train(tmp_path / "run", scene, other)
    changed = replace(other, frames=other.frames[:2])
    _train(tmp_path / "run", scene, changed)
    _train(tmp_path / "fresh", scene, changed)
    files = sorted(path.relative_to(tmp_path / "run") for path in (tmp_path / "run").rglob("*.safetensors"))
    assert len(files) == 7
    for file in files:
        assert (tmp_path / "run" / file).read_bytes() == (tmp_path / "fresh" / file).read_bytes()


def test_a_damaged_file_is_made_again_and_said(scene: Scene, tmp_path: Path, colour_encoder: ColourEncoder) -> None:
    run = _train(tmp_path / "run", scene)
    path = index_path(run, "box").with_name("lifted.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    listener = Listener()
    _train(tmp_path / "run", scene, progress=listener)
    assert path.read_bytes() == whole
    assert any("damaged" in line and "Recomputing" in line for line in listener.lines)


def test_missing_features_are_refused_when_asked(scene: Scene, tmp_path: Path, colour_encoder: ColourEncoder) -> None:
    with pytest.raises(DataError, match="No cached features for 4 of 4 images") as caught:
        _train(tmp_path / "run", scene, extract=False)
    assert "ov3d extract-features" in caught.value.hint
    assert colour_encoder.crops == 0
    _train(tmp_path / "run", scene)
    _train(tmp_path / "again", scene, extract=False)


def test_an_image_that_cannot_be_read_is_left_out(scene: Scene, tmp_path: Path, colour_encoder: ColourEncoder) -> None:
    scene.frames[1].image_path.write_bytes(b"\x89PNG\r\n\x1a\n cut")
    listener = Listener()
    run = _train(tmp_path / "run", scene, progress=listener)
    assert read_index(index_path(run, "box")).facts["frames"] == 3
    assert any("1 is skipped" in line for line in listener.lines)


@pytest.mark.usefixtures("colour_encoder")
def test_scenes_that_cannot_be_fused_say_why(scene: Scene, tmp_path: Path) -> None:
    assert scene.cloud is not None
    with pytest.raises(DataError, match="no posed photographs"):
        _train(tmp_path / "a", replace(scene, frames=()))
    with pytest.raises(DataError, match=r"Only 0\.0% of the points"):
        _train(tmp_path / "b", replace(scene, cloud=PointCloud(scene.cloud.xyz + np.float32(500))))
    with pytest.raises(DataError, match="No scene"):
        _train(tmp_path / "c")
    two = LazyScenes(("box", "box"), lambda name: scene)
    with pytest.raises(DataError, match="Two scenes are named box"):
        PointsBackend().train(two, CONFIG, run=tmp_path / "d", device=torch.device("cpu"))


def test_stages_must_be_a_prefix() -> None:
    assert load_config(PointsConfig, None, ["stages=[fuse]"]).stages == ("fuse",)
    for wrong in ("stages=[]", "stages=[guide]", "stages=[fuse, fuse]"):
        with pytest.raises(UsageError, match="stages"):
            load_config(PointsConfig, None, [wrong])
    with pytest.raises(UsageError, match=r"lift\.bordr.*Did you mean border"):
        load_config(PointsConfig, None, ["lift.bordr=3"])
