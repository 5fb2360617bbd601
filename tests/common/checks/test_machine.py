"""What doctor says of this machine: versions, also of a checkout that was never installed."""

from __future__ import annotations

import importlib.metadata

import pytest

from ov3d.common.checks import machine


def test_a_checkout_that_is_not_installed_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m ov3d doctor` in a checkout: the package has no metadata, and runs all the same."""
    version = importlib.metadata.version

    def without_ov3d(name: str) -> str:
        if name == "ov3d":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(machine.importlib.metadata, "version", without_ov3d)
    fact = next(fact for fact in machine.describe() if fact.name == "ov3d")
    assert fact.state == "ok"
    assert "run from the checkout at" in fact.value


def test_a_missing_package_is_a_fault_with_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "installed_version", lambda name: None if name == "timm" else "1.0")
    fact = next(fact for fact in machine.describe() if fact.name == "timm")
    assert (fact.state, fact.hint) == ("fault", "pip install timm")
