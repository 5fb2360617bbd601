"""The contents of the feature cache by encoder, and what may be deleted.

Files are selected by folder, size and modification time, without opening them. Unfinished runs still need the features of
their photographs. Finished runs have their own lifted features for queries and further training.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ov3d.common.base.errors import DataError, StorageError, UsageError, did_you_mean
from ov3d.common.base.runs import MANIFEST_NAME, outputs_root
from ov3d.common.features.layout import default_root, family_name
from ov3d.common.features.shards import ENDING, FOLDER_NAME

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", re.IGNORECASE)
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([hdw])", re.IGNORECASE)
_HOURS = {"h": 1, "d": 24, "w": 168}


@dataclass(frozen=True, slots=True)
class CachedFile:
    """One file of the cache: path, size in bytes and modification time (seconds since 1970)."""

    path: Path
    size: int
    written: float


@dataclass(frozen=True, slots=True)
class EncoderFolder:
    """The features of one encoder.

    Attributes:
        name: name of the folder: the encoder's spec and the first digits of its identity.
        files: files, oldest first.
    """

    name: str
    files: tuple[CachedFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form."""
        times = [file.written for file in self.files]
        return {
            "encoder": self.name,
            "files": len(self.files),
            "bytes": self.size,
            "oldest": min(times, default=None),
            "newest": max(times, default=None),
        }


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """The files that pruning deletes.

    Attributes:
        root: the folder of features.
        files: the files to delete.
        unfinished: runs without a manifest whose encoder loses files: resuming them encodes photographs again.
        finished: finished runs of such an encoder: they can be queried, but `ov3d eval` can no longer score photographs.
    """

    root: Path
    files: tuple[CachedFile, ...]
    unfinished: tuple[Path, ...] = ()
    finished: tuple[Path, ...] = field(default=())

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {
            "root": str(self.root),
            "files": len(self.files),
            "bytes": self.size,
            "unfinished_runs": [str(path) for path in self.unfinished],
            "finished_runs": [str(path) for path in self.finished],
        }


def list_cache(root: Path | None = None) -> list[EncoderFolder]:
    """The folders of the cache, one per encoder, by name; `root` is `features` in ov3d's cache by default."""
    root = root if root is not None else default_root()
    folders = []
    for folder in sorted(path for path in root.glob("*") if path.is_dir()):
        files = []
        for path in (*folder.glob("??/*.safetensors"), *folder.glob(f"{FOLDER_NAME}/*{ENDING}")):
            with contextlib.suppress(FileNotFoundError):  # another process may be pruning
                stat = path.stat()
                files.append(CachedFile(path, stat.st_size, stat.st_mtime))
        folders.append(EncoderFolder(folder.name, tuple(sorted(files, key=lambda file: (file.written, file.path)))))
    return folders


def plan_prune(
    *,
    root: Path | None = None,
    older_than: float | None = None,
    max_bytes: int | None = None,
    encoder: str | None = None,
    outputs: Path | None = None,
    now: float | None = None,
) -> PrunePlan:
    """Select files to delete: by encoder, by age, and the oldest until the rest is small enough.

    Args:
        root: the folder of features.
        older_than: minimum age in seconds; None for any age.
        max_bytes: maximum remaining size of the encoder's files, or of all files; None for no limit.
        encoder: an encoder's spec or folder; None for all.
        outputs: folder of runs.
        now: current time, seconds since 1970; None uses the clock.

    Raises:
        UsageError: no filter was given, or no such encoder.
    """
    if older_than is None and max_bytes is None and encoder is None:
        raise UsageError("Nothing to delete was specified.", "Add --encoder, --older-than or --max-size.")
    root = root if root is not None else default_root()
    folders = list_cache(root)
    if encoder is not None:
        names = [folder.name for folder in folders]
        folders = [one for one in folders if encoder == one.name or one.name.rpartition("-")[0] == family_name(encoder)]
        if not folders:
            raise UsageError(f"The cache has no features of {encoder!r}.", did_you_mean(encoder, names))
    files = sorted((file for folder in folders for file in folder.files), key=lambda file: (file.written, file.path))
    before = (time.time() if now is None else now) - (older_than or 0)
    chosen = files if max_bytes is None else files[: _surplus(files, max_bytes)]
    if older_than is not None:
        chosen = [file for file in chosen if file.written < before]
    losing = {file.path.parents[1].name.rpartition("-")[0] for file in chosen}
    unfinished, finished = _runs_of(losing, outputs)
    return PrunePlan(root, tuple(chosen), unfinished, finished)


def prune(plan: PrunePlan, *, force: bool = False) -> None:
    """Delete the files of a plan.

    Raises:
        DataError: unfinished runs need some of them, and `force` is false.
        StorageError: a file cannot be deleted.
    """
    if plan.unfinished and not force:
        runs = ", ".join(map(str, plan.unfinished[:3])) + (", ..." if len(plan.unfinished) > 3 else "")
        raise DataError(
            f"{len(plan.unfinished)} unfinished runs may need the features to be deleted: {runs}.",
            "Finish them (ov3d train ... --resume RUN), or delete anyway with --force.",
        )
    for file in plan.files:
        try:
            file.path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(
                f"Cannot delete {file.path}: {error.strerror}.", "Check the permissions of its folder."
            ) from None
        with contextlib.suppress(OSError):  # it still has files
            file.path.parent.rmdir()


def parse_size(text: str) -> int:
    """Parse a size like `500MB` or `2.5 GB` (powers of 1000) into bytes."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"--max-size must be a size such as 500MB or 20GB, got {text!r}.")
    return int(float(found[1]) * 1000 ** " kmgt".index(found[2].lower() or " "))


def parse_age(text: str) -> float:
    """Parse an age like `12h`, `30d` or `2w` into seconds."""
    found = _AGE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"--older-than must be an age such as 12h, 30d or 2w, got {text!r}.")
    return float(found[1]) * 3600 * _HOURS[found[2].lower()]


def _surplus(files: Sequence[CachedFile], max_bytes: int) -> int:
    """Number of leading files to delete for the rest to fit."""
    total = sum(file.size for file in files)
    for number, file in enumerate(files):
        if total <= max_bytes:
            return number
        total -= file.size
    return len(files)


def _runs_of(families: set[str], outputs: Path | None) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Unfinished and finished runs with one of these encoders."""
    import yaml

    runs: tuple[list[Path], list[Path]] = ([], [])
    for path in sorted(outputs_root(outputs).rglob("config.yaml")):
        try:
            settings = yaml.safe_load(path.read_text(encoding="utf-8"))
            encoder = str(settings["encoder"])
        except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
            continue  # not a run
        if any(family.startswith(family_name(encoder)) for family in families):
            runs[(path.parent / MANIFEST_NAME).is_file()].append(path.parent)
    return tuple(runs[0]), tuple(runs[1])
