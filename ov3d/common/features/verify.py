"""Does the feature cache still hold what was written to it, and are its images still those it was made from?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ov3d.common import files
from ov3d.common.errors import CorruptFileError, DataError
from ov3d.common.features.content_hash import ContentHasher
from ov3d.common.features.layout import CROPS_KIND, MEMO_NAME, SEGMENTS_KIND, TOKENS_KIND, VERSION, default_root
from ov3d.common.progress import Progress, Silent


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify_cache` found.

    Attributes:
        root: the folder that was looked through.
        num_files, num_bytes: how many feature files there are, and their size.
        damaged: files that were cut or changed.
        outdated: files whose image has other content now: they are not used for it any more.
        orphaned: files whose image is gone from where it was.
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
    """Check every feature file's checksum, and hash again every image that one names.

    Hashing again also corrects the memory of image hashes, where an image was changed without a trace in size and time.

    Args:
        root: the folder of all stores; none is `features` in ov3d's cache.
        progress: told about each file.

    Raises:
        NewerFormatError: a file was written by a newer ov3d.
    """
    root = Path(root) if root is not None else default_root()
    hasher = ContentHasher(root / MEMO_NAME)
    paths = sorted(root.glob("*/*/*.safetensors"))
    found: dict[str, list[Path]] = {"damaged": [], "outdated": [], "orphaned": []}
    hashes: dict[Path, str] = {}
    num_bytes = 0
    with (progress or Silent()).task("Verifying features", len(paths)) as task:
        for path in paths:
            num_bytes += path.stat().st_size
            fault = _fault(path, hasher, hashes)
            if fault:
                found[fault].append(path)
            task.advance(1)
    return VerifyReport(root, len(paths), num_bytes, *(tuple(found[name]) for name in found))


def _fault(path: Path, hasher: ContentHasher, hashes: dict[Path, str]) -> str:
    try:
        metadata = _metadata(path)
    except (CorruptFileError, DataError):  # a header that names no kind of ours is damage as well
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
            return files.read_tensors(path, kind=kind, version=VERSION).metadata
        except DataError:  # it is of another kind
            continue
    return files.read_tensors(path, kind=SEGMENTS_KIND, version=VERSION).metadata
