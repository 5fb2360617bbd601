"""Files: whole or not at all, checked on reading, never newer than the reader."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ov3d.common.base import files
from ov3d.common.base.errors import CorruptFileError, StorageError


def test_a_failure_inside_leaves_the_old_file(tmp_path: Path) -> None:
    path = files.write_text(tmp_path / "x.txt", "old")
    with pytest.raises(RuntimeError), files.atomic_write(path) as stream:
        stream.write(b"new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.txt"]


@pytest.mark.parametrize("call", ["fsync", "open", "replace", "write"])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = files.write_text(tmp_path / "x.txt", "old")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if call == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    elif call == "write":
        real = Path.open

        def broken_open(self: Path, *args: object, **kwargs: object) -> object:
            stream = real(self, *args, **kwargs)
            if self.suffix == files.TEMPORARY_SUFFIX:
                return _FullStream(stream)
            return stream

        monkeypatch.setattr(Path, "open", broken_open)
    else:
        monkeypatch.setattr(Path, call, full)
    with pytest.raises(StorageError, match="disk is full"):
        files.write_text(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.txt"]


class _FullStream:
    def __init__(self, stream: object) -> None:
        self.stream = stream

    def __enter__(self) -> _FullStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def write(self, _: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_json_is_checked_too(tmp_path: Path) -> None:
    path = files.write_json(tmp_path / "m.json", {"a": 0.1, "b": [1, None]}, kind="manifest", version=1)
    assert files.read_json(path, kind="manifest", version=1) == {"a": 0.1, "b": [1, None]}
    document = json.loads(path.read_text())
    document["data"]["a"] = 0.2
    path.write_text(json.dumps(document))
    with pytest.raises(CorruptFileError, match="checksum"):
        files.read_json(path, kind="manifest", version=1)
    path.write_text('{"data": ')
    with pytest.raises(CorruptFileError):
        files.read_json(path, kind="manifest", version=1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
def test_hash_of_texts_tells_boundaries(first: list[str], second: list[str]) -> None:
    assert (files.hash_text(*first) == files.hash_text(*second)) == (first == second)
