"""Packs many small files of one encoder into shards of up to 64 MiB, each entry readable without the others.

Features are written one file per image, so that a killed run loses at most one image. Once there are enough files, they are
packed: the shard is written under a temporary name and renamed, and only then are the files deleted. A crash in between
duplicates an entry but never loses it; the single file wins. Entries are the files byte for byte, with their own checksums.

Layout: 8 bytes magic, 8 bytes length of the head (little endian), the head as JSON {"xxh3_128", "entries": {key: [offset,
length]}}, offsets counted from the end of the head. Damaged entries are listed in a `.damaged` file next to their shard and
no longer found, so that their images are encoded again.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ov3d.common.base.errors import CorruptFileError, DataError, NewerFormatError, StorageError
from ov3d.common.base.files import atomic_write, hash_text
from ov3d.common.base.tensor_files import parse_tensors

MAGIC = b"OV3DSH01"
FOLDER_NAME, ENDING, DAMAGED_ENDING = "shards", ".shard", ".damaged"

SHARD_BYTES = 64 << 20
"""Maximum size of a shard; packing holds only one file in memory."""
SHARD_ENTRIES = 8192
SMALL_BYTES = 4 << 20
"""Larger files are not packed, because they would not benefit."""
PACK_FILES = 512
"""Up to this many single files, and up to `SHARD_BYTES` of them, are not packed."""


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """The location of one packed file: shard, offset and size."""

    shard: Path
    offset: int
    length: int

    def read(self) -> bytes:
        """The bytes of the file that was packed.

        Raises:
            CorruptFileError: the shard is truncated.
        """
        with self.shard.open("rb") as stream:
            stream.seek(self.offset)
            data = stream.read(self.length)
        if len(data) != self.length:
            raise CorruptFileError(f"The shard {self.shard} is truncated.", "Run: ov3d cache verify")
        return data


class Shards:
    """The shards of one encoder's folder.

    Args:
        folder: the encoder's folder; shards are in its subfolder `shards`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._place = folder / FOLDER_NAME
        self._changed = -1
        self._entries: dict[str, ShardEntry] = {}

    def find(self, key: str) -> ShardEntry | None:
        """The entry of a key; includes shards added by other processes."""
        self._refresh()
        return self._entries.get(key)

    def entries(self) -> Iterator[tuple[str, ShardEntry]]:
        """All keys and entries, in the order of the keys."""
        self._refresh()
        yield from sorted(self._entries.items())

    def reject(self, key: str) -> None:
        """Mark the entry of a key as damaged, so that it is no longer found."""
        entry = self.find(key)
        if entry is not None:
            del self._entries[key]
            with (
                contextlib.suppress(OSError),
                entry.shard.with_suffix(DAMAGED_ENDING).open("a", encoding="ascii") as stream,
            ):
                stream.write(f"{key}\n")

    def pack(self, *, everything: bool = False) -> int:
        """Pack single files if there are enough; returns the number packed.

        Args:
            everything: pack even a few files.

        Raises:
            StorageError: a shard cannot be written; the single files stay.
        """
        found = [(path, path.stat().st_size) for path in sorted(self.folder.glob("??/*.safetensors"))]
        files = [(path, size) for path, size in found if size < SMALL_BYTES]
        if not everything and len(files) < PACK_FILES and sum(size for _, size in files) < SHARD_BYTES:
            return 0
        packed, batch, total = 0, list[Path](), 0
        for path, size in files:
            if batch and (total + size > SHARD_BYTES or len(batch) == SHARD_ENTRIES):
                packed += self._write(batch)
                batch, total = [], 0
            batch.append(path)
            total += size
        if batch and (everything or len(batch) >= PACK_FILES or total >= SHARD_BYTES // 2):
            packed += self._write(batch)
        return packed

    def _write(self, paths: list[Path]) -> int:
        """Write one shard of intact files; the files are deleted once it is on disk."""
        whole, sizes = [], []
        for path in paths:
            with contextlib.suppress(FileNotFoundError, CorruptFileError, DataError, NewerFormatError):
                data = path.read_bytes()
                parse_tensors(data, path)  # damaged files must not be packed: they are reported and recomputed
                whole.append(path)
                sizes.append(len(data))
        if not whole:
            return 0
        entries, offset = {}, 0
        for path, size in zip(whole, sizes, strict=True):
            entries[path.stem] = [offset, size]
            offset += size
        text = json.dumps(entries, separators=(",", ":"), sort_keys=True)
        head = json.dumps(
            {"xxh3_128": hash_text(text), "entries": entries}, separators=(",", ":"), sort_keys=True
        ).encode()
        with atomic_write(self._place / f"{hash_text(text)}{ENDING}") as stream:
            stream.write(MAGIC + len(head).to_bytes(8, "little") + head)
            for path, size in zip(whole, sizes, strict=True):
                data = path.read_bytes()
                if len(data) != size:
                    raise StorageError(f"{path} changed while it was packed.", "Run it again.")
                stream.write(data)
        for path in whole:
            with contextlib.suppress(OSError):
                path.unlink()
        self._changed = -1
        return len(whole)

    def _refresh(self) -> None:
        try:
            changed = self._place.stat().st_mtime_ns
        except OSError:
            changed = -1
        if changed == self._changed:
            return
        self._entries = {}
        for path in sorted(self._place.glob(f"*{ENDING}")) if changed >= 0 else []:
            with contextlib.suppress(OSError, CorruptFileError):
                self._entries |= read_head(path)
        self._changed = changed


def read_head(path: Path) -> dict[str, ShardEntry]:
    """Keys and entries of a shard, without those known as damaged.

    Raises:
        CorruptFileError: the head is damaged.
    """
    with path.open("rb") as stream:
        start = stream.read(16)
        length = int.from_bytes(start[8:], "little")
        head = stream.read(length) if start[:8] == MAGIC and length <= os.fstat(stream.fileno()).st_size else b""
    try:
        document = json.loads(head)
        text = json.dumps(document["entries"], separators=(",", ":"), sort_keys=True)
        if document["xxh3_128"] != hash_text(text):
            raise ValueError
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFileError(f"The head of shard {path} is damaged.", "Delete it, and extract again.") from error
    damaged = set[str]()
    with contextlib.suppress(OSError):
        damaged = set(path.with_suffix(DAMAGED_ENDING).read_text(encoding="ascii").split())
    base = 16 + len(head)
    return {
        key: ShardEntry(path, base + offset, size)
        for key, (offset, size) in document["entries"].items()
        if key not in damaged
    }
