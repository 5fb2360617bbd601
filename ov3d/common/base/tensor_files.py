"""Arrays in safetensors files with a checksum.

Each names its kind and format version, holds a JSON object of metadata, and carries an xxh3 checksum over names, shapes,
bytes and metadata, because plain safetensors does not detect a flipped bit.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from ov3d.common.base import files
from ov3d.common.base.files import check_stamp, damaged, existing_file
from ov3d.common.base.shapes import Array, Shaped

_META_KIND = "ov3d.kind"
_META_VERSION = "ov3d.version"
_META_CHECKSUM = "ov3d.xxh3_128"
_META_JSON = "ov3d.json"
_DTYPES = {
    **{f"F{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    "BOOL": "?",
}
"""NumPy's names for safetensors' types."""
_NAMES = {**{code: name for name, code in _DTYPES.items()}, "|i1": "I8", "|u1": "U8", "|b1": "BOOL"}
"""The inverse, from `dtype.str`, which has no byte order for one-byte types."""


@dataclass(frozen=True, slots=True)
class TensorFile:
    """The result of `read_tensors`.

    Attributes:
        tensors: arrays by name.
        metadata: the JSON object stored beside them.
        version: the file's format version.
    """

    tensors: dict[str, Shaped[Array, ...]]
    metadata: dict[str, Any]
    version: int


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Shaped[Array, ...]],
    *,
    kind: str,
    version: int,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write arrays as one safetensors file with kind, version, checksum and JSON metadata.

    Args:
        path: the file to create or replace.
        tensors: NumPy arrays by name.
        kind: what the file is, for example `language-index`.
        version: its format version, increased when older versions of ov3d cannot read it.
        metadata: a JSON-able object.

    Raises:
        StorageError: it cannot be written; the old file is untouched.
    """
    import numpy as np

    arrays = {name: np.ascontiguousarray(array, array.dtype.newbyteorder("<")) for name, array in tensors.items()}
    header = {_META_KIND: kind, _META_VERSION: str(version), _META_JSON: json.dumps(metadata or {}, sort_keys=True)}
    header[_META_CHECKSUM] = _checksum(arrays, header)
    # The library would copy all tensors into one byte string first, and the order of its header varies.
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    with files.atomic_write(path) as stream:
        stream.write(_layout({name: arrays[name] for name in order}, header))
        for name in order:
            if arrays[name].size:  # an empty memory view cannot be cast
                stream.write(arrays[name].data)
    return Path(path)


def read_tensors(
    path: str | os.PathLike[str], *, kind: str, version: int, names: tuple[str, ...] | None = None
) -> TensorFile:
    """Read and verify a file written by `write_tensors`.

    Args:
        path: the file.
        kind: the expected kind.
        version: the newest format version that the caller understands.
        names: the tensors to return; all are verified either way.

    Raises:
        DataError: the file does not exist, or is of another kind.
        CorruptFileError: it is truncated, or its bytes have changed.
        NewerFormatError: a newer ov3d wrote it.
    """
    from safetensors import SafetensorError, safe_open

    source = existing_file(path, kind)
    try:
        with safe_open(source, framework="numpy") as opened:
            header = dict(opened.metadata() or {})
            check_stamp(source, kind, version, header.get(_META_KIND), header.get(_META_VERSION))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError, UnicodeDecodeError) as error:
        raise damaged(source, kind, f"it is not a complete safetensors file: {error}") from error
    file = _verified(source, kind, tensors, header)
    if names is not None:
        return replace(file, tensors={name: tensors[name] for name in names})
    return file


def parse_tensors(data: bytes, source: Path, *, kind: str | None = None, version: int | None = None) -> TensorFile:
    """Verify and parse the bytes of a file written by `write_tensors`; errors name `source`.

    Raises: like `read_tensors`. Without kind and version, any kind is accepted.
    """
    import numpy as np

    try:
        length = int.from_bytes(data[:8], "little")
        layout = json.loads(data[8 : 8 + length])
        header, body = dict(layout.pop("__metadata__")), memoryview(data)[8 + length :]
        if kind is not None and version is not None:
            check_stamp(source, kind, version, header.get(_META_KIND), header.get(_META_VERSION))
        tensors = {}
        for name, one in layout.items():
            start, stop = one["data_offsets"]
            tensors[name] = np.frombuffer(body[start:stop], _DTYPES[one["dtype"]]).reshape(one["shape"])
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(source, kind or "tensor", f"it is not a complete safetensors file: {error}") from error
    return _verified(source, kind or "tensor", tensors, header)


def read_header(path: str | os.PathLike[str], *, kind: str, version: int) -> dict[str, Any] | None:
    """The JSON metadata of a tensor file without its tensors; None if no file of that kind and version exists.

    Nothing is verified: use this to choose which file to read; reading it in full verifies it.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(Path(path), framework="numpy") as opened:
            header = dict(opened.metadata() or {})
        if header.get(_META_KIND) != kind or int(header[_META_VERSION]) > version:
            return None
        return cast("dict[str, Any]", json.loads(header[_META_JSON]))
    except (SafetensorError, OSError, ValueError, KeyError):
        return None


def _verified(source: Path, kind: str, tensors: dict[str, Shaped[Array, ...]], header: dict[str, str]) -> TensorFile:
    expected = header.pop(_META_CHECKSUM, None)
    if expected is None or _checksum(tensors, header) != expected:
        raise damaged(source, kind, "its checksum does not match its content")
    return TensorFile(tensors, json.loads(header[_META_JSON]), int(header[_META_VERSION]))


def _checksum(tensors: Mapping[str, Shaped[Array, ...]], header: Mapping[str, str]) -> str:
    import xxhash

    digest = xxhash.xxh3_128()
    for key in sorted(header):
        digest.update(f"{key}\0{header[key]}\0".encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        if array.size:  # an empty memory view cannot be cast
            digest.update(array.data if array.dtype.kind != "V" else array.tobytes())
    return digest.hexdigest()


def _layout(arrays: Mapping[str, Shaped[Array, ...]], header: Mapping[str, str]) -> bytes:
    """The header of a safetensors file: the length of a JSON object, and the object: metadata and tensor offsets."""
    document: dict[str, Any] = {"__metadata__": dict(sorted(header.items()))}
    start = 0
    for name, array in arrays.items():
        offsets = [start, start + array.nbytes]
        document[name] = {"dtype": _NAMES[array.dtype.str], "shape": list(array.shape), "data_offsets": offsets}
        start += array.nbytes
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # keeps tensors aligned
    return len(text).to_bytes(8, "little") + text
