"""Help, messages and docstrings in plain English: phrases that nobody would say aloud are banned.

Each pattern stands for a habit that crept in and was cleaned up once; the list is where the next one goes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "ov3d").rglob("*.py"))
DOCS = sorted(
    [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", *(ROOT / "tests" / "cli" / "snapshots").glob("*.txt")]
)

COUNTED = (
    "scene|view|photograph|image|frame|file|folder|line|row|column|class|prompt|word|point|pixel|voxel|ray|step|batch|"
    "sweep|scan|run|stage|query|second|minute|command|encoder|key|value|level|side|axis|level|block|entry|crop|patch"
)
"""What is counted: "one file per scene", never "a file a scene"."""

BANNED = {
    rf"\b(?:an?|one|two|three|\d+|the|all|each|every|more|bytes|values|numbers|rows?|columns?|files?|labels?|scores?|ids?|"
    rf"colours?|samples?|units?|masks?|images?|words?|seconds?|names?|points?|vectors?|indexes|features?) a (?:{COUNTED})\b"
    r"(?!-)": "say `per`: one file per scene",
    r"(?<!here )\bis no (?!longer\b|more\b|better\b|larger\b|smaller\b|wider\b|other\b|way\b|need\b|point in\b)"
    r"[a-z]+": "say `is not`",
    r"(?<!here )\bare no (?!longer\b|more\b|better\b)[a-z]+": "say `are not`",
    r"\bnone (?:takes|lets|keeps|leaves|detects|makes|gives|chooses|has|where|draws|starts|lifts)\b": "say what None does",
    r"\bis said\b|\bare said\b": "say who reports it, and where",
    r"\bgone? on (?:with|from)\b|\bgoing on (?:with|from)\b|\bgoes on (?:with|from)\b": "say `resume`",
    r"\bcannot be\.|\bcan't be\.": "say what the value must be",
    r"\bhears\b": "say `is told` or `receives`",
    r"\bNothing there is an answer\b": "Finding nothing is a valid answer (exit code 0)",
    r"\band do nothing\b": "say `then exit`",
    r"\bthere is none\b(?! )": "say what is missing",
}
"""Patterns of phrases, and what to write in their place."""

ALLOWED: dict[str, tuple[str, ...]] = {
    "docs/protocols.md": ("score a run",),
    "ov3d/cli/eval.py": ("score a run", "point a class"),
    "ov3d/common/exporters/labels.py": ("names a folder", "point a class"),
}
"""Texts that a pattern meets by chance, by file."""


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers and texts that people read: docstrings (of fields too), and every sentence in a string."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "X" for part in node.values]
            yield node.lineno, "".join(str(part) for part in parts)


def offences(text: str) -> Iterator[tuple[str, str]]:
    """The banned phrases of a text, with what to write instead."""
    flat = " ".join(text.split())
    for pattern, instead in BANNED.items():
        for match in re.finditer(pattern, flat):
            yield match.group(0), instead


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sources_read_aloud(path: Path) -> None:
    allowed = ALLOWED.get(str(path.relative_to(ROOT)), ())
    found = {
        f"line {line}: {phrase!r}: {instead}"
        for line, text in texts_of(path)
        for phrase, instead in offences(text)
        if phrase not in allowed
    }
    assert not found, "\n".join(sorted(found))


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_help_and_docs_read_aloud(path: Path) -> None:
    allowed = ALLOWED.get(str(path.relative_to(ROOT)), ())
    found = [hit for hit in offences(path.read_text(encoding="utf-8")) if hit[0] not in allowed]
    assert not found, "\n".join(f"{phrase!r}: {instead}" for phrase, instead in found)


@pytest.mark.parametrize(
    "text",
    [
        "Threshold 3 is no cosine",
        "Writes a file a scene",
        "one row a point",
        "hears how far it is",
        "none takes the encoder's own",
        "A run that is gone on with",
        "A voxel of -1 m cannot be.",
    ],
)
def test_the_ban_bites(text: str) -> None:
    assert list(offences(text))
