"""What every run keeps, whichever backend makes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.files import read_json
from ov3d.common.base.runs import Run
from ov3d.common.learning.backend import Backend, RunOptions
from ov3d.common.learning.run import SOURCE_NAME, Learnt, begin_run, config_of, finish_run, train_run
from ov3d.common.learning.run_config import RunConfig
from ov3d.common.scenes.scene import LazyScenes
from tests.cli.capture import write_capture
from tests.common.small_scenes import box_scene
from tests.nerf.scenes import Listener

CPU = torch.device("cpu")


class _Config(RunConfig):
    STAGES: ClassVar[tuple[str, ...]] = ("rest",)

    @property
    def needs_teacher(self) -> bool:
        return False


class _Idle(Backend):
    """Learns nothing."""

    name = "idle"
    stages = _Config.STAGES
    config_type = _Config
    protocols = ("none",)

    def train(self, source: Any, config: Any, **options: Any) -> Run:
        """Begin and end."""
        begun = begin_run(self.name, source, config, **options)
        learnt = Learnt(facts={scene: {"known": True} for scene in source.ids}, prompts=("a cat",), more={"own": 1})
        with learnt.timed("rest"):
            learnt.indexes = {source.ids[0]: begun.folders[0] / "index.safetensors"}
        return finish_run(begun, learnt)


@pytest.mark.parametrize("threads", [[1], [1, 2]])
def test_a_run_says_with_how_many_threads_it_was_trained(threads: list[int], tmp_path: Path) -> None:
    scene = write_capture(tmp_path / "desk")
    listener, run, before = Listener(), None, torch.get_num_threads()
    try:
        for number in (*threads, threads[-1]):
            torch.set_num_threads(number)
            trained = train_run(_Idle(), scene, _Config(), run=run, outputs=tmp_path, device="cpu", progress=listener)
            run = trained.path
    finally:
        torch.set_num_threads(before)
    assert trained.manifest["threads"] == threads
    assert trained.manifest["device"] == "cpu"
    said = [line for line in listener.lines if "threads" in line]
    assert len(said) == len(threads) - 1
    assert all("with 1 threads on cpu so far, and continues with 2 on cpu" in line for line in said)


def test_another_device_is_reported_once(tmp_path: Path) -> None:
    source = LazyScenes(("one",), lambda name: box_scene(tmp_path / name, 2))
    listener, how = Listener(), {"run": tmp_path / "run", "options": RunOptions()}
    for device in ("cpu", "meta", "meta"):
        begin_run("idle", source, _Config(), device=torch.device(device), progress=listener, **how)
    said = [line for line in listener.lines if "continues with" in line]
    assert len(said) == 1
    assert "--device cpu avoid that" in said[0]


def test_other_settings_change_nothing_on_the_disk(tmp_path: Path) -> None:
    source = LazyScenes(("one",), lambda name: box_scene(tmp_path / name, 2))
    begin_run("idle", source, _Config(), run=tmp_path / "run", device=CPU, options=RunOptions(scale=2.0))
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    with pytest.raises(UsageError, match="other settings"):
        begin_run("idle", source, _Config(seed=5), run=tmp_path / "run", device=CPU)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()} == before


def test_a_run_is_not_resumed_on_other_scenes(tmp_path: Path) -> None:
    def source(*names: str) -> LazyScenes:
        return LazyScenes(names, lambda name: box_scene(tmp_path / name, 2))

    begin_run("idle", source("one", "two"), _Config(), run=tmp_path / "run", device=CPU)
    begin_run("idle", source("one", "two"), _Config(), run=tmp_path / "run", device=CPU)
    with pytest.raises(UsageError, match="started on 2 scenes, not on 1"):
        begin_run("idle", source("one"), _Config(), run=tmp_path / "run", device=CPU)
    with pytest.raises(UsageError, match="started on 2 scenes, not on others"):
        begin_run("idle", source("one", "three"), _Config(), run=tmp_path / "run", device=CPU)


def test_a_manifest_holds_what_was_learnt_and_how(tmp_path: Path) -> None:
    scenes = {name: box_scene(tmp_path / name, 2) for name in ("one", "two")}
    source = LazyScenes(tuple(scenes), scenes.__getitem__)
    options = RunOptions(layout="scannet", scale=0.5)
    run = _Idle().train(source, _Config(seed=3), run=tmp_path / "run", device=CPU, options=options)
    manifest = run.manifest
    assert (manifest["scenes"], manifest["backend"], manifest["stages"]) == (["one", "two"], "idle", ["rest"])
    assert (manifest["seed"], manifest["prompts"], manifest["own"]) == (3, ["a cat"], 1)
    assert manifest["encoder"] is manifest["teacher"] is None
    assert set(manifest["versions"]) == {"ov3d", "torch", "numpy"}
    assert manifest["indexes"] == {"one": "scenes/0000-one/index.safetensors"}
    assert manifest["seconds"]["rest"] >= 0
    how = {name: manifest[name] for name in ("layout", "scale", "device", "threads")}
    source_facts = read_json(run.path / SOURCE_NAME, kind="run-source", version=1)
    assert source_facts.pop("scenes")["count"] == 2
    assert how == source_facts
    assert (how["layout"], how["scale"], how["device"]) == ("scannet", 0.5, "cpu")
    assert config_of(run, _Config) == _Config(seed=3)


def test_a_run_is_resumed_as_it_was_started(tmp_path: Path) -> None:
    scene = write_capture(tmp_path / "desk")
    first = train_run(_Idle(), scene, _Config(), outputs=tmp_path, options=RunOptions(scale=2.0), device="cpu")
    again = train_run(_Idle(), scene, _Config(), run=first.path, device="cpu")
    assert again.manifest["scale"] == 2.0
    with pytest.raises(UsageError, match=r"was started with --scale 2\.0, not with 3\.0"):
        train_run(_Idle(), scene, _Config(), run=first.path, options=RunOptions(scale=3.0))
    with pytest.raises(UsageError, match=r"was started without --layout, not with scannet"):
        train_run(_Idle(), scene, _Config(), run=first.path, options=RunOptions(layout="scannet"))
    with pytest.raises(UsageError, match=r"other settings \(seed\)"):
        train_run(_Idle(), scene, _Config(seed=1), run=first.path)


def test_there_must_be_scenes_of_different_names(tmp_path: Path) -> None:
    scene = box_scene(tmp_path / "scene", 2)
    for names, message in (((), "No scene to train on"), (("a", "a"), "Two scenes are named a")):
        with pytest.raises(DataError, match=message):
            _Idle().train(LazyScenes(names, lambda _: scene), _Config(), run=tmp_path / "run", device=CPU)
    assert not (tmp_path / "run").exists()
