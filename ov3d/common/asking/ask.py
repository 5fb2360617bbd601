"""Asking an index: from a prompt to an answer. Used by `ov3d query` and `ov3d.query`.

Presence is decided by comparing raw cosines with the encoder's calibrated threshold, never by scores rescaled to the scene's
own range, so that a room without a piano can say so. Nothing here imports torch if the prompt is in the text cache.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ov3d.common.asking.answer import Answer
from ov3d.common.asking.corruption_note import corruption_note
from ov3d.common.asking.index import SPACING_FACT, LanguageIndex
from ov3d.common.asking.relevancy import (
    FoundObject,
    background_score,
    best_first,
    find_objects,
    percentile,
    stored_objects,
    voxel_size_for,
)
from ov3d.common.base.errors import DataError, UsageError, did_you_mean
from ov3d.common.base.shapes import Array, Float, Float32
from ov3d.common.language.text_cache import TextCache, encode_prompts

if TYPE_CHECKING:
    from pathlib import Path

    from ov3d.common.base.runs import Run
    from ov3d.common.language.cards import EncoderCard, TextEncoder

MIN_POINTS = 10
"""Least number of points above the threshold in an object; a smaller scene needs all its points."""
NEARLY = 0.8
"""If nothing reaches the threshold, objects that reach this share of it are reported as close, not as found."""
ARTICLES = ("a", "an", "the")
BEST_PERCENTILE = 99.5
"""If nothing is found, this percentile is the best score of the scene, because a single stray point proves nothing."""


def ask(
    index: LanguageIndex,
    prompt: str,
    text: Float[Array, " d"] | None = None,
    *,
    threshold: float | None = None,
    top: int = 5,
    device: str = "auto",
    say: Callable[[str], None] = lambda line: None,
) -> Answer:
    """Find what a prompt names in a scene.

    Args:
        index: the scene's points and their language codes.
        prompt: from `ov3d.common.asking.prompt.clean_prompt`.
        text: the prompt's unit vector by the index's encoder; None reads it from the text cache or encodes the prompt.
        threshold: lowest raw cosine at which something counts as present; None uses the encoder's.
        top: maximum number of objects to return.
        device: device of the text encoder, if it is needed.
        say: receives messages of the text cache.

    Raises:
        UsageError: invalid `top` or threshold.
        DataError: the vector does not have the encoder's width, or is not finite.
        MissingModelError: the prompt must be encoded and the text encoder is not on this machine.
    """
    limit = index.encoder.presence_threshold if threshold is None else threshold
    if top < 1:
        raise UsageError(f"--top must be at least 1, got {top}.")
    if not -1 <= limit <= 1:
        raise UsageError(f"--threshold must be between -1 and 1, got {limit:g}.")
    ignored: tuple[str, ...] = ()
    if text is None:
        text, ignored = text_vector(index.encoder, prompt, device=device, say=say)
    scores = _scores(index, prompt, text)
    seen = scores[index.seen]
    background = background_score(seen)
    asked = scores if len(seen) == len(index) else np.where(index.seen, scores, -np.inf)
    find = partial(_objects, index, asked, background=background, min_points=min(MIN_POINTS, max(len(seen), 1)))
    objects = find(threshold=limit)
    nearly = find(threshold=NEARLY * limit) if not objects and limit > 0 else []
    peak = percentile(seen, BEST_PERCENTILE) if len(seen) else 0.0
    return Answer(
        prompt=prompt,
        scene=index.scene,
        world=index.world,
        encoder=index.encoder.spec,
        threshold=limit,
        best_score=objects[0].score if objects else max([peak, *(near.score for near in nearly)]),
        background=background,
        objects=tuple(objects[:top]),
        num_objects=len(objects),
        scores=scores,
        query=(index.basis @ np.asarray(text, np.float32)).astype(np.float32),
        nearly=tuple(nearly[:top]),
        ignored_words=ignored,
        notes=tuple(_notes(index, prompt, blind=not len(seen), scattered=not objects and peak >= limit)),
    )


def index_path(run: Run, scene: str | None = None) -> Path:
    """The index of a scene of a run, or of its only scene.

    Raises:
        UsageError: the run has several scenes and no name was given, or it has no such scene.
    """
    names = sorted(run.indexes)
    if scene is None and len(names) != 1:
        listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise UsageError(f"Run {run.path} has {len(names)} scenes: {listed}.", "Choose one: --scene NAME")
    name = names[0] if scene is None else scene
    if name not in run.indexes:
        raise UsageError(f"Run {run.path} has no scene {name!r}.", did_you_mean(name, names))
    return run.indexes[name]


def text_vector(
    card: EncoderCard, prompt: str, *, device: str = "auto", say: Callable[[str], None] = lambda line: None
) -> tuple[Float32[Array, " d"], tuple[str, ...]]:
    """The unit vector of a clean prompt, and the words of it that the encoder cannot see."""
    kept: str = prompt
    ignored: tuple[str, ...] = ()
    if not card.knows_attributes:
        from ov3d.common.language.attributes import split_attributes

        kept, ignored = split_attributes(prompt)

    def make_encoder() -> TextEncoder:
        from ov3d.common.base.device import pick_device
        from ov3d.common.encoders import create_text_encoder

        return create_text_encoder(card.spec, device=pick_device(device))

    return encode_prompts(card, [kept], TextCache(say=say), make_encoder, say=say)[0], ignored


def _scores(index: LanguageIndex, prompt: str, text: Float[Array, " d"]) -> Float32[Array, " n"]:
    """Raw cosines of all points; raises `DataError` where the vector does not fit the index."""
    if len(text) != index.encoder.dim or not np.isfinite(text).all():
        raise DataError(
            f"The text vector of {prompt!r} has {len(text)} values, or some are not finite; the index of {index.scene} "
            f"needs {index.encoder.dim}.",
            f"Encode it with {index.encoder.spec}, the encoder of the index.",
        )
    return index.scores(np.asarray(text)[None])[:, 0]


def _objects(
    index: LanguageIndex, asked: Float32[Array, " n"], *, threshold: float, background: float, min_points: int
) -> list[FoundObject]:
    """The objects with at least that score, best first; `asked` is -inf at unseen points.

    Points of a stored instance always form that object. Points without an instance (a road, a wall; instance -1) are grouped
    by their scores, like all points of an index without instances; such an object never grows into a stored one.
    """
    stored: list[FoundObject] = []
    if index.instance is not None:
        stored = stored_objects(index.xyz, asked, index.instance, threshold=threshold)
        asked = np.where(index.instance >= 0, np.float32(-np.inf), asked)
    spacing = index.facts.get(SPACING_FACT)
    grouped = find_objects(
        index.xyz,
        asked,
        threshold=threshold,
        voxel_size=voxel_size_for(index.xyz, float(spacing) if isinstance(spacing, int | float) else None),
        min_points=min_points,
        background=background,
    )
    return best_first([*stored, *grouped])


def _notes(index: LanguageIndex, prompt: str, *, blind: bool, scattered: bool) -> list[str]:
    notes = []
    if blind:
        notes.append(f"no camera saw any point of {index.scene}, so there is nothing to search")
    if index.vocabulary and _bare(prompt) not in {_bare(name) for name in index.vocabulary}:
        notes.append("this prompt is outside the training vocabulary: weakly supervised")
    if stated := corruption_note(index.facts):
        notes.append(stated)
    if scattered:
        notes.append(
            f"points above the threshold are too scattered to form an object (fewer than {MIN_POINTS} connected)"
        )
    return notes


def _bare(name: str) -> str:
    """A name normalised for comparison: no article, lower case, single spaces."""
    words = name.casefold().replace("_", " ").split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in ARTICLES else words)
