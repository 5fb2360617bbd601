"""The one way to write and to read a file.

Writing: a temporary name beside the target, fsync, rename. A reader sees the old file or the new one, never a part, and
a killed process leaves the old file intact. Every ov3d file says its kind and format version and carries an xxh3
checksum over names, shapes, bytes and metadata, because plain safetensors accepts a flipped bit.

Reading: kind, version and checksum are verified; a newer version is refused by name. `docs/formats.md` lists the kinds.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

from ov3d.common.base.errors import CorruptFileError, DataError, NewerFormatError, Ov3dError, StorageError
from ov3d.common.base.shapes import Array, Shaped

TEMPORARY_SUFFIX = ".ov3d-tmp"

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
"""Types of the safetensors format as NumPy names them."""
_NAMES = {**{code: name for name, code in _DTYPES.items()}, "|i1": "I8", "|u1": "U8", "|b1": "BOOL"}
"""And back, from `dtype.str`, which gives no order to what is one byte."""


@dataclass(frozen=True, slots=True)
class TensorFile:
    """What `read_tensors` gives.

    Attributes:
        tensors: arrays by name.
        metadata: the JSON object that was written beside them.
        version: the format version the file was written in.
    """

    tensors: dict[str, Shaped[Array, ...]]
    metadata: dict[str, Any]
    version: int


# ---------------------------------------------------------------------------------------------------------- writing


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: Literal["wb", "w"] = "wb") -> Iterator[IO[Any]]:
    """Open a file that appears under `path` only when the block ends without an error.

    Args:
        path: the file to create or to replace; missing folders are made.
        mode: `wb`, or `w` for UTF-8 text.

    Raises:
        StorageError: the disk is full or the place cannot be written; what stood at `path` is untouched.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.urandom(6).hex()}{TEMPORARY_SUFFIX}")
    try:
        with _storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            stream = temporary.open(mode, encoding=None if "b" in mode else "utf-8")
        with stream:
            yield stream
            with _storage_errors(target):
                stream.flush()
                os.fsync(stream.fileno())
        with _storage_errors(target):
            temporary.replace(target)
            _sync_folder(target.parent)
    except OSError as error:  # raised by the caller's own writes to the stream
        raise _storage_error(target, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write `data` atomically; returns the path."""
    with atomic_write(path) as stream:
        stream.write(data)
    return Path(path)


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write `text` as UTF-8 atomically; returns the path."""
    return write_bytes(path, text.encode("utf-8"))


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
        path: the file to create or to replace.
        tensors: NumPy arrays by name.
        kind: what the file is, for example `language-index`.
        version: its format version, raised when an older ov3d could not read it.
        metadata: a JSON-able object.

    Raises:
        StorageError: it cannot be written; the old file is untouched.
    """
    import numpy as np

    arrays = {name: np.ascontiguousarray(array, array.dtype.newbyteorder("<")) for name, array in tensors.items()}
    header = {_META_KIND: kind, _META_VERSION: str(version), _META_JSON: json.dumps(metadata or {}, sort_keys=True)}
    header[_META_CHECKSUM] = _checksum(arrays, header)
    # The library would first copy all tensors into one string of bytes, and its header's order changes by chance.
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    with atomic_write(path) as stream:
        stream.write(_layout({name: arrays[name] for name in order}, header))
        for name in order:
            if arrays[name].size:  # a memory view of nothing cannot be cast
                stream.write(arrays[name].data)
    return Path(path)


def write_json(path: str | os.PathLike[str], data: Mapping[str, Any], *, kind: str, version: int) -> Path:
    """Write a JSON object with kind, version and checksum under the key `ov3d`; returns the path."""
    body = json.dumps(data, indent=2, sort_keys=True, allow_nan=False)
    stamp = {"kind": kind, "version": version, "xxh3_128": _hash_bytes(body.encode())}
    return write_text(path, json.dumps({"ov3d": stamp, "data": json.loads(body)}, indent=2, sort_keys=True) + "\n")


# ---------------------------------------------------------------------------------------------------------- reading


def read_tensors(
    path: str | os.PathLike[str], *, kind: str, version: int, names: tuple[str, ...] | None = None
) -> TensorFile:
    """Read and verify a file that `write_tensors` wrote.

    Args:
        path: the file.
        kind: what it must be.
        version: the newest format version that the caller understands.
        names: the tensors to return; all are verified either way.

    Raises:
        DataError: there is no such file, or it is of another kind.
        CorruptFileError: it was cut short, or its bytes are not those that were written.
        NewerFormatError: a newer ov3d wrote it.
    """
    from safetensors import SafetensorError, safe_open

    source = _existing(path, kind)
    try:
        with safe_open(source, framework="numpy") as opened:
            header = dict(opened.metadata() or {})
            _check_stamp(source, kind, version, header.get(_META_KIND), header.get(_META_VERSION))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError, UnicodeDecodeError) as error:
        raise _corrupt(source, kind, f"it is no complete safetensors file: {error}") from error
    expected = header.pop(_META_CHECKSUM, None)
    if expected is None or _checksum(tensors, header) != expected:
        raise _corrupt(source, kind, "its checksum does not match its content")
    if names is not None:
        tensors = {name: tensors[name] for name in names}
    return TensorFile(tensors, json.loads(header[_META_JSON]), int(header[_META_VERSION]))


def parse_tensors(data: bytes, source: Path, *, kind: str | None = None, version: int | None = None) -> TensorFile:
    """Verify and take apart the bytes of a file that `write_tensors` wrote; `source` names them in errors.

    Raises: as `read_tensors`. Without kind and version, any kind will do.
    """
    import numpy as np

    try:
        length = int.from_bytes(data[:8], "little")
        layout = json.loads(data[8 : 8 + length])
        header, body = dict(layout.pop("__metadata__")), memoryview(data)[8 + length :]
        if kind is not None and version is not None:
            _check_stamp(source, kind, version, header.get(_META_KIND), header.get(_META_VERSION))
        tensors = {}
        for name, one in layout.items():
            start, stop = one["data_offsets"]
            tensors[name] = np.frombuffer(body[start:stop], _DTYPES[one["dtype"]]).reshape(one["shape"])
    except (ValueError, KeyError, TypeError) as error:
        raise _corrupt(source, kind or "tensor", f"it is no complete safetensors file: {error}") from error
    expected = header.pop(_META_CHECKSUM, None)
    if expected is None or _checksum(tensors, header) != expected:
        raise _corrupt(source, kind or "tensor", "its checksum does not match its content")
    return TensorFile(tensors, json.loads(header[_META_JSON]), int(header[_META_VERSION]))


def read_header(path: str | os.PathLike[str], *, kind: str, version: int) -> dict[str, Any] | None:
    """The JSON metadata of a tensor file without its tensors; none where there is no such file of that kind and version.

    Nothing is verified: it tells which file to read, and reading it whole verifies.
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


def read_json(path: str | os.PathLike[str], *, kind: str, version: int) -> dict[str, Any]:
    """Read and verify a file that `write_json` wrote; raises as `read_tensors` does."""
    source = _existing(path, kind)
    try:
        document = json.loads(source.read_text(encoding="utf-8"))
        stamp, data = document["ov3d"], document["data"]
    except (ValueError, KeyError, TypeError) as error:
        raise _corrupt(source, kind, "it is no complete ov3d JSON file") from error
    _check_stamp(source, kind, version, stamp.get("kind"), stamp.get("version"))
    body = json.dumps(data, indent=2, sort_keys=True, allow_nan=False)
    if stamp.get("xxh3_128") != _hash_bytes(body.encode()):
        raise _corrupt(source, kind, "its checksum does not match its content")
    return cast("dict[str, Any]", data)


def cache_root() -> Path:
    """Where everything lives that can be made again: `$OV3D_CACHE`, else `$XDG_CACHE_HOME/ov3d`, else `~/.cache/ov3d`."""
    if chosen := os.environ.get("OV3D_CACHE"):
        return Path(chosen).expanduser()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base).expanduser() / "ov3d"
    return Path("~/.cache/ov3d").expanduser()


def hash_file(path: str | os.PathLike[str]) -> str:
    """The xxh3-128 of a file's bytes, in hexadecimal, read in blocks of 4 MiB."""
    import xxhash

    digest = xxhash.xxh3_128()
    with Path(path).open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def hash_text(*parts: str) -> str:
    """The xxh3-128 of some strings, in hexadecimal; the boundaries between them count."""
    return _hash_bytes(b"".join(len(part.encode()).to_bytes(8, "little") + part.encode() for part in parts))


# --------------------------------------------------------------------------------------------------------- internals


def _checksum(tensors: Mapping[str, Shaped[Array, ...]], header: Mapping[str, str]) -> str:
    import xxhash

    digest = xxhash.xxh3_128()
    for key in sorted(header):
        digest.update(f"{key}\0{header[key]}\0".encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        if array.size:  # a memory view of nothing cannot be cast
            digest.update(array.data if array.dtype.kind != "V" else array.tobytes())
    return digest.hexdigest()


def _layout(arrays: Mapping[str, Shaped[Array, ...]], header: Mapping[str, str]) -> bytes:
    """The head of a safetensors file: the length of a JSON object, and the object: metadata, and where each tensor is."""
    document: dict[str, Any] = {"__metadata__": dict(sorted(header.items()))}
    start = 0
    for name, array in arrays.items():
        offsets = [start, start + array.nbytes]
        document[name] = {"dtype": _NAMES[array.dtype.str], "shape": list(array.shape), "data_offsets": offsets}
        start += array.nbytes
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors stay aligned
    return len(text).to_bytes(8, "little") + text


def _hash_bytes(data: bytes) -> str:
    import xxhash

    return xxhash.xxh3_128_hexdigest(data)


def _existing(path: str | os.PathLike[str], kind: str) -> Path:
    source = Path(path)
    if not source.is_file():
        raise DataError(f"There is no {kind} file at {source}.", "Check the path.")
    return source


def _check_stamp(
    source: Path, kind: str, version: int, found_kind: str | None, found_version: str | int | None
) -> None:
    if found_kind != kind:
        raise DataError(f"{source} is {found_kind or 'no ov3d file'}, not a {kind} file.", "Check the path.")
    if found_version is None or int(found_version) > version:
        raise NewerFormatError(
            f"{source} is a {kind} file of version {found_version}; this ov3d reads up to version {version}.",
            "Upgrade ov3d: pip install -U ov3d",
        )


def _corrupt(source: Path, kind: str, why: str) -> CorruptFileError:
    return CorruptFileError(f"The {kind} file {source} is damaged: {why}.", "Delete it and make it again.")


@contextlib.contextmanager
def _storage_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _storage_error(target, error) from error


def _storage_error(target: Path, error: OSError) -> Ov3dError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"The disk is full: {target} was not written.", "Free some space and run it again.")
    return StorageError(f"{target} cannot be written: {error.strerror or error}.", "Choose another place with -o.")


def _sync_folder(folder: Path) -> None:
    # A rename is durable only once its folder is; Windows cannot open folders, and needs no such thing.
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
