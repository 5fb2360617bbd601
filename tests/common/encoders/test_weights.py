"""Packaged weights: found without importing, verified, and hashed once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from ov3d.common.base.errors import CorruptFileError, MissingModelError
from ov3d.common.encoders import weights
from ov3d.common.encoders.weights import PackagedFile, find_packaged, sha256_of


def test_a_packaged_file_is_found_by_name_without_importing() -> None:
    path = find_packaged("timm", "imagenet_synsets.txt")
    assert len(path.read_text().splitlines()) == 1000


def test_what_is_not_installed_is_said_with_the_fix() -> None:
    with pytest.raises(MissingModelError, match="no-such-package is not installed") as failure:
        find_packaged("no-such-package", "x.pth")
    assert "ov3d[offline]" in failure.value.hint
    with pytest.raises(MissingModelError, match=r"its file gone\.pth is missing"):
        find_packaged("timm", "gone.pth")


def test_another_file_than_the_known_one_is_refused() -> None:
    content = find_packaged("timm", "imagenet_synsets.txt").read_bytes()
    right = PackagedFile("timm", "imagenet_synsets.txt", hashlib.sha256(content).hexdigest())
    assert right.verified().read_bytes() == content
    swapped = PackagedFile("timm", "imagenet_synsets.txt", "0" * 64)
    with pytest.raises(CorruptFileError, match="are not the ones that ov3d expects") as failure:
        swapped.verified()
    assert "--force-reinstall" in failure.value.hint


def test_a_file_is_hashed_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"one")
    hashed: list[int] = []
    real = hashlib.sha256
    monkeypatch.setattr(weights.hashlib, "sha256", lambda: hashed.append(1) or real())
    first = sha256_of(path)
    assert first == real(b"one").hexdigest()
    assert sha256_of(path) == first
    assert len(hashed) == 1
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert sha256_of(path) == real(b"two").hexdigest()
    assert len(hashed) == 2


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b'{"ov3d": {}, "data": {}}'])
def test_a_damaged_memory_of_hashes_is_no_trouble(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"one")
    expected = sha256_of(path)
    for memo in (Path(os.environ["OV3D_CACHE"]) / "weights").iterdir():
        memo.write_bytes(content)
    assert sha256_of(path) == expected


def test_a_cache_that_cannot_be_written_is_no_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way of a folder")
    monkeypatch.setenv("OV3D_CACHE", str(blocked))
    path = tmp_path / "weights.bin"
    path.write_bytes(b"one")
    assert sha256_of(path) == hashlib.sha256(b"one").hexdigest()
