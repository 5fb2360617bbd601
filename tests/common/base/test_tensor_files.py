"""Tensor files: what is written comes back, any changed bit is noticed, and the safetensors library reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ov3d.common.base.errors import CorruptFileError, DataError, NewerFormatError
from ov3d.common.base.tensor_files import read_tensors, write_tensors


def _write(path: Path) -> Path:
    tensors = {"a": np.arange(12, dtype=np.float32).reshape(3, 4), "empty": np.zeros((0, 3), np.float16)}
    return write_tensors(path, tensors, kind="thing", version=2, metadata={"name": "ü", "n": [1, 2]})


def _plain(path: Path) -> Path:
    """A safetensors file that another program wrote."""
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3)}, path)
    return path


def test_tensors_come_back(tmp_path: Path) -> None:
    read = read_tensors(_write(tmp_path / "deep" / "x.safetensors"), kind="thing", version=2)
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
            read_tensors(path, kind="thing", version=2)
        except (CorruptFileError, DataError, NewerFormatError):
            continue
        # The header is padded with spaces, and JSON may differ in form: only content that reads the same may pass.
        pytest.fail(f"bit {bit} of byte {position} went unnoticed")


@pytest.mark.parametrize("keep", [0, 4, 50, -1])
def test_a_cut_file_is_noticed(tmp_path: Path, keep: int) -> None:
    path = _write(tmp_path / "x.safetensors")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CorruptFileError, match="damaged"):
        read_tensors(path, kind="thing", version=2)


def test_newer_version_and_other_kind_are_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "x.safetensors")
    with pytest.raises(NewerFormatError, match="version 2.*up to version 1"):
        read_tensors(path, kind="thing", version=1)
    with pytest.raises(DataError, match="Expected a index file, but .* is a thing file"):
        read_tensors(path, kind="index", version=9)
    with pytest.raises(DataError, match="is not an ov3d file"):
        read_tensors(_plain(tmp_path / "plain.safetensors"), kind="thing", version=2)
    with pytest.raises(DataError, match="The thing file .* does not exist"):
        read_tensors(tmp_path / "none", kind="thing", version=2)


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
    path = write_tensors(tmp_path / "a.safetensors", tensors, kind="test", version=1)
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
