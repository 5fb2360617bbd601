"""Every example runs as a user would run it, and opens with one sentence; the API's documented calls give what they say."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SAYS = {
    "01": ["a cat: ", "a piano: 0 found"],
    "02": ["my-scan: layout cloud, 4 frames", "with wrong axes: fault", "units metric"],
    "03": ["the floor: ", "a giraffe: 0 found"],
    "04": ["mIoU", "points.ply"],
}
"""What each must print, by its number."""


@pytest.fixture(scope="module")
def one_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The offline encoder's class vectors are made once a cache: the examples share one."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _shared_cache(one_cache: Path, _own_cache_and_outputs: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OV3D_CACHE", str(one_cache))


def _number(path: Path) -> str:
    return path.name[:2]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_opens_with_one_sentence(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert text is not None and "\n\n" not in text and text.count(". ") == 0 and text.endswith(".")


def test_they_are_numbered() -> None:
    assert [_number(path) for path in EXAMPLES] == sorted(SAYS)
    assert all(re.fullmatch(r"\d\d_[a-z_]+", path.stem) for path in EXAMPLES)


def _run(folder: Path, *arguments: str) -> str:
    """What Python prints, run as a user runs it: without the shape checks, and with no hub."""
    environment = {name: value for name, value in os.environ.items() if name != "OV3D_CHECK_SHAPES"}
    environment["HF_HUB_OFFLINE"] = "1"
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_imports_ov3d_alone(path: Path) -> None:
    """A user's script needs no module inside the package."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    modules = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    assert "ov3d" in modules and not [name for name in modules if name.startswith("ov3d.")]


@pytest.mark.slow
@pytest.mark.offline_weights
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path) -> None:
    printed = _run(tmp_path, str(path), str(tmp_path))
    for words in SAYS[_number(path)]:
        assert words in printed, printed


@pytest.mark.slow
@pytest.mark.offline_weights
def test_the_documented_calls_give_what_they_say(tmp_path: Path) -> None:
    code = "import doctest, ov3d.api; found = doctest.testmod(ov3d.api); print(found.failed, found.attempted)"
    printed = _run(tmp_path, "-c", code)
    failed, attempted = map(int, printed.split()[-2:])
    assert failed == 0 and attempted > 20, printed
