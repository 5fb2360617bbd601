"""Checks the feature cache for damaged files, and for images that have changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ov3d.common.base import tensor_files
from ov3d.common.base.errors import CorruptFileError, DataError
from ov3d.common.base.progress import Progress, Silent
from ov3d.common.features.content_hash import ContentHasher
from ov3d.common.features.layout import CROPS_KIND, MEMO_NAME, SEGMENTS_KIND, TOKENS_KIND, VERSION, default_root
from ov3d.common.features.shards import ENDING, FOLDER_NAME, ShardEntry, Shards, read_head


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The results of `verify_cache`.

    Attributes:
        root: the folder that was checked.
        num_files, num_bytes: number and total size of feature files.
        damaged: truncated or changed files; SHARD/KEY for a packed entry, which is no longer found from now on.
        outdated: files whose image has changed: they are no longer used for it.
        orphaned: files whose image no longer exists.
    """

    root: Path
    num_files: int
    num_bytes: int
    damaged: tuple[Path, ...]
    outdated: tuple[Path, ...]
    orphaned: tuple[Path, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form."""
        lists = {name: [str(path) for path in getattr(self, name)] for name in ("damaged", "outdated", "orphaned")}
        return {**asdict(self), "root": str(self.root), **lists}


def verify_cache(root: Path | None = None, *, progress: Progress | None = None) -> VerifyReport:
    """Check the checksum of every feature file, and hash its image again.

    This also corrects cached image hashes if an image changed without a change of size and time.

    Args:
        root: the folder of all stores; None uses `features` in ov3d's cache.
        progress: advanced once per file.

    Raises:
        NewerFormatError: a file was written by a newer ov3d.
    """
    root = Path(root) if root is not None else default_root()
    hasher = ContentHasher(root / MEMO_NAME)
    found: dict[str, list[Path]] = {"damaged": [], "outdated": [], "orphaned": []}
    hashes: dict[Path, str] = {}
    num_files = num_bytes = 0
    shards = sorted(root.glob(f"*/{FOLDER_NAME}/*{ENDING}"))
    paths = sorted(root.glob("*/??/*.safetensors"))
    with (progress or Silent()).task("Verifying features", len(paths) + len(shards)) as task:
        for path in paths:
            num_files, num_bytes = num_files + 1, num_bytes + path.stat().st_size
            fault = _fault(partial(_metadata, path), hasher, hashes)
            if fault:
                found[fault].append(path)
            task.advance(1)
        for shard in shards:
            num_bytes += shard.stat().st_size
            entries = _entries(shard, found["damaged"])
            num_files += len(entries)
            for key, entry in entries.items():
                fault = _fault(partial(_packed_metadata, entry), hasher, hashes)
                if fault:
                    found[fault].append(shard / key)
                if fault == "damaged":
                    Shards(shard.parents[1]).reject(key)
            task.advance(1)
    return VerifyReport(root, num_files, num_bytes, *(tuple(found[name]) for name in found))


def _entries(shard: Path, damaged: list[Path]) -> dict[str, ShardEntry]:
    try:
        return read_head(shard)
    except CorruptFileError:
        damaged.append(shard)
        return {}


def _packed_metadata(entry: ShardEntry) -> dict[str, Any]:
    return tensor_files.parse_tensors(entry.read(), entry.shard).metadata


def _fault(read: Callable[[], dict[str, Any]], hasher: ContentHasher, hashes: dict[Path, str]) -> str:
    try:
        metadata = read()
    except (CorruptFileError, DataError):  # an unknown kind in the header is damage, too
        return "damaged"
    image = Path(metadata["image"])
    if image not in hashes:
        try:
            hashes[image] = hasher.hash(image, refresh=True)
        except DataError:
            hashes[image] = ""
    if not hashes[image]:
        return "orphaned"
    return "" if hashes[image] == metadata["image_hash"] else "outdated"


def _metadata(path: Path) -> dict[str, Any]:
    for kind in (CROPS_KIND, TOKENS_KIND):
        try:
            return tensor_files.read_tensors(path, kind=kind, version=VERSION).metadata
        except DataError:  # it is of another kind
            continue
    return tensor_files.read_tensors(path, kind=SEGMENTS_KIND, version=VERSION).metadata
