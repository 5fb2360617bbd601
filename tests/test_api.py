"""The Python API: what it offers is there, has the commands' defaults, and does what they do."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

import ov3d
from ov3d import api
from ov3d.cli.extract_features import extract_features as extract_command
from ov3d.cli.predict import predict as predict_command
from ov3d.cli.query import query as query_command
from ov3d.cli.train import train as train_command
from ov3d.common.base.errors import DataError, UsageError
from tests.cli.capture import write_capture
from tests.cli.conftest import Ov3d
from tests.cli.conftest import ov3d as command
from tests.colour_encoder import ColourEncoder, colour_encoder

__all__ = ["colour_encoder", "command"]

FUNCTIONS = ("demo_scene", "evaluate", "extract_features", "predict", "query", "train")


@pytest.fixture
def capture(tmp_path: Path, colour_encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("ov3d.common.encoders.create_encoder", lambda spec, *, device: colour_encoder)
    return write_capture(tmp_path / "desk")


@pytest.fixture
def run(capture: Path) -> ov3d.Run:
    return ov3d.train("points", capture, stages=["fuse"], settings={"lift": {"border": 2}})


def test_the_package_offers_what_it_names() -> None:
    for name in ov3d.__all__:
        assert getattr(ov3d, name) is not None
    assert {"__version__", *ov3d._LAZY} == set(ov3d.__all__) <= set(dir(ov3d))
    with pytest.raises(AttributeError, match="no attribute 'ask'"):
        ov3d.ask  # noqa: B018


def test_importing_it_imports_nothing() -> None:
    code = "import sys; before = set(sys.modules); import ov3d, ov3d.api; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={})
    imported = {name.split(".")[0] for name in json.loads(done.stdout.replace("'", '"'))}
    assert not imported & {"numpy", "torch", "typer", "pydantic"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_has_an_example_and_says_what_its_arguments_are(name: str) -> None:
    function = getattr(api, name)
    text = inspect.getdoc(function) or ""
    assert ">>> import ov3d" in text and f"ov3d.{name}(" in text
    described = {
        name for line in re.findall(r"^    (\w+(?:, \w+)*): ", text, re.MULTILINE) for name in line.split(", ")
    }
    assert set(inspect.signature(function).parameters) <= described


@pytest.mark.parametrize(
    ("function", "typed"),
    [
        (api.extract_features, extract_command),
        (api.train, train_command),
        (api.query, query_command),
        (api.predict, predict_command),
    ],
)
def test_defaults_are_the_commands(function: object, typed: object) -> None:
    ours, theirs = (inspect.signature(one).parameters for one in (function, typed))  # type: ignore[arg-type]
    shared = [name for name in ours if name in theirs]
    assert len(shared) >= 5
    for name in shared:
        mine, default = ours[name].default, theirs[name].default
        default = inspect.Parameter.empty if isinstance(default, typer.models.ParameterInfo) else default
        assert mine == default or (mine, default) == ((), None), name


def test_features_extracted_beforehand_are_those_that_train_uses(capture: Path, colour_encoder: ColourEncoder) -> None:
    (report,) = ov3d.extract_features(capture)
    assert (report.images, report.skipped) == (5, 0)
    crops = colour_encoder.crops
    assert [one.images for one in ov3d.extract_features(capture)] == [0]
    ov3d.train("points", capture, stages=["fuse"], settings={"lift.border": 2}, extract=False)
    assert colour_encoder.crops == crops


def test_train_takes_settings_nested_or_dotted_and_named_ones_win(capture: Path, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("lift: {border: 9, depth_tolerance: 0.07}\nscore: cosine\n")
    run = ov3d.train(
        "points",
        capture,
        stages=["fuse"],
        seed=3,
        config=file,
        settings={"lift": {"border": 2}, "seed": 1},
        outputs=tmp_path,
    )
    written = (run.path / "config.yaml").read_text()
    for line in ("border: 2", "depth_tolerance: 0.07", "score: cosine", "seed: 3"):
        assert line in written
    assert run.path.is_relative_to(tmp_path) and run.manifest["stages"] == ["fuse"]
    with pytest.raises(UsageError, match=r"lift\.bordr.*Did you mean border"):
        ov3d.train("points", capture, settings={"lift": {"bordr": 2}})


def test_an_unfinished_run_is_resumed_with_its_own_settings(run: ov3d.Run, capture: Path) -> None:
    index = run.indexes["desk"]
    before = index.read_bytes()
    index.unlink()
    (run.path / "manifest.json").unlink()
    again = ov3d.train("points", capture, resume=run.path)
    assert again.path == run.path and index.read_bytes() == before
    with pytest.raises(DataError, match="not a run that can be resumed"):
        ov3d.train("points", capture, resume=capture)


def test_query_and_evaluate_say_what_the_commands_say(run: ov3d.Run, command: Ov3d, tmp_path: Path) -> None:
    answer = ov3d.query("  the   box ", run, output=tmp_path / "found")
    assert answer.prompt == "the box" and isinstance(answer, ov3d.Answer)
    typed = json.loads(command("query", "the box", run.path, "--json").out)
    assert {**answer.to_json(), "run": str(run.path), "files": []} == typed
    assert {"points.ply", "top-down.png", "view-0.png"} <= {path.name for path in (tmp_path / "found").iterdir()}
    for name in ("latest", "desk", run.path):
        np.testing.assert_array_equal(ov3d.query("the box", name).scores, answer.scores)
    reports = ov3d.evaluate(run, threshold=-1.0)
    typed = json.loads(command("eval", run.path, "--json", "--threshold", "-1").out)
    assert [report.to_json() for report in reports] == typed["reports"]
    with pytest.raises(UsageError, match="no scene 'chair'"):
        ov3d.query("the box", run, scene="chair")
    with pytest.raises(UsageError, match="must be semantic, got held-out"):
        ov3d.evaluate(run, protocol="held-out")


def test_predict_refuses_a_run_without_a_network(run: ov3d.Run, capture: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no 3D network"):
        ov3d.predict(run, capture, tmp_path / "labelled.ply")
