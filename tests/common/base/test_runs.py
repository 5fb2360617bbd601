"""Runs: a fresh folder each, found again by path, scene or `latest`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.runs import claim_run, find_run, new_run, read_run, write_manifest


def _finished(scene: str, backend: str, root: Path, age: int) -> Path:
    path = new_run(scene, backend, root)
    write_manifest(path, {"indexes": {scene: "index.safetensors"}, "backend": backend})
    os.utime(path / "manifest.json", ns=(10**18 - age * 10**9,) * 2)
    return path


def test_two_runs_in_one_second_differ(tmp_path: Path) -> None:
    assert len({new_run("desk", "points", tmp_path) for _ in range(5)}) == 5


def test_found_by_path_scene_and_latest(tmp_path: Path) -> None:
    old = _finished("desk", "points", tmp_path, age=30)
    middle = _finished("room", "points", tmp_path, age=20)
    new = _finished("room", "nerf", tmp_path, age=10)
    new_run("desk", "points", tmp_path)  # unfinished: never found
    assert find_run("latest", tmp_path).path == new
    assert "newest" in find_run("latest", tmp_path).chosen
    assert find_run("desk", tmp_path).path == old
    assert find_run("room/points", tmp_path).path == middle
    assert find_run(str(old), tmp_path).path == old
    assert find_run(str(old), tmp_path).chosen == ""
    assert read_run(old).indexes == {"desk": old / "index.safetensors"}


def test_none_found_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no finished run.*manifest\.json.*ov3d train"):
        find_run("latest", tmp_path / "nothing")
    with pytest.raises(DataError, match="No run found at sofa"):
        find_run("sofa", tmp_path)


def test_a_scene_name_cannot_leave_the_root(tmp_path: Path) -> None:
    path = new_run("../../etc/pass wd", "points", tmp_path)
    assert tmp_path in path.parents


def test_a_run_goes_on_as_it_was_begun_or_with_more_stages(tmp_path: Path) -> None:
    claim_run(tmp_path, "seed: 0\nstages:\n- field\n")
    claim_run(tmp_path, "seed: 0\nstages:\n- field\n")
    claim_run(tmp_path, "seed: 0\nstages:\n- field\n- distil\n")
    assert "distil" in (tmp_path / "config.yaml").read_text()
    with pytest.raises(UsageError, match=r"other settings \(stages\)"):  # what is there would belong to no stage
        claim_run(tmp_path, "seed: 0\nstages:\n- field\n")
    with pytest.raises(UsageError, match=r"other settings \(seed\)"):
        claim_run(tmp_path, "seed: 1\nstages:\n- field\n- distil\n")
