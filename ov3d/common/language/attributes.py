"""Separates words for colour, size, material, shape and state from the thing they describe.

An encoder that only knows kinds of things (`EncoderCard.knows_attributes` is false) cannot distinguish a red chair from a
blue one. Such words are removed from its prompts and reported to the user as ignored. They are kept if they are part of a
thing's name (`red panda`, `stone wall`) or are the thing (`an orange`, `a glass of water`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_COLOURS = _words(
    "red orange yellow green blue purple violet pink brown black white grey gray beige golden gold silver cyan magenta "
    "turquoise crimson scarlet maroon navy teal tan ivory colourful colorful multicoloured multicolored"
)
_SHADES = _words("dark light bright pale deep vivid")
_SIZES = _words(
    "small big large tiny huge little tall short long wide narrow thick thin giant enormous miniature medium-sized"
)
_MATERIALS = _words(
    "wooden wood metal metallic plastic glass leather steel iron stone concrete brick marble ceramic paper cardboard "
    "fabric cotton wool woollen woolen silk rubber velvet bronze brass copper wicker"
)
_SHAPES = _words("round square rectangular circular oval triangular hexagonal flat curved straight")
_STATES = _words(
    "old new shiny striped spotted dotted checkered checked plain smooth rough soft transparent clean dirty"
)
ATTRIBUTES = _COLOURS | _SIZES | _MATERIALS | _SHAPES | _STATES
"""Words that are attributes before any thing; shades (`dark`, `light`) only before a colour."""

# Attributes that are also things, if nothing follows for them to describe.
_ALSO_THINGS = _words(
    "orange gold silver violet ivory wood metal plastic glass leather steel iron stone concrete brick marble paper "
    "cardboard fabric cotton wool silk rubber velvet bronze brass copper square"
)

# Names of kinds of things that begin with an attribute: from ImageNet's classes, then some everyday ones.
_COMPOUNDS_BY_LINE = (
    "american black bear, black and gold garden spider, black bear, black grouse, black stork, black swan, black widow",
    "blue jean, brown bear, dark glasses, giant lizard, giant panda, giant schnauzer, golden retriever, gray fox",
    "gray whale, gray wolf, great gray owl, great grey owl, great white heron, great white shark, green lizard",
    "green mamba, green snake, grey fox, grey whale, grey wolf, kerry blue terrier, little blue heron, red fox",
    "miniature pinscher, miniature poodle, miniature schnauzer, old english sheepdog, paper knife, paper towel",
    "plastic bag, red panda, red setter, red wine, red wolf, rubber eraser, silver salmon, spotted salamander",
    "steel arch bridge, steel drum, stone wall, west highland white terrier, white fox, white shark, white stork",
    "white wolf, wood rabbit, wooden spoon, yellow lady's slipper, yellow lady-slipper",
    "big wheel, black board, black hole, brass band, brick wall, flat iron, glass house, gold fish, green house, green tea",
    "metal detector, orange juice, orange tree, paper clip, paper plane, pink flamingo, red carpet, red cross",
    "rubber duck, rubber plant, silver birch, soft drink, soft toy, white wine, wood burner, wood stove",
)
COMPOUNDS = tuple(compound for line in _COMPOUNDS_BY_LINE for compound in line.split(", "))
"""Names whose attribute belongs to the thing."""

_DEGREES = _words("very quite rather really")
_JOINERS = _words("and or but") | _DEGREES
_COPULAS = _words("is are was were looks being")
_RELATIVES = _words("that which who")
_ARTICLES = _words("a an the")
_NO_THING = _ARTICLES | _JOINERS | _COPULAS | {""}
_PREPOSITIONS = _words(
    "of on in at by with without under over near beside behind above below from to for made next between against"
)
_AFTER_A_THING = _COPULAS | _RELATIVES | _PREPOSITIONS


def split_attributes(prompt: str) -> tuple[str, tuple[str, ...]]:
    """Remove the words that an encoder of kinds only cannot see.

    Args:
        prompt: a noun phrase or a short sentence.

    Returns:
        The remaining prompt, `a chair` for `a red chair`, and the removed words in order, lower case. A prompt without such
        words, or that would have no thing left, is returned unchanged with no words.
    """
    words = prompt.split()
    bare = [_bare(word) for word in words]
    dropped = _made_of(bare) | _predicates(bare)
    dropped |= _before_a_thing(bare, _compound_positions(bare) | dropped)
    ignored = tuple(bare[index] for index in sorted(dropped) if _is_attribute(bare, index))
    left = [index for index in range(len(words)) if index not in dropped]
    if not ignored or all(bare[index] in _NO_THING for index in left):
        return prompt, ()
    kept = [_right_article(words, index, dropped) for index in left]
    return " ".join(kept).rstrip(","), ignored


def _bare(word: str) -> str:
    return word.strip(',.;:!?"()').casefold()


def _is_attribute(bare: Sequence[str], index: int) -> bool:
    word = bare[index]
    if word in _SHADES:  # `light` before a colour is a shade, elsewhere a lamp
        return index + 1 < len(bare) and bare[index + 1] in _COLOURS
    parts = word.split("-")
    return word in ATTRIBUTES or (len(parts) > 1 and all(part in _COLOURS | _SHADES for part in parts))


def _compound_positions(bare: Sequence[str]) -> set[int]:
    positions: set[int] = set()
    for compound in COMPOUNDS:
        parts = compound.split()
        for start in range(len(bare) - len(parts) + 1):
            found = list(bare[start : start + len(parts)])
            if found == parts or [*found[:-1], _singular(found[-1])] == parts:
                positions |= set(range(start, start + len(parts)))
    return positions


def _singular(word: str) -> str:
    return word[:-1] if word.endswith("s") else word


def _made_of(bare: Sequence[str]) -> set[int]:
    """Positions of `made of wood`, `made out of red wood`."""
    text = " ".join(bare)
    dropped: set[int] = set()
    for match in re.finditer(r"(?<!\S)made (?:out )?(?:of|from)(?!\S)", text):
        start, after = text[: match.start()].count(" "), text[: match.end()].count(" ") + 1
        end = after
        while end < len(bare) and (_is_attribute(bare, end) or bare[end] in _JOINERS):
            end += 1
        if end > after and start > 0:
            dropped |= set(range(start, end))
    return dropped


def _predicates(bare: Sequence[str]) -> set[int]:
    """Positions of `that is red and small` after a thing."""
    dropped: set[int] = set()
    for index, word in enumerate(bare):
        if word not in _COPULAS or index == 0:
            continue
        end = index + 1
        while end < len(bare) and (_is_attribute(bare, end) or bare[end] in _JOINERS):
            end += 1
        says_only_attributes = end > index + 1 and (end == len(bare) or bare[end] in _AFTER_A_THING)
        if says_only_attributes and _is_attribute(bare, end - 1):
            dropped |= set(range(index - 1 if bare[index - 1] in _RELATIVES else index, end))
    return dropped


def _before_a_thing(bare: Sequence[str], untouchable: set[int]) -> set[int]:
    """Positions of attributes, and of the words that join them, before the thing they describe."""
    dropped: set[int] = set()
    chain: list[int] = []
    for index in range(len(bare) + 1):
        ended = index == len(bare) or index in untouchable
        begins = _JOINERS if chain else _DEGREES
        if not ended and (_is_attribute(bare, index) or bare[index] in begins):
            chain.append(index)
            continue
        followed = index < len(bare) and bare[index] not in _AFTER_A_THING | _ARTICLES
        dropped |= set(chain if followed else _before_the_last(bare, chain))
        chain = []
    return dropped


def _before_the_last(bare: Sequence[str], chain: list[int]) -> list[int]:
    """Of attributes that nothing follows, the ones that describe the last: `red` in `a red orange`."""
    if not chain or bare[chain[-1]] not in _ALSO_THINGS or any(bare[index] in _JOINERS for index in chain):
        return []
    return chain[:-1]


def _right_article(words: Sequence[str], index: int, dropped: set[int]) -> str:
    """The word, or the article that fits the word now after it: `a red apple` → `an apple`."""
    word = words[index]
    if word.casefold() not in ("a", "an") or index + 1 not in dropped:
        return word
    following = next((words[later] for later in range(index + 1, len(words)) if later not in dropped), "")
    fitting = "an" if following[:1].casefold() in tuple("aeiou") else "a"
    return fitting.capitalize() if word[0].isupper() else fitting
