"""Errors: message and hint in one line, the nearest names for a typo."""

from __future__ import annotations

import pytest

from ov3d.common.base.device import pick_device
from ov3d.common.base.errors import Ov3dError, UsageError, did_you_mean, nearest


def test_message_and_hint() -> None:
    assert str(Ov3dError("It broke.", "Mend it.")) == "It broke. Mend it."
    assert str(Ov3dError("It broke.")) == "It broke."
    assert (Ov3dError.exit_code, UsageError.exit_code) == (1, 2)


def test_nearest() -> None:
    assert nearest("offlne", ["offline", "openclip"]) == ["offline"]
    assert did_you_mean("Points", ["points", "nerf"]) == "Did you mean points?"
    assert did_you_mean("zzz", ["points", "nerf"]) == "Known: nerf, points."


def test_devices() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in {"cpu", "cuda"}
    with pytest.raises(UsageError, match="Unknown device 'gpu'"):
        pick_device("gpu")
    with pytest.raises(UsageError, match="cuda:77 is not available"):
        pick_device("cuda:77")
