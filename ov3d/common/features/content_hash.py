"""The content hash of an image file, cached by its path, size and modification time.

The cache is an SQLite file next to the features. It only saves time: if a row does not match its own check value, or the file
is damaged or locked, the image is hashed again.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ov3d.common.base.errors import DataError
from ov3d.common.base.files import hash_file, hash_text

SETTLED_NS = 2_000_000_000
"""Hashes of files changed more recently than this are not cached: the file could change again within one tick of its file
system's clock, without a visible change of time."""


_TABLE = """CREATE TABLE IF NOT EXISTS images
    (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, hash TEXT, check_value TEXT)"""


class ContentHasher:
    """Hashes image files, once per change.

    Args:
        memo_path: the SQLite file of the cache.
    """

    def __init__(self, memo_path: Path) -> None:
        self._memo_path = memo_path
        self._known: dict[str, tuple[int, int, str]] = {}
        self._lock = threading.Lock()
        self._memo: sqlite3.Connection | None = None
        self._owner = 0

    def hash(self, path: Path, *, refresh: bool = False) -> str:
        """The xxh3-128 of the file's bytes, in hexadecimal.

        Args:
            path: the image.
            refresh: read the file even if its hash is cached.

        Raises:
            DataError: no such file, or it cannot be read.
        """
        name = str(path.absolute())
        try:
            stat = path.stat()
            if not refresh:
                known = self._known.get(name) or self._recall(name)
                if known is not None and known[:2] == (stat.st_size, stat.st_mtime_ns):
                    self._known[name] = known
                    return known[2]
            digest = hash_file(path)
        except FileNotFoundError:
            raise DataError(f"No image at {path}.", "Restore it, or remove its pose.") from None
        except OSError as error:
            raise DataError(f"Image {path} cannot be read: {error.strerror or error}.", "Replace the file.") from None
        if time.time_ns() - stat.st_mtime_ns > SETTLED_NS:
            self._known[name] = (stat.st_size, stat.st_mtime_ns, digest)
            self._remember(name, *self._known[name])
        return digest

    def _recall(self, name: str) -> tuple[int, int, str] | None:
        query = "SELECT size, mtime_ns, hash, check_value FROM images WHERE path = ?"
        row = self._with_memo(lambda memo: memo.execute(query, (name,)).fetchone())
        if row is not None and row[3] == hash_text(name, *map(str, row[:3])):
            return int(row[0]), int(row[1]), str(row[2])
        return None

    def _remember(self, name: str, size: int, mtime_ns: int, digest: str) -> None:
        row = (name, size, mtime_ns, digest, hash_text(name, str(size), str(mtime_ns), digest))
        self._with_memo(lambda memo: memo.execute("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?)", row))

    def _with_memo(self, use: Callable[[sqlite3.Connection], Any]) -> Any:
        """The result of `use` in a transaction, or None if the cache is unusable; a damaged file is removed."""
        with self._lock:
            try:
                memo = self._opened()
                with memo:
                    return use(memo)
            except (sqlite3.OperationalError, OSError):
                self._close()
                return None  # locked by a slow process, full disk, unwritable folder
            except sqlite3.DatabaseError:
                self._close()
                with contextlib.suppress(OSError):
                    self._memo_path.unlink(missing_ok=True)
                return None

    def _opened(self) -> sqlite3.Connection:
        """The connection, kept open because opening takes longer than a query."""
        if self._memo is None or self._owner != os.getpid():
            self._memo_path.parent.mkdir(parents=True, exist_ok=True)
            self._memo, self._owner = (
                sqlite3.connect(self._memo_path, timeout=5.0, check_same_thread=False),
                os.getpid(),
            )
            # Rows lost in a power cut are hashed again; SQLite's journal rolls back interrupted writes.
            self._memo.execute("PRAGMA synchronous = OFF")
            self._memo.execute(_TABLE)
        return self._memo

    def _close(self) -> None:
        if self._memo is not None and self._owner == os.getpid():
            with contextlib.suppress(sqlite3.Error):
                self._memo.close()
        self._memo = None

    def __del__(self) -> None:
        self._close()
