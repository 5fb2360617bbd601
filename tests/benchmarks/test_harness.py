"""The benchmarks' harness: turns, medians and the last line; and that benchmarks share it and nothing of each other."""

from __future__ import annotations

import ast
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import harness

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks"
BENCHMARKS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "harness"))
SOURCES = sorted(FOLDER.rglob("*.py"))
FIGURES: dict[str, Any] = {"ours": 1.0, "peer": 2.0, "unit": "s", "ratio": 2.0, "goal": 1.5, "met": True}


class Clock:
    """A clock that stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")


def test_calls_take_turns_and_the_first_round_does_not_count() -> None:
    clock, order = Clock(), []

    def call(name: str, durations: Iterator[float]) -> None:
        order.append(name)
        clock.now += next(durations)

    ours, peer = iter([9.0, 1.0, 2.0, 4.0]), iter([9.0, 3.0, 6.0, 4.0])
    calls = {"ours": lambda: call("ours", ours), "peer": lambda: call("peer", peer)}
    times = harness.interleaved(calls, 3, clock=clock)
    assert order == ["ours", "peer"] * 4
    assert times == {"ours": [1.0, 2.0, 4.0], "peer": [3.0, 6.0, 4.0]}
    assert harness.medians(times) == {"ours": 2.0, "peer": 4.0}
    assert harness.median_ratio(times["peer"], times["ours"]) == 3.0  # of 3, 3 and 1: not the ratio of medians


def test_a_slow_call_may_take_fewer_turns() -> None:
    numbers = {name: iter(range(10)) for name in ("quick", "slow")}
    calls = {name: lambda name=name: next(numbers[name]) for name in numbers}
    assert harness.interleaved(calls, 4, at_most={"slow": 2}, clock=None) == {"quick": [1, 2, 3, 4], "slow": [1, 2]}


def test_of_calls_in_a_row_the_last_counts() -> None:
    numbers = iter([5.0, 3.0, 2.0, 7.0])
    assert harness.last_of(3, lambda: next(numbers)) == 2.0


def test_what_a_call_returns_is_let_go_after_the_clock_was_read() -> None:
    clock = Clock()

    class Slow:
        def __del__(self) -> None:
            clock.now += 100

    assert harness.seconds(Slow, clock) == 0
    assert clock.now == 100


def test_the_last_line_is_one_json_object(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import numpy as np

    returned = harness.report("some", **{**FIGURES, "met": np.bool_(True)}, extra=[1, 2])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line == returned == {"name": "some", **FIGURES, "extra": [1, 2]}
    assert list(line) == ["name", *FIGURES, "extra"]
    assert not (tmp_path / "results").exists()


def test_a_result_is_kept_where_asked(tmp_path: Path) -> None:
    harness.report("some", **FIGURES, save=True)
    assert json.loads((tmp_path / "results" / "some.json").read_text()) == {"name": "some", **FIGURES}


def test_what_was_skipped_says_why_in_the_same_line(capsys: pytest.CaptureFixture[str]) -> None:
    harness.skip("some", "no samples", unit="s", goal=2.0)
    printed = capsys.readouterr()
    assert printed.err == "Skipped: no samples\n"
    line = json.loads(printed.out)
    assert list(line) == ["name", *FIGURES, "skipped"]
    assert line["met"] is None
    assert line["skipped"] == "no samples"


def test_kept_results_have_the_figures_of_the_last_line() -> None:
    for path in (FOLDER / "results").glob("*.json"):
        assert {"name", *FIGURES} <= set(json.loads(path.read_text())), path.name


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_has_options_of_the_harness(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    assert module.report is harness.report
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as left:
        module.main()
    assert left.value.code == 0
    assert "--save" in capsys.readouterr().out


def wrong_imports(source: str) -> Iterator[str]:
    """What a file of benchmarks/ must not import: tests, another benchmark, a private name of a shared module."""
    shared = ("benchmarks.harness", "benchmarks.shared.")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            pairs = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            pairs = [(node.module or "", alias.name) for alias in node.names]
        else:
            continue
        for module, name in pairs:
            top = module.split(".")[0]
            if top == "tests":
                yield f"{node.lineno}: {module}"
            elif top == "benchmarks" and not f"{module}.{name}".startswith(shared):
                yield f"{node.lineno}: {module} {name}, of another benchmark"
            elif top == "benchmarks" and (name.startswith("_") or "._" in module):
                yield f"{node.lineno}: {module} {name}, a private name"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_no_benchmark_imports_a_test_or_another_benchmark(path: Path) -> None:
    assert list(wrong_imports(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import tests",
        "from tests.points.networks import network",
        "from benchmarks.query import OURS",
        "from benchmarks import query",
        "import benchmarks.query",
        "from benchmarks.harness import _private",
        "def inside():\n    from benchmarks.shared._hidden import name",
    ],
)
def test_the_ban_bites(source: str) -> None:
    assert list(wrong_imports(source))
