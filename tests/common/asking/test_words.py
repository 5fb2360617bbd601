"""What a scan is asked for: known classes or any words, each once, with the vectors that the text cache has."""

from __future__ import annotations

import numpy as np
import pytest

from ov3d.common.asking.words import NO_LABEL, Words, word_vectors, words_of
from ov3d.common.base.errors import UsageError
from tests.points.networks import CARD, VOCABULARY, remember, text_vectors


def test_without_words_the_whole_vocabulary_is_asked_for() -> None:
    assert words_of(VOCABULARY, (), ()) == Words(VOCABULARY, whole=True)
    assert words_of(VOCABULARY, ("Chair", "floor", "WALL"), ()) == Words(("chair", "floor", "wall"), whole=True)


def test_words_outside_the_vocabulary_are_known_as_such() -> None:
    assert words_of(VOCABULARY, ("chair",), ()) == Words(("chair",))
    assert words_of(VOCABULARY, (), ("Chair", " blue  seat ")) == Words(("chair", "blue seat"), ("blue seat",))


@pytest.mark.parametrize(
    ("classes", "prompts", "message"),
    [
        (("chiar",), (), "'chiar' is not a class of this run. Did you mean chair"),
        (("chair",), ("seat",), "cannot be combined"),
        (("chair", "CHAIR"), (), "'chair' is named twice"),
        ((), (" ",), "prompt is empty"),
        ((), tuple(map(str, range(NO_LABEL))), "65,535 prompts are too many for 16-bit labels"),
    ],
)
def test_words_that_cannot_be(classes: tuple[str, ...], prompts: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        words_of(VOCABULARY, classes, prompts)


def test_without_a_vocabulary_words_must_be_given() -> None:
    with pytest.raises(UsageError, match="--prompts"):
        words_of((), (), ())
    assert words_of((), (), ("seat",)).outside == ("seat",)


def test_vectors_come_from_the_cache_in_the_order_of_the_words() -> None:
    remember(*VOCABULARY, "blue seat")
    found = word_vectors(CARD, words_of(VOCABULARY, (), ("blue seat", "floor", "wall")))
    assert np.array_equal(found, text_vectors("blue seat", "floor", "wall"))
