"""Files: whole or not at all, checked on reading, never newer than the reader."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ov3d.common.base import files
from ov3d.common.base.errors import CorruptFileError, DataError, NewerFormatError, StorageError


def _write(path: Path, **extra: np.ndarray) -> Path:
    tensors = {"a": np.arange(12, dtype=np.float32).reshape(3, 4), "empty": np.zeros((0, 3), np.float16), **extra}
    return files.write_tensors(path, tensors, kind="thing", version=2, metadata={"name": "ü", "n": [1, 2]})


def test_tensors_come_back(tmp_path: Path) -> None:
    read = files.read_tensors(_write(tmp_path / "deep" / "x.safetensors"), kind="thing", version=2)
    np.testing.assert_array_equal(read.tensors["a"], np.arange(12, dtype=np.float32).reshape(3, 4))
    assert read.tensors["empty"].shape == (0, 3)
    assert read.metadata == {"name": "ü", "n": [1, 2]}
    assert read.version == 2


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = _write(tmp_path / "x.safetensors")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        position, bit = int(rng.integers(len(whole))), int(rng.integers(8))
        damaged = bytearray(whole)
        damaged[position] ^= 1 << bit
        path.write_bytes(bytes(damaged))
        try:
            files.read_tensors(path, kind="thing", version=2)
        except (CorruptFileError, DataError, NewerFormatError):
            continue
        # The header is padded with spaces, and JSON may differ in form: only content that reads the same may pass.
        pytest.fail(f"bit {bit} of byte {position} went unnoticed")


@pytest.mark.parametrize("keep", [0, 4, 50, -1])
def test_a_cut_file_is_noticed(tmp_path: Path, keep: int) -> None:
    path = _write(tmp_path / "x.safetensors")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CorruptFileError, match="damaged"):
        files.read_tensors(path, kind="thing", version=2)


def test_newer_version_and_other_kind_are_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "x.safetensors")
    with pytest.raises(NewerFormatError, match="version 2.*up to version 1"):
        files.read_tensors(path, kind="thing", version=1)
    with pytest.raises(DataError, match="is thing, not a index file"):
        files.read_tensors(path, kind="index", version=9)
    with pytest.raises(DataError, match="no thing file"):
        files.read_tensors(tmp_path / "none", kind="thing", version=2)


def test_a_failure_inside_leaves_the_old_file(tmp_path: Path) -> None:
    path = files.write_text(tmp_path / "x.txt", "old")
    with pytest.raises(RuntimeError), files.atomic_write(path) as stream:
        stream.write(b"new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.txt"]


@pytest.mark.parametrize("call", ["fsync", "open", "replace", "write"])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = _write(tmp_path / "x.safetensors")
    before = path.read_bytes()

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
        _write(path, b=np.ones(3))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x.safetensors"]


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


def test_the_library_reads_what_is_written(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    tensors = {
        "half": np.arange(6, dtype=np.float16).reshape(2, 3),
        "bytes": np.arange(5, dtype=np.uint8),
        "none": np.zeros((0, 3), np.float32),
        "flags": np.array([True, False]),
        "big": np.arange(3, dtype=">i4"),
        "turned": np.arange(6.0).reshape(2, 3).T,
        "signed": np.array([-3], np.int8),
    }
    path = files.write_tensors(tmp_path / "a.safetensors", tensors, kind="test", version=1)
    found = load_file(path)
    assert set(found) == set(tensors)
    for name, array in found.items():
        np.testing.assert_array_equal(array, tensors[name])
        assert array.dtype == tensors[name].dtype.newbyteorder("<")
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    assert start % 8 == 0
    layout = json.loads(data[8:start])
    for name, array in tensors.items():  # whoever maps the file into memory finds every number aligned
        assert layout[name]["data_offsets"][0] % array.dtype.itemsize == 0
