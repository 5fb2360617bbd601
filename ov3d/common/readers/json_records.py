"""Large JSON tables (a list of objects) read one object at a time, in bounded memory.

A reader wants a few of the millions of rows of a driving data set: nuScenes' `sample_data.json` has 2.6 million,
240,000 of them keyframes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ov3d.common.base.errors import DataError

CHUNK = 1 << 22
"""Characters that are read at a time; no object is longer."""

_BETWEEN = " \t\r\n,"


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a table, in order.

    Raises:
        DataError: the file is not there, or is not a list of objects.
    """
    decoder = json.JSONDecoder()
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(CHUNK).lstrip()
            if not text.startswith("["):
                raise _damaged(path, "it does not begin with [")
            place = 1
            while True:
                while place < len(text) and text[place] in _BETWEEN:
                    place += 1
                if place < len(text) and text[place] == "]":
                    return
                try:
                    record, place = decoder.raw_decode(text, place)
                except ValueError:
                    more = file.read(CHUNK) if len(text) - place < CHUNK else ""
                    if not more:
                        raise _damaged(path, "it is cut short or damaged") from None
                    text, place = text[place:] + more, 0
                    continue
                if not isinstance(record, dict):
                    raise _damaged(path, f"it holds a {type(record).__name__} in place of an object")
                yield record
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not JSON text"
        raise DataError(f"Table {path} cannot be read: {why}.", "Check the path, or download it again.") from None


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"Table {path} is not a list of JSON objects: {why}.", "Download it again.")
