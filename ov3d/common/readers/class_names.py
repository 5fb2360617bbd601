"""Names of class ids from a text file with one name per line: line i names id i."""

from __future__ import annotations

from pathlib import Path

from ov3d.common.base.errors import DataError


def read_classes(path: Path) -> tuple[str, ...]:
    """Names of class ids, one per line of a text file; empty if the file does not exist."""
    if not path.is_file():
        return ()
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        raise DataError(f"{path} cannot be read.", "It should be plain text with one class name per line.") from None
    while names and not names[-1]:
        names.pop()
    seen: dict[str, int] = {}
    for number, name in enumerate(names):
        if not name:
            raise DataError(
                f"Line {number + 1} of {path} is empty.", f"Line i names class id i: name class id {number} there."
            )
        if name in seen:
            raise DataError(f"{path} names {name!r} twice (lines {seen[name] + 1} and {number + 1}).", "Rename one.")
        seen[name] = number
    return tuple(names)
