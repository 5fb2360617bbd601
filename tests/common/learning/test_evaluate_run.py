"""Which scenes of a run are scored, how they are read, and what its backend is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ov3d.common.asking.index import LanguageIndex, write_index
from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.runs import Run, read_run, write_manifest
from ov3d.common.language.cards import EncoderCard, Identity
from ov3d.common.learning import evaluate_run as module
from ov3d.common.learning.backend import Backend
from ov3d.common.learning.evaluate_run import EvaluateRequest, evaluate_run
from ov3d.common.learning.run_config import RunConfig
from ov3d.common.metrics.run_report import RunReport
from ov3d.common.scenes.scene import LazyScenes, Scene, World


class Recorder(Backend):
    """A backend that notes what it is asked."""

    name, stages, config_type = "toy", ("all",), RunConfig
    protocols, can_ensemble = ("semantic", "panoptic"), True

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def evaluate(self, run: Run, scene: Scene, **options: Any) -> RunReport:
        self.asked.append({"scene": scene.name, **options})
        return RunReport(
            scene=scene.name,
            backend="toy",
            protocol=options["protocol"] or self.protocols[0],
            encoder="offline",
            threshold=None,
            share_seen=1.0,
            tables=(),
        )


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Where scenes were read from, and how."""
    calls: list[tuple[str, dict[str, Any]]] = []

    def opened(path: str | Path, **options: Any) -> LazyScenes:
        calls.append((str(path), options))
        names = tuple("abc") if Path(path).name == "data" else (Path(path).name,)
        return LazyScenes(names, lambda name: Scene(name, Path(path), "scannet"))

    monkeypatch.setattr(module, "open_source", opened)
    return calls


def _run(folder: Path, *scenes: str, place: str | None = None) -> Run:
    identity = Identity("m", "w", "p", "fp32")
    card = EncoderCard("offline", identity, identity, 2, 10.0, 0.2, False)
    for name in scenes:
        index = LanguageIndex(
            xyz=np.zeros((1, 3), np.float32),
            code=np.ones((1, 2), np.float16),
            basis=np.eye(2, dtype=np.float32),
            owner=None,
            scene=name,
            scene_path=place or f"/then/{name}",
            world=World(),
            backend="toy",
            encoder=card,
        )
        write_index(folder / f"{name}.safetensors", index)
    facts = {"backend": "toy", "layout": "scannet", "scale": 0.5}
    write_manifest(folder, {**facts, "indexes": {name: f"{name}.safetensors" for name in scenes}})
    return read_run(folder)


def _evaluate(backend: Recorder, run: Run, *args: Any, **options: Any) -> list[RunReport]:
    return evaluate_run(backend, run, *args, device="cpu", **options)


def test_all_scenes_are_read_as_they_were_for_training(tmp_path: Path, read: list[Any]) -> None:
    backend = Recorder()
    reports = _evaluate(backend, _run(tmp_path, "b", "a"))
    assert [report.scene for report in reports] == ["a", "b"]
    assert read == [(f"/then/{name}", {"layout": "scannet", "scale": 0.5}) for name in "ab"]
    assert [asked["scene"] for asked in backend.asked] == ["a", "b"]
    assert "ensemble" not in backend.asked[0]
    assert (backend.asked[0]["classes"], backend.asked[0]["threshold"]) == ((), None)


def test_one_scene_of_several_and_one_that_has_moved(tmp_path: Path, read: list[Any]) -> None:
    (tmp_path / "two").mkdir()
    (tmp_path / "one").mkdir()
    both, alone = _run(tmp_path / "two", "a", "b"), _run(tmp_path / "one", "a")
    assert [report.scene for report in _evaluate(Recorder(), both, scene="/now/b")] == ["b"]
    assert [report.scene for report in _evaluate(Recorder(), alone, scene="/now/renamed")] == ["renamed"]
    assert dict(read) == {f"/now/{name}": {"layout": None, "scale": 0.5} for name in ("b", "renamed")}
    with pytest.raises(UsageError, match="has no scene 'c'. It has: a, b"):
        _evaluate(Recorder(), both, scene="/now/c")


def test_a_scene_of_the_run_may_be_named_without_its_path(tmp_path: Path, read: list[Any]) -> None:
    run = _run(tmp_path, "a", "b")
    assert [report.scene for report in _evaluate(Recorder(), run, scene="b")] == ["b"]
    assert read == [("/then/b", {"layout": "scannet", "scale": 0.5})]


@pytest.mark.usefixtures("read")
def test_a_threshold_is_a_cosine(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--threshold must be between -1 and 1, got 2"):
        _evaluate(Recorder(), _run(tmp_path, "a"), EvaluateRequest(threshold=2.0))


def test_scenes_of_a_data_set_are_told_apart_by_name_and_it_is_opened_once(tmp_path: Path, read: list[Any]) -> None:
    run = _run(tmp_path, "c", "a", place="/then/data")
    assert [report.scene for report in _evaluate(Recorder(), run)] == ["a", "c"]
    assert [path for path, _ in read] == ["/then/data"]
    assert [report.scene for report in _evaluate(Recorder(), run, scene="/now/data")] == ["a", "c"]
    assert [report.scene for report in _evaluate(Recorder(), run, scene="/now/data/c")] == ["c"]
    assert [path for path, _ in read[1:]] == ["/now/data", "/now/data/c"]


def test_a_scene_that_has_moved_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="/then/a does not exist. Say where it is now: --scene PATH"):
        _evaluate(Recorder(), _run(tmp_path, "a"))


@pytest.mark.usefixtures("read")
def test_the_backend_is_asked_for_what_it_can_do(tmp_path: Path) -> None:
    run, backend = _run(tmp_path, "a"), Recorder()
    (report,) = _evaluate(backend, run, EvaluateRequest(("cat",), 0.3, "panoptic", ensemble=True))
    assert report.protocol == "panoptic"
    asked = backend.asked[0]
    assert (asked["classes"], asked["threshold"], asked["ensemble"]) == (("cat",), 0.3, True)
    with pytest.raises(UsageError, match="--protocol of a toy run must be semantic or panoptic, got held-out"):
        _evaluate(backend, run, EvaluateRequest(protocol="held-out"))
    backend.can_ensemble = False
    with pytest.raises(UsageError, match="--ensemble does not apply to a toy run"):
        _evaluate(backend, run, EvaluateRequest(ensemble=True))
