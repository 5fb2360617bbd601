"""`ov3d cache`: lists, says what it would delete, deletes it, and not behind a run's back."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Ov3d


def test_ls_and_prune(ov3d: Ov3d, tmp_path: Path) -> None:
    cache, outputs = tmp_path / "cache", tmp_path / "outputs"
    file = cache / "features" / "offline-01234567" / "ab" / "abcd.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(2_000_000))
    listed = json.loads(ov3d("cache", "ls", "--cache", str(cache), "--json").out)
    assert [(row["encoder"], row["files"], row["bytes"]) for row in listed["encoders"]] == [
        ("offline-01234567", 1, 2_000_000)
    ]
    shown = ov3d("cache", "ls", "--cache", str(cache)).out
    assert "offline-01234567" in shown
    assert "2.0" in shown

    places = ("--cache", str(cache), "--outputs", str(outputs))
    assert ov3d("cache", "prune", *places).code == 2
    dry = json.loads(ov3d("cache", "prune", "--encoder", "offline", "--dry-run", "--json", *places).out)
    assert (dry["files"], dry["bytes"], dry["dry_run"]) == (1, 2_000_000, True)
    assert ov3d("cache", "prune", "--older-than", "1h", *places).code == 0
    assert file.is_file()

    run = outputs / "room" / "points" / "1"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("encoder: offline\n")
    refused = ov3d("cache", "prune", "--max-size", "1MB", *places)
    assert refused.code == 1
    assert "unfinished" in refused.err
    assert file.is_file()
    (run / "manifest.json").write_text("{}")
    done = ov3d("cache", "prune", "--max-size", "1MB", *places)
    assert done.code == 0
    assert "1 finished runs" in done.err
    assert "1 files" in done.out
    assert not file.exists()
