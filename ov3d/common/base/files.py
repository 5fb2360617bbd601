"""Atomic file writes, and JSON files with a checksum.

Writing: a temporary name beside the target, fsync, rename. A reader sees the old file or the new one, never a part, and
a killed process leaves the old file intact. Every ov3d file, JSON here or tensors in `tensor_files.py`, names its kind
and format version and carries an xxh3 checksum.

Reading: kind, version and checksum are verified; a newer version is refused by name. `docs/formats.md` lists the kinds.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal, cast

from ov3d.common.base.errors import CorruptFileError, DataError, NewerFormatError, Ov3dError, StorageError

TEMPORARY_SUFFIX = ".ov3d-tmp"


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: Literal["wb", "w"] = "wb") -> Iterator[IO[Any]]:
    """Open a file that appears at `path` only if the block ends without an error.

    Args:
        path: the file to create or replace; missing folders are created.
        mode: `wb`, or `w` for UTF-8 text.

    Raises:
        StorageError: the disk is full or the path cannot be written; any old file at `path` is untouched.
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


def write_json(path: str | os.PathLike[str], data: Mapping[str, Any], *, kind: str, version: int) -> Path:
    """Write a JSON object with kind, version and checksum under the key `ov3d`; returns the path."""
    body = json.dumps(data, indent=2, sort_keys=True, allow_nan=False)
    stamp = {"kind": kind, "version": version, "xxh3_128": _hash_bytes(body.encode())}
    return write_text(path, json.dumps({"ov3d": stamp, "data": json.loads(body)}, indent=2, sort_keys=True) + "\n")


def read_json(path: str | os.PathLike[str], *, kind: str, version: int) -> dict[str, Any]:
    """Read and verify a file written by `write_json`; raises like `tensor_files.read_tensors`."""
    source = existing_file(path, kind)
    try:
        document = json.loads(source.read_text(encoding="utf-8"))
        stamp, data = document["ov3d"], document["data"]
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(source, kind, "it is not a complete ov3d JSON file") from error
    check_stamp(source, kind, version, stamp.get("kind"), stamp.get("version"))
    body = json.dumps(data, indent=2, sort_keys=True, allow_nan=False)
    if stamp.get("xxh3_128") != _hash_bytes(body.encode()):
        raise damaged(source, kind, "its checksum does not match its content")
    return cast("dict[str, Any]", data)


def cache_root() -> Path:
    """The folder for reproducible files: `$OV3D_CACHE`, else `$XDG_CACHE_HOME/ov3d`, else `~/.cache/ov3d`."""
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
    """The xxh3-128 of several strings, in hexadecimal; it depends on the boundaries between them."""
    return _hash_bytes(b"".join(len(part.encode()).to_bytes(8, "little") + part.encode() for part in parts))


def existing_file(path: str | os.PathLike[str], kind: str) -> Path:
    """The path, if the file exists.

    Raises:
        DataError: it does not.
    """
    source = Path(path)
    if not source.is_file():
        raise DataError(f"The {kind} file {source} does not exist.", "Check the path.")
    return source


def check_stamp(source: Path, kind: str, version: int, found_kind: str | None, found_version: str | int | None) -> None:
    """Check a file's stated kind and version.

    Raises:
        DataError: another kind, or not written by ov3d.
        NewerFormatError: newer than `version`, the newest that the caller understands.
    """
    if found_kind != kind:
        found = f"a {found_kind} file" if found_kind else "not an ov3d file"
        raise DataError(f"Expected a {kind} file, but {source} is {found}.", "Check the path.")
    if found_version is None or int(found_version) > version:
        raise NewerFormatError(
            f"{source} is a {kind} file of version {found_version}; this ov3d reads up to version {version}.",
            "Upgrade ov3d: pip install -U ov3d",
        )


def damaged(source: Path, kind: str, why: str) -> CorruptFileError:
    """The error for a file whose content has changed since it was written."""
    return CorruptFileError(f"The {kind} file {source} is damaged: {why}.", "Delete it and create it again.")


def _hash_bytes(data: bytes) -> str:
    import xxhash

    return xxhash.xxh3_128_hexdigest(data)


@contextlib.contextmanager
def _storage_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _storage_error(target, error) from error


def _storage_error(target: Path, error: OSError) -> Ov3dError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            f"The disk is full: {target} was not written.", "Free some space and run the command again."
        )
    return StorageError(f"{target} cannot be written: {error.strerror or error}.", "Choose another path with -o.")


def _sync_folder(folder: Path) -> None:
    # A rename is durable only once its folder is synced; Windows cannot open folders, and does not need this.
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
