"""Parses the values of `--encoder`. Pure text processing: nothing is looked up or loaded.

    offline[:VARIANT]   openclip:MODEL/TAG   openclip-dense:MODEL/TAG      encoders: family and the rest
    labels:DIR[@TEXT][,corrupt=30][,seed=0]                                label maps in a folder, named in the space of TEXT
    labels:scene[@TEXT]...                                                 the scene's own label images
    features:DIR@TEXT                                                      arrays made elsewhere, queried through TEXT

TEXT is the spec of a text encoder: `minilm`, or an image-text encoder, whose text side is used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ov3d.common.base.errors import UsageError, did_you_mean

BROUGHT_FAMILIES = ("labels", "features")
"""Families of teachers whose 2D labels or features the user provides."""

TEXT_FAMILIES = ("minilm", "offline", "openclip")
"""Families of encoders that have a text side."""

DEFAULT_TEXT = "minilm"
"""Class names are compared with text, not with images: a plain sentence encoder separates them best."""

SCENE = "scene"
"""Used instead of a folder: the scene's own label images."""

LEVELS = (0, 15, 30, 45)
"""Allowed percentages of labelled pixels to corrupt."""

AUTO = "auto"
"""Used instead of a refinement: the one that suits the encoder."""

_OPTION = re.compile(r",(\w+)=([^,@/]*)$")
_TEXT = re.compile(rf"@((?:{'|'.join(TEXT_FAMILIES)})(?::.*)?)$")


def split_spec(spec: str) -> tuple[str, str]:
    """Split `family:rest`; `rest` is empty for a bare family."""
    family, _, rest = spec.partition(":")
    return family, rest


def suitable_refinement(refine: str, spec: str) -> str:
    """The refinement that `auto` means; other values are unchanged.

    The offline encoder's crops are coarse, its threshold is calibrated on refined features, and `dino` is installed with it.
    For other encoders the effect has not been measured.
    """
    if refine != AUTO:
        return refine
    return "dino" if split_spec(spec.strip())[0] == "offline" else "none"


@dataclass(frozen=True, slots=True)
class BroughtSpec:
    """The parts of a `labels:` or `features:` spec.

    Attributes:
        family: `labels` or `features`.
        place: a folder as typed, or `scene`.
        text: spec of the text encoder; empty if not given.
        corrupt: percentage of labelled pixels to corrupt, one of `LEVELS`, or None.
        seed: seed of the corruption.
    """

    family: str
    place: str
    text: str = ""
    corrupt: int | None = None
    seed: int = 0

    def format(self, place: str | None = None, text: str | None = None) -> str:
        """The spec, optionally with another place or text."""
        text = self.text if text is None else text
        end = "" if self.corrupt is None else f",corrupt={self.corrupt},seed={self.seed}"
        return f"{self.family}:{self.place if place is None else place}{f'@{text}' if text else ''}{end}"


def parse_brought(spec: str) -> BroughtSpec | None:
    """The parts of a `labels:` or `features:` spec; None for any other.

    Raises:
        UsageError: no place, an unknown option, or an invalid value.
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
    """The spec of an encoder with the text side of the given spec, for example `openclip:` for `openclip-dense:`.

    Raises:
        UsageError: a `features:` spec without a text encoder.
    """
    brought = parse_brought(spec)
    if brought is None:
        family, rest = split_spec(spec.strip())
        return f"openclip:{rest}" if family == "openclip-dense" else spec.strip()
    if brought.family == "features" and not brought.text:
        raise UsageError(
            f"{spec} does not name the text encoder of its features.",
            "Name it: --text-encoder openclip:MODEL/TAG",
        )
    return brought.text or DEFAULT_TEXT


def with_text(spec: str, text: str | None) -> str:
    """A spec combined with the value of `--text-encoder`, if given.

    Raises:
        UsageError: the spec does not accept a text encoder, or names a different one itself.
    """
    if text is None:
        return spec
    brought = parse_brought(spec)
    if brought is None:
        raise UsageError(
            f"--text-encoder works only with labels:DIR and features:DIR; {spec} has its own text side.",
            "Leave it out.",
        )
    if split_spec(text)[0] not in TEXT_FAMILIES:
        raise UsageError(f"Unknown text encoder {text!r}.", did_you_mean(split_spec(text)[0], TEXT_FAMILIES))
    if brought.text not in ("", text):
        raise UsageError(f"{spec} names a different text encoder than --text-encoder {text}.", "Name it once.")
    return brought.format(text=text)


def _corruption(spec: str, family: str, options: dict[str, str]) -> tuple[int | None, int]:
    known = ("corrupt", "seed") if family == "labels" else ()
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known) if known else f"{family}: has no options."
            raise UsageError(f"{spec!r} has no option {name!r}.", hint)
    if not options:
        return None, 0
    if "corrupt" not in options:
        raise UsageError(f"{spec!r} has a seed but nothing is random.", "Add corrupt=30, or remove the seed.")
    if options["corrupt"] not in map(str, LEVELS):
        levels = ", ".join(map(str, LEVELS))
        raise UsageError(f"{spec!r}: corrupt must be one of {levels} (%), got {options['corrupt']!r}.")
    seed = options.get("seed", "0")
    if not seed.isascii() or not seed.isdigit() or len(seed) > 9:
        raise UsageError(f"{spec!r}: seed must be an integer, got {seed!r}.", "For example seed=0.")
    return int(options["corrupt"]), int(seed)


def known_refinement(refine: str) -> str:
    """Validate the refinement of a configuration.

    Raises:
        ValueError: no such refinement.
    """
    if refine not in (AUTO, "none", "dino") and not refine.startswith("timm:"):
        raise ValueError("refine must be auto, none, dino or timm:NAME")
    return refine
