"""From a LanguageIndex and a prompt to an answer: which objects match, where they are, or that nothing does.

Presence is decided on raw cosines against the encoder's calibrated threshold, never on scores stretched to the scene's own
range: a room without a piano must be able to say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ov3d.common.asking.corruption_note import corruption_note
from ov3d.common.asking.index import LanguageIndex
from ov3d.common.asking.relevancy import (
    EXTENT_FRACTION,
    FoundObject,
    background_score,
    find_objects,
    percentile,
    voxel_size_for,
)
from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.shapes import Array, Float, Float32
from ov3d.common.scenes.scene import World

MIN_POINTS = 10
"""Points over the threshold that make an object; a scene with fewer points needs them all."""
NEARLY = 0.8
"""Where nothing reaches the threshold, what reaches this share of it is named as close to it, and not as found."""
SPACING_FACT = "point_spacing"
"""The fact of an index that states the median distance between neighbouring points, scene units."""
ARTICLES = ("a", "an", "the")
BEST_PERCENTILE = 99.5
"""Where nothing is found, the best score of a scene is this percentile: one stray point is no evidence."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a scene says to a prompt.

    Attributes:
        prompt: as the user typed it.
        scene: the scene's name.
        world: units, up, origin; the positions of `objects` are relative to the origin.
        encoder: spec of the encoder that the index was made with.
        threshold: raw cosine from which something counts as present.
        best_score: of the first object; where there is none, the 99.5th percentile of the scene's scores, or the score of what
            comes close if that is higher.
        background: what the scene scores where nothing is.
        objects: the best ones, best first.
        num_objects: how many there are in all.
        scores: raw cosine of every point, 0 where no camera saw it.
        query: the prompt in the index's basis: a code times it is the code's raw cosine. Empty where nobody needs it.
        nearly: where there is no object, those that come close to the threshold, best first: not an answer, a place to look.
        ignored_words: words of the prompt that the encoder cannot see.
        notes: sentences that the user should read before believing the answer.
    """

    prompt: str
    scene: str
    world: World
    encoder: str
    threshold: float
    best_score: float
    background: float
    objects: tuple[FoundObject, ...]
    num_objects: int
    scores: Float32[Array, " n"]
    query: Float32[Array, " r"] = field(default_factory=lambda: np.zeros(0, np.float32))
    nearly: tuple[FoundObject, ...] = ()
    ignored_words: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def found(self) -> bool:
        """Whether anything matches."""
        return bool(self.objects)

    @property
    def score_range(self) -> tuple[float, float]:
        """The scores that pictures draw as cold and as hot: background to best, and a scene without a match stays cold."""
        return self.background, max(self.best_score, self.threshold)

    def extent_level(self, score: float) -> float:
        """The score at which an object of that peak ends, as `find_objects` cuts it."""
        return self.background + EXTENT_FRACTION * (score - self.background)

    @property
    def headline(self) -> str:
        """The answer in one sentence."""
        if self.found:
            things = "object matches" if self.num_objects == 1 else "objects match"
            return f"{self.num_objects} {things} {self.prompt!r} in {self.scene}"
        figures = f"best score {self.best_score:.2f}, threshold {self.threshold:.2f}"
        return f"nothing in this scene matches {self.prompt!r} ({figures})"

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form; positions are those of the user's own files, with the world's origin added back."""
        return {
            "prompt": self.prompt,
            "scene": self.scene,
            "encoder": self.encoder,
            "found": self.found,
            "threshold": _rounded(self.threshold),
            "best_score": _rounded(self.best_score),
            "units": self.world.unit_name,
            "num_objects": self.num_objects,
            "objects": self._to_json(self.objects),
            "nearly": self._to_json(self.nearly),
            "ignored_words": list(self.ignored_words),
            "notes": list(self.notes),
        }

    def _to_json(self, objects: Sequence[FoundObject]) -> list[dict[str, Any]]:
        return [
            {
                "rank": rank,
                "score": _rounded(item.score),
                "centre": [_rounded(value) for value in item.centre + self.world.origin],
                "size": [_rounded(value) for value in item.size],
                "num_points": item.num_points,
            }
            for rank, item in enumerate(objects, start=1)
        ]


def ask(
    index: LanguageIndex,
    prompt: str,
    text: Float[Array, " d"],
    *,
    threshold: float | None = None,
    top: int = 5,
    ignored_words: Sequence[str] = (),
) -> Answer:
    """Find what a prompt names in a scene.

    Args:
        index: the scene's points and their language codes.
        prompt: the user's words.
        text: unit vector of the prompt, from the text side of the index' encoder.
        threshold: raw cosine from which something counts as present; none takes the encoder's own.
        top: how many objects to give at most.
        ignored_words: words of the prompt that `text` leaves out.

    Raises:
        UsageError: an impossible `top` or threshold.
        DataError: the vector is not of the encoder's width, or not finite.
    """
    limit = index.encoder.presence_threshold if threshold is None else threshold
    if top < 1:
        raise UsageError(f"The number of objects to show is {top}.", "Ask for at least one: --top 1")
    if not -1 <= limit <= 1:
        raise UsageError(f"Threshold {limit:g} is no cosine.", "Give a number between -1 and 1.")
    if len(text) != index.encoder.dim or not np.isfinite(text).all():
        raise DataError(
            f"The text vector of {prompt!r} has {len(text)} values, or some that are not finite; "
            f"the index of {index.scene} wants {index.encoder.dim}.",
            f"Make it with {index.encoder.spec}, the encoder of the index.",
        )
    scores = index.scores(np.asarray(text)[None])[:, 0]
    seen = scores[index.seen]
    background = background_score(seen)
    asked = scores if len(seen) == len(index) else np.where(index.seen, scores, -np.inf)
    find = partial(
        find_objects,
        index.xyz,
        asked,
        voxel_size=_voxel_size(index),
        min_points=min(MIN_POINTS, max(len(seen), 1)),
        background=background,
    )
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
        ignored_words=tuple(ignored_words),
        notes=tuple(_notes(index, prompt, seen, scattered=not objects and peak >= limit)),
    )


def _voxel_size(index: LanguageIndex) -> float:
    """Three point spacings, the spacing as the index states it, else estimated."""
    stated = index.facts.get(SPACING_FACT)
    return voxel_size_for(index.xyz, float(stated) if isinstance(stated, int | float) else None)


def _notes(index: LanguageIndex, prompt: str, seen: Float32[Array, " s"], *, scattered: bool) -> list[str]:
    notes = []
    if not len(seen):
        notes.append(f"no camera saw any point of {index.scene}: there is nothing to ask")
    if index.vocabulary and _bare(prompt) not in {_bare(name) for name in index.vocabulary}:
        notes.append("this prompt is outside the training vocabulary: weakly supervised")
    if stated := corruption_note(index.facts):
        notes.append(stated)
    if scattered:
        notes.append(f"points over the threshold lie too scattered to be an object (fewer than {MIN_POINTS} together)")
    return notes


def _bare(name: str) -> str:
    """A name as it is compared: no article, no capitals, one space between words."""
    words = name.casefold().replace("_", " ").split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in ARTICLES else words)


def _rounded(value: float) -> float:
    """Four decimals: a tenth of a millimetre, and finer than any score means anything."""
    return round(float(value), 4)
