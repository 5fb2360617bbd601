"""What `ov3d train` says at its end: only what can be done with the run."""

from __future__ import annotations

import pytest

from ov3d.cli.train import _next_steps


@pytest.mark.parametrize(
    ("manifest", "commands"),
    [
        ({"indexes": {}, "stages": ["field"]}, []),
        ({"indexes": {"room": "a"}, "stages": ["fuse"]}, ["query"]),
        ({"indexes": {"room": "a"}, "stages": ["fuse", "pseudo-label", "specialise", "guide"]}, ["query", "predict"]),
    ],
)
def test_the_end_names_what_the_run_is_good_for(manifest: dict[str, object], commands: list[str]) -> None:
    text = " ".join(_next_steps(manifest))
    assert [name for name in ("query", "predict") if f"ov3d {name}" in text] == commands
    assert text
