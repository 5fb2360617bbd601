"""What every backend must do, whichever way it learns: run over the list in `ov3d.backends`, on a small scene on the CPU.

`tests/test_fourth_backend.py` runs the same tests on a toy backend.
"""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch

from ov3d.backends import BACKENDS, get_backend
from ov3d.common.asking.ask import index_path
from ov3d.common.asking.index import read_index, write_index
from ov3d.common.base.config import load_config
from ov3d.common.base.errors import UsageError
from ov3d.common.base.runs import Run, read_run
from ov3d.common.learning.backend import Backend
from ov3d.common.scenes.scene import LazyScenes, Scene
from tests.colour_encoder import ColourEncoder, colour_encoder
from tests.common.small_scenes import CLASSES, box_scene

__all__ = ["colour_encoder"]

CPU = torch.device("cpu")
SETTINGS = {
    "nerf": [
        "lift.border=2",
        "field.steps=60",
        "field.rays=512",
        "field.samples=20000",
        "field.first_voxels=20000",
        "field.last_voxels=40000",
        "field.upsample_at=[30]",
        "field.colour_width=16",
        "field.white_share=0",
        "field.occupancy_every=10",
        "field.occupancy_from=30",
        "field.occupancy_threshold=0.003",
        "field.checkpoint_every=20",
        "field.view_every=60",
        "distil.steps=24",
        "distil.joint_from=12",
        "distil.rays=256",
        "distil.patches=0",
        "distil.checkpoint_every=12",
    ],
    "points": ["lift.border=2"],
    "points, all stages": [
        "lift.border=2",
        "preset=cpu",
        "specialise.epochs=20",
        "specialise.points=1000",
        "specialise.rate=0.003",
        "specialise.residual=0.9",
        "specialise.checkpoint_every=10",
        "guide.voxel_size=0.05",
        "guide.stem_dim=8",
        "guide.down=[8, 8]",
        "guide.up=[16, 8]",
        "guide.epochs=30",
        "guide.rate=0.02",
        "guide.crop=null",
        "guide.agreement=0",
        "guide.label_weight=0",
        "guide.checkpoint_every=10",
    ],
}
"""What makes a backend fit the tiny scene, its images are 64 pixels wide: a backend's name, and more where it runs twice."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=sorted(SETTINGS))
def settings(request: pytest.FixtureRequest) -> list[str]:
    return SETTINGS[request.param]


@pytest.fixture
def backend(settings: list[str], monkeypatch: pytest.MonkeyPatch) -> Backend:
    name = next(name for name in SETTINGS if SETTINGS[name] is settings)
    made = get_backend(name.partition(",")[0])
    monkeypatch.setitem(SETTINGS, made.name, settings)
    return made


def test_every_backend_is_tried() -> None:
    assert {name.partition(",")[0] for name in SETTINGS} == set(BACKENDS)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return box_scene(tmp_path / "scene", 5)


def _train(backend: Backend, scene: Scene, run: Path) -> Run:
    config = load_config(backend.config_type, None, SETTINGS[backend.name])
    return backend.train(LazyScenes((scene.name,), lambda name: scene), config, run=run, device=CPU)


def test_what_it_takes_is_told_beforehand(backend: Backend, scene: Scene) -> None:
    source = LazyScenes((scene.name,), lambda name: scene)
    config = load_config(backend.config_type, None, SETTINGS[backend.name])
    (told,) = backend.estimate(source, config, device=CPU)
    assert (told.scene, told.images) == (scene.name, 5)
    assert min(told.bytes, told.peak_bytes, told.seconds) > 0


def _files(run: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name != "manifest.json"  # it holds seconds
    }


def test_declares_itself(backend: Backend) -> None:
    assert isinstance(backend, Backend)
    assert backend.name in BACKENDS
    assert backend.stages
    assert backend.stages == backend.config_type.STAGES
    assert backend.protocols
    for preset in backend.config_type.PRESETS:
        config = load_config(backend.config_type, None, [f"preset={preset}"])
        assert config.stages == backend.stages[: len(config.stages)]


def test_has_the_rooms_of_every_backend(backend: Backend) -> None:
    module = importlib.import_module(type(backend).__module__)
    assert module.__file__ is not None
    folder = Path(module.__file__).parent
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")}
    stages = {f"stages/{stage.replace('-', '_')}.py" for stage in backend.stages}
    assert {"backend.py", "config.py", "bake.py", "evaluate.py", *stages} <= files


@pytest.mark.usefixtures("colour_encoder")
def test_fits_and_beats_chance(backend: Backend, scene: Scene, tmp_path: Path) -> None:
    run = _train(backend, scene, tmp_path / "run")
    assert read_run(tmp_path / "run").manifest == run.manifest
    assert run.manifest["backend"] == backend.name
    report = backend.evaluate(run, scene, device=CPU, classes=CLASSES, threshold=-1.0).to_json()
    assert report["tables"][0]["mean_iou"] > 0.75  # chance: a third
    assert scene.cloud is not None
    assert scene.cloud.labels is not None
    index = read_index(index_path(run, scene.name))
    np.testing.assert_array_equal(index.xyz, scene.cloud.xyz)
    text = ColourEncoder().encode_text(CLASSES)
    right = index.scores(text).argmax(axis=1)[index.seen] == scene.cloud.labels[index.seen]
    assert index.seen.mean() > 0.6
    assert right.mean() > 0.9


@pytest.mark.usefixtures("colour_encoder")
def test_the_index_scores_as_the_backend_does(backend: Backend, scene: Scene, tmp_path: Path) -> None:
    run = _train(backend, scene, tmp_path / "run")
    index = read_index(index_path(run, scene.name))
    text = ColourEncoder().encode_text(["a floor", "a box", "the sea", "quite", "another", "thing"])
    own = backend.scores(run, scene.name, text)
    assert own.shape == (len(index), 6)
    assert np.abs(own - index.scores(text)).max() < 1e-3
    assert np.abs(own).max() > 0.9


@pytest.mark.usefixtures("colour_encoder")
def test_save_and_load_are_bit_equal(backend: Backend, scene: Scene, tmp_path: Path) -> None:
    run = _train(backend, scene, tmp_path / "run")
    path = index_path(run, scene.name)
    written = path.read_bytes()
    assert write_index(tmp_path / "again.safetensors", read_index(path)).read_bytes() == written


def test_a_resumed_run_equals_an_uninterrupted_one(
    backend: Backend, scene: Scene, tmp_path: Path, colour_encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies at every file that a run writes, one after the other; each time the run is resumed."""
    broken = tmp_path / "broken"
    module = importlib.import_module("ov3d.common.base.files")
    atomic_write, files_left = module.atomic_write, 0
    written: list[str] = []

    class Died(BaseException):
        """Stands for a killed process: nothing may catch it."""

    def dying(path: Path, mode: str = "wb") -> AbstractContextManager[IO[Any]]:
        nonlocal files_left
        written.append(Path(path).name)
        if broken in Path(path).parents:
            files_left -= 1
            if files_left < 0:
                raise Died
        return atomic_write(path, mode)

    monkeypatch.setattr(module, "atomic_write", dying)
    whole = _train(backend, scene, tmp_path / "whole")
    assert (written.count("source.json"), written.count("manifest.json"), written[-1]) == (1, 1, "manifest.json")
    deaths = 0
    for allowed in (0, 1, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89):
        files_left = allowed
        try:
            resumed = _train(backend, scene, broken)
            break
        except Died:
            deaths += 1
    assert deaths >= 4
    assert _files(broken) == _files(tmp_path / "whole")
    unstable = {"seconds"}
    for name in set(whole.manifest) - unstable:
        assert whole.manifest[name] == resumed.manifest[name]


@pytest.mark.usefixtures("colour_encoder")
def test_a_run_is_not_resumed_with_other_settings(backend: Backend, scene: Scene, tmp_path: Path) -> None:
    _train(backend, scene, tmp_path / "run")
    config = load_config(backend.config_type, None, [*SETTINGS[backend.name], "seed=7"])
    source = LazyScenes((scene.name,), lambda name: replace(scene))
    with pytest.raises(UsageError, match="other settings"):
        backend.train(source, config, run=tmp_path / "run", device=CPU)


def test_unknown_backends_are_named() -> None:
    with pytest.raises(UsageError, match=r"Backend 'lidar' is not available yet. Available: .*nerf, points"):
        get_backend("lidar")
    with pytest.raises(UsageError, match=r"Unknown backend 'point'\. Did you mean points\?"):
        get_backend("point")
