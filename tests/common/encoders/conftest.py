"""What tests of several encoders need."""

from __future__ import annotations

import pytest


@pytest.fixture
def downloads_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads are allowed, but nothing can be reached: no test has a network."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
