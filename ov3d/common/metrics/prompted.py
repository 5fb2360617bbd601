"""Scores where some classes are prompted and everything else is `other`: what runs are evaluated by.

Points or pixels whose true class was not prompted are `other`, and so are answers below the threshold, so a wall that is
called a cat costs the cat. Confusion matrices have one row and column a prompt, then `other`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ov3d.common.base.shapes import Array, Int32
from ov3d.common.metrics.semantic import SemanticConfusion, SemanticScores
from ov3d.common.scenes.scene import IGNORE

OTHER = "other"


@dataclass(frozen=True, slots=True, eq=False)
class PromptedTable:
    """Scores of one way of answering.

    Attributes:
        title: what was scored.
        classes: prompted classes.
        scores: one entry a prompted class, then `other`.
        extra: further numbers, by name.
    """

    title: str
    classes: tuple[str, ...]
    scores: SemanticScores
    extra: Mapping[str, float] = field(default_factory=dict)

    @property
    def mean_iou(self) -> float:
        """Over the prompted classes that have truth."""
        return _mean(self.scores.iou[:-1][self.scores.present[:-1]])

    @property
    def mean_accuracy(self) -> float:
        """Over the prompted classes that have truth."""
        return _mean(self.scores.accuracy[:-1][self.scores.present[:-1]])

    @property
    def mean_iou_with_other(self) -> float:
        """The same with everything that was not prompted as one class more."""
        return _mean(self.scores.iou[self.scores.present])

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form; NaN becomes null."""
        scores, names = self.scores, (*self.classes, OTHER)
        return {
            "title": self.title,
            "mean_iou": _finite(self.mean_iou),
            "mean_accuracy": _finite(self.mean_accuracy),
            "mean_iou_with_other": _finite(self.mean_iou_with_other),
            "coverage": _finite(scores.coverage),
            "num": scores.num_points,
            "extra": {name: _finite(value) for name, value in self.extra.items()},
            "classes": {
                name: {
                    "iou": float(scores.iou[idx]),
                    "accuracy": float(scores.accuracy[idx]),
                    "num_true": int(scores.num_true[idx]),
                }
                for idx, name in enumerate(names)
                if scores.present[idx]
            },
            "confusion": {"classes": list(names), "rows_truth": scores.matrix.tolist()},
        }


def prompted_confusion(num_prompts: int) -> SemanticConfusion:
    """An empty confusion matrix of so many prompts and `other`."""
    return SemanticConfusion(num_prompts + 1, ignore_label=IGNORE, no_prediction=IGNORE)


def prompt_numbers(all_classes: tuple[str, ...], prompted: tuple[str, ...]) -> Int32[Array, " c"]:
    """Class id to prompt number; everything not prompted becomes `other`, and the last entry keeps `IGNORE` (-1)."""
    table = np.full(len(all_classes) + 1, len(prompted), np.int32)
    for number, name in enumerate(prompted):
        table[all_classes.index(name)] = number
    table[-1] = IGNORE
    return table


def _mean(values: Array) -> float:
    return float(values.mean()) if values.size else float("nan")


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
