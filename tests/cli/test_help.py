"""Help texts are read by people: each is held by a snapshot, and each shows an example."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cli.conftest import Ov3d

COMMANDS = [
    "demo",
    "doctor",
    "extract-features",
    "train",
    "query",
    "predict",
    "eval",
    "cache",
    "cache ls",
    "cache prune",
    "cache verify",
]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(ov3d: Ov3d, snapshot: Callable[[str, str], None], command: str) -> None:
    done = ov3d(*command.split(), "--help")
    assert done.code == 0
    assert done.err == ""
    snapshot(f"help-{command.replace(' ', '-') or 'ov3d'}", done.out)
    if command not in {"", "cache"}:
        assert f"Example: ov3d {command}" in done.out


def test_no_arguments_is_help(ov3d: Ov3d) -> None:
    done = ov3d()
    assert done.code in {0, 2}
    assert "extract-features" in done.out + done.err


def test_version(ov3d: Ov3d) -> None:
    done = ov3d("--version")
    assert (done.code, done.out) == (0, "ov3d 0.1.0\n")


@pytest.mark.parametrize("args", [["qury"], ["query", "--tpo", "3"], ["query"], ["train"]])
def test_wrong_usage_exits_with_two(ov3d: Ov3d, args: list[str]) -> None:
    assert ov3d(*args).code == 2
