"""The words that a trained network is asked although its teacher never saw them: one a class, and frozen."""

from __future__ import annotations

from benchmarks.shared.synonyms import SYNONYMS
from ov3d.common.base.files import hash_text
from ov3d.common.worlds.rooms import CLASSES

FROZEN = "7e9f682fefb7f5a23cfe9c24f3fa8ae8"


def test_one_other_word_for_every_class() -> None:
    assert tuple(SYNONYMS) == CLASSES
    words = [word.casefold() for word in SYNONYMS.values()]
    assert len(set(words)) == len(words)
    assert not set(words) & {name.casefold() for name in CLASSES}


def test_the_list_is_what_it_was() -> None:
    """Scores were printed with it: a change of words is a change of the benchmark."""
    assert hash_text(*(part for pair in SYNONYMS.items() for part in pair)) == FROZEN
