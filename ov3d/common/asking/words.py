"""The words that points are labelled with, a run's own classes or any others, and their vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ov3d.common.asking.ask import text_vector
from ov3d.common.asking.prompt import clean_prompt
from ov3d.common.base.errors import UsageError, did_you_mean
from ov3d.common.base.shapes import Array, Float32
from ov3d.common.language.text_cache import TextCache, encode_prompts

if TYPE_CHECKING:
    from ov3d.common.language.cards import EncoderCard, TextEncoder

NO_LABEL = 65535
"""The label of unlabelled points; other labels are 16-bit numbers of words."""


@dataclass(frozen=True, slots=True)
class Words:
    """The words that a scan is labelled with.

    Attributes:
        prompts: in the order of the labels' numbers.
        outside: words that the run was not trained with.
        whole: whether they are its whole vocabulary; then every point gets one of them without a threshold.
    """

    prompts: tuple[str, ...]
    outside: tuple[str, ...] = ()
    whole: bool = False


def words_of(vocabulary: tuple[str, ...], classes: Sequence[str], prompts: Sequence[str]) -> Words:
    """The words to use, from what the user typed.

    Args:
        vocabulary: the classes that the run was trained with.
        classes: names from it; without classes and prompts, all of it.
        prompts: any words to use instead of classes.

    Raises:
        UsageError: both were given, a class is unknown, a name occurs twice or is empty.
    """
    if classes and prompts:
        raise UsageError("--classes and --prompts cannot be combined.", "Give known classes as prompts, too.")
    known = {name.casefold(): name for name in vocabulary}
    if not classes and not prompts:
        if not known:
            raise UsageError("The run's network has no vocabulary of its own.", "Name what to look for: --prompts a,b")
        return Words(vocabulary, whole=True)
    asked = tuple(known.get(clean_prompt(name).casefold(), clean_prompt(name)) for name in (*classes, *prompts))
    for number, name in enumerate(asked):
        if name in asked[:number]:
            raise UsageError(f"{name!r} is named twice.", "Name it once.")
        if classes and name.casefold() not in known:
            hint = f"{did_you_mean(name, vocabulary)} Any other words: --prompts"
            raise UsageError(f"{name!r} is not a class of this run.", hint)
    if len(asked) >= NO_LABEL:
        raise UsageError(f"{len(asked):,} prompts are too many for 16-bit labels.", "Use fewer.")
    outside = tuple(name for name in asked if name.casefold() not in known)
    return Words(asked, outside, whole=not outside and len(asked) == len(known))


def word_vectors(
    card: EncoderCard, words: Words, *, device: str = "auto", say: Callable[[str], None] = lambda line: None
) -> Float32[Array, "k d"]:
    """Unit vectors of words: classes encoded as in training, other words as in `ov3d query`.

    Args:
        card: of the encoder whose space the run's vectors are in.
        words: from `words_of`.
        device: device of the text encoder, if a word is not in the text cache.
        say: receives messages of the text cache, and which words of a prompt the encoder ignores.
    """

    def make_encoder() -> TextEncoder:
        from ov3d.common.base.device import pick_device
        from ov3d.common.encoders import create_text_encoder

        return create_text_encoder(card.spec, device=pick_device(device))

    vectors = np.empty((len(words.prompts), card.dim), np.float32)
    trained = [number for number, name in enumerate(words.prompts) if name not in words.outside]
    if trained:
        names = [clean_prompt(words.prompts[number]) for number in trained]
        vectors[trained] = encode_prompts(card, names, TextCache(say=say), make_encoder, say=say)
    for number, name in enumerate(words.prompts):
        if name in words.outside:
            vectors[number], ignored = text_vector(card, name, device=device, say=say)
            if ignored:
                say(f"Ignored, because the encoder {card.spec} cannot see it: {', '.join(ignored)}.")
    return vectors
