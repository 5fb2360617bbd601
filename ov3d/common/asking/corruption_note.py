"""The stated corruption of a teacher's labels, as stored in the facts of an index and shown with every result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CORRUPTION_FACT = "corruption"
"""The key in an index's facts; its values: `level` (%), `seed`, and the share of labelled pixels changed by each half."""


def corruption_note(facts: Mapping[str, Any]) -> str:
    """One line about the corruption in the facts; empty without corruption."""
    stated = facts.get(CORRUPTION_FACT)
    if not isinstance(stated, Mapping):
        return ""
    return (
        f"the teacher's labels were corrupted by {stated['level']} % (seed {stated['seed']}): "
        f"{100 * stated['independent']:.1f} % of the labelled pixels in single views, "
        f"{100 * stated['surface']:.1f} % bound to surfaces"
    )
