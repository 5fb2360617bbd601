"""What a user types after `--encoder`, taken apart. Plain text in and out: nothing is looked up or loaded.

    offline[:VARIANT]   openclip:MODEL/TAG   openclip-dense:MODEL/TAG      encoders: family and the rest
    labels:DIR[@TEXT][,corrupt=30][,seed=0]                                label maps in a folder, named in the space of TEXT
    labels:scene[@TEXT]...                                                 the scene's own label images
    features:DIR@TEXT                                                      arrays made elsewhere, asked through TEXT

TEXT is the spec of a text encoder: `minilm`, or an image-text encoder, whose text side is taken.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ov3d.common.base.errors import UsageError, did_you_mean

BROUGHT_FAMILIES = ("labels", "features")
"""Families of teachers whose 2D knowledge the user brings."""

TEXT_FAMILIES = ("minilm", "offline", "openclip")
"""Families of encoders that have a text side."""

DEFAULT_TEXT = "minilm"
"""Names of label maps are sentences to each other, not pictures: a plain sentence space keeps them apart best."""

SCENE = "scene"
"""In place of a folder: the scene's own label images."""

LEVELS = (0, 15, 30, 45)
"""Per cent of labelled pixels that a stated corruption may change."""

AUTO = "auto"
"""In place of a refinement: the one that suits the encoder."""

_OPTION = re.compile(r",(\w+)=([^,@/]*)$")
_TEXT = re.compile(rf"@((?:{'|'.join(TEXT_FAMILIES)})(?::.*)?)$")


def split_spec(spec: str) -> tuple[str, str]:
    """`family:rest` into its parts; `rest` is empty for a bare family."""
    family, _, rest = spec.partition(":")
    return family, rest


def suitable_refinement(refine: str, spec: str) -> str:
    """The refinement that `auto` stands for; any other as it is.

    The offline encoder's crops are coarse and its threshold is calibrated on refined features, and what `dino` needs comes
    with it. Of other encoders nothing of the kind has been measured.
    """
    if refine != AUTO:
        return refine
    return "dino" if split_spec(spec.strip())[0] == "offline" else "none"


@dataclass(frozen=True, slots=True)
class BroughtSpec:
    """The parts of a `labels:` or `features:` spec.

    Attributes:
        family: `labels` or `features`.
        place: a folder as it was typed, or `scene`.
        text: spec of the text encoder; empty where none is named.
        corrupt: per cent of labelled pixels to corrupt, one of `LEVELS`; none where no corruption is stated.
        seed: of the corruption.
    """

    family: str
    place: str
    text: str = ""
    corrupt: int | None = None
    seed: int = 0

    def format(self, place: str | None = None, text: str | None = None) -> str:
        """The spec again, with another place or text."""
        text = self.text if text is None else text
        end = "" if self.corrupt is None else f",corrupt={self.corrupt},seed={self.seed}"
        return f"{self.family}:{self.place if place is None else place}{f'@{text}' if text else ''}{end}"


def parse_brought(spec: str) -> BroughtSpec | None:
    """The parts of a `labels:` or `features:` spec; none for any other.

    Raises:
        UsageError: no place, an option that is not known, or a value that it cannot have.
    """
    family, rest = split_spec(spec.strip())
    if family not in BROUGHT_FAMILIES:
        return None
    options: dict[str, str] = {}
    while found := _OPTION.search(rest):
        if found[1] in options:
            raise UsageError(f"{spec!r} states {found[1]} twice.")
        options[found[1]], rest = found[2], rest[: found.start()]
    text = ""
    if named := _TEXT.search(rest):
        text, rest = named[1], rest[: named.start()]
    if not rest:
        raise UsageError(f"{spec!r} names no folder.", f"Write {family}:DIR.")
    corrupt, seed = _corruption(spec, family, options)
    return BroughtSpec(family, rest, text, corrupt, seed)


def text_spec(spec: str) -> str:
    """The spec of an encoder with the text side of any spec; whole `openclip:` for `openclip-dense:`.

    Raises:
        UsageError: a `features:` spec that names none.
    """
    brought = parse_brought(spec)
    if brought is None:
        family, rest = split_spec(spec.strip())
        return f"openclip:{rest}" if family == "openclip-dense" else spec.strip()
    if brought.family == "features" and not brought.text:
        raise UsageError(
            f"{spec} does not say which text encoder its features belong to.",
            "Name it: --text-encoder openclip:MODEL/TAG",
        )
    return brought.text or DEFAULT_TEXT


def with_text(spec: str, text: str | None) -> str:
    """A spec with what was given to `--text-encoder`; the spec as it is without.

    Raises:
        UsageError: the spec takes no text encoder, or names another one itself.
    """
    if text is None:
        return spec
    brought = parse_brought(spec)
    if brought is None:
        raise UsageError(
            f"--text-encoder goes with labels:DIR and features:DIR; {spec} has its own text side.", "Leave it out."
        )
    if split_spec(text)[0] not in TEXT_FAMILIES:
        raise UsageError(f"Unknown text encoder {text!r}.", did_you_mean(split_spec(text)[0], TEXT_FAMILIES))
    if brought.text not in ("", text):
        raise UsageError(f"{spec} names another text encoder than --text-encoder {text}.", "Say it once.")
    return brought.format(text=text)


def _corruption(spec: str, family: str, options: dict[str, str]) -> tuple[int | None, int]:
    known = ("corrupt", "seed") if family == "labels" else ()
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known) if known else f"{family}: takes no options."
            raise UsageError(f"{spec!r} has no option {name!r}.", hint)
    if not options:
        return None, 0
    if "corrupt" not in options:
        raise UsageError(f"{spec!r} has a seed and nothing that is random.", "Add corrupt=30, or take the seed out.")
    if options["corrupt"] not in map(str, LEVELS):
        levels = ", ".join(map(str, LEVELS))
        raise UsageError(f"{spec!r}: {options['corrupt']!r} is no level of corruption.", f"Choose one of {levels} (%).")
    seed = options.get("seed", "0")
    if not seed.isascii() or not seed.isdigit() or len(seed) > 9:
        raise UsageError(f"{spec!r}: {seed!r} is no seed.", "Write a whole number, as in seed=0.")
    return int(options["corrupt"]), int(seed)


def known_refinement(refine: str) -> str:
    """A refinement as a configuration names it; for a validator.

    Raises:
        ValueError: there is none of that name.
    """
    if refine not in (AUTO, "none", "dino") and not refine.startswith("timm:"):
        raise ValueError("refine must be auto, none, dino or timm:NAME")
    return refine
