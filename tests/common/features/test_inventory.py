"""The cache's inventory: counted by encoder, pruned by age, size and encoder, and never behind a run's back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.features.inventory import list_cache, parse_age, parse_size, plan_prune, prune

NOW = 1_000_000.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two encoders; file i of each has 100 (i + 1) bytes and is i hours old."""
    root = tmp_path / "features"
    for encoder in ("offline-01234567", "openclip-ViT-B-16-openai-89abcdef"):
        for number in range(4):
            path = root / encoder / f"{number:02x}" / f"{number:02x}ff.safetensors"
            path.parent.mkdir(parents=True)
            path.write_bytes(bytes(100 * (number + 1)))
            os.utime(path, (NOW - 3600 * number, NOW - 3600 * number))
    (root / "image-hashes.sqlite").write_bytes(b"memo")
    return root


def _run(outputs: Path, name: str, encoder: str, *, finished: bool) -> Path:
    run = outputs / name
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(f"encoder: {encoder}\n")
    if finished:
        (run / "manifest.json").write_text("{}")
    return run


def test_is_listed_by_encoder(root: Path, tmp_path: Path) -> None:
    rows = [folder.to_json() for folder in list_cache(root)]
    assert [(row["encoder"], row["files"], row["bytes"]) for row in rows] == [
        ("offline-01234567", 4, 1000),
        ("openclip-ViT-B-16-openai-89abcdef", 4, 1000),
    ]
    assert (rows[0]["oldest"], rows[0]["newest"]) == (NOW - 3 * 3600, NOW)
    assert list_cache(tmp_path / "nothing") == []


@pytest.mark.parametrize(
    ("criteria", "sizes"),
    [
        ({"encoder": "offline"}, [400, 300, 200, 100]),
        ({"encoder": "openclip:ViT-B-16/openai", "older_than": 1.5 * 3600}, [400, 300]),
        ({"older_than": 2.5 * 3600}, [400, 400]),
        ({"max_bytes": 600}, [400, 400, 300, 300]),
        ({"encoder": "offline-01234567", "max_bytes": 600}, [400]),
        ({"max_bytes": 600, "older_than": 2.5 * 3600}, [400, 400]),
        ({"max_bytes": 2000}, []),
    ],
)
def test_criteria(root: Path, tmp_path: Path, criteria: dict[str, object], sizes: list[int]) -> None:
    plan = plan_prune(root=root, outputs=tmp_path / "runs", now=NOW, **criteria)  # type: ignore[arg-type]
    assert [file.size for file in plan.files] == sizes
    assert len(list(root.glob("*/*/*"))) == 8  # planning deletes nothing
    prune(plan)
    assert len(list(root.glob("*/*/*"))) == 8 - len(sizes)
    assert (root / "image-hashes.sqlite").is_file()


def test_what_an_unfinished_run_needs_is_not_deleted_unasked(root: Path, tmp_path: Path) -> None:
    outputs = tmp_path / "runs"
    unfinished = _run(outputs, "a", "offline", finished=False)
    finished = _run(outputs, "b", "offline", finished=True)
    _run(outputs, "c", "openclip:RN50/openai", finished=False)
    (outputs / "odd").mkdir()
    (outputs / "odd" / "config.yaml").write_text("[")
    plan = plan_prune(root=root, encoder="offline", outputs=outputs)
    assert (plan.unfinished, plan.finished) == ((unfinished,), (finished,))
    with pytest.raises(DataError, match="1 unfinished runs may need") as caught:
        prune(plan)
    assert "--force" in caught.value.hint
    assert len(list(root.glob("*/*/*"))) == 8
    prune(plan, force=True)
    assert len(list(root.glob("*/*/*"))) == 4


def test_bad_wishes_say_what_to_write(root: Path) -> None:
    with pytest.raises(UsageError, match="Nothing to delete was specified"):
        plan_prune(root=root)
    with pytest.raises(UsageError, match="no features of 'ofline'"):
        plan_prune(root=root, encoder="ofline")
    assert (parse_size("1.5 kB"), parse_size("20GB"), parse_size("7")) == (1500, 20_000_000_000, 7)
    assert (parse_age("12h"), parse_age("2w")) == (43200, 1209600)
    for wrong in ("", "many", "5 parsec", "-3GB"):
        with pytest.raises(UsageError, match="must be a size"):
            parse_size(wrong)
        with pytest.raises(UsageError, match="must be an age"):
            parse_age(wrong)
