"""A stated corruption of a teacher's labels, as it stands in the facts of an index and beside every result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CORRUPTION_FACT = "corruption"
"""The key in an index's facts: `level` (%), `seed`, and the shares of labelled pixels that each half changed."""


def corruption_note(facts: Mapping[str, Any]) -> str:
    """One line on the corruption that facts state; empty where they state none."""
    stated = facts.get(CORRUPTION_FACT)
    if not isinstance(stated, Mapping):
        return ""
    return (
        f"the teacher's labels were corrupted by {stated['level']} % (seed {stated['seed']}): "
        f"{100 * stated['independent']:.1f} % of the labelled pixels in single views, "
        f"{100 * stated['surface']:.1f} % bound to surfaces"
    )
