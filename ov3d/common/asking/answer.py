"""The answer of a scene to a prompt: which objects match and where they are, or that nothing matches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ov3d.common.asking.relevancy import EXTENT_FRACTION, FoundObject
from ov3d.common.base.shapes import Array, Float32
from ov3d.common.scenes.scene import World


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The answer of a scene to a prompt.

    Attributes:
        prompt: as the user typed it, with single spaces.
        scene: the scene's name.
        world: units, up, origin; the positions of `objects` are relative to the origin.
        encoder: spec of the encoder that the index was made with.
        threshold: lowest raw cosine at which something counts as present.
        best_score: score of the first object; without objects, the 99.5th percentile of the scene's scores, or the score of
            the best near miss if that is higher.
        background: score of the scene where the prompt is absent: the 10th percentile.
        objects: the best objects, best first.
        num_objects: total number of objects found.
        scores: raw cosine of every point, 0 if no camera saw it.
        query: the prompt in the index's basis: its dot product with a code is the code's raw cosine. Empty if not needed.
        nearly: if no object was found, near misses just below the threshold, best first: not an answer, but places to look.
        ignored_words: words of the prompt that the encoder cannot see.
        notes: caveats that the user should read before trusting the answer.
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
        """Whether anything was found."""
        return bool(self.objects)

    @property
    def score_range(self) -> tuple[float, float]:
        """The scores at the cold and hot ends of the colour scale: background and best; without a match all stays cold."""
        return self.background, max(self.best_score, self.threshold)

    def extent_level(self, score: float) -> float:
        """The score at which an object with that peak ends, as in `find_objects`."""
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
        """A JSON-able form; positions are in the coordinates of the user's files, with the world's origin added back."""
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


def _rounded(value: float) -> float:
    """Round to four decimals: a tenth of a millimetre, and more precise than any score."""
    return round(float(value), 4)
