"""Scores of runs: some classes are prompted, everything else is `other`.

Points or pixels whose true class was not prompted are `other`, and so are answers below the threshold, so a wall labelled as
a cat lowers the score of the cat. Confusion matrices have one row and column per prompt, then `other`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ov3d.common.base.errors import UsageError, did_you_mean
from ov3d.common.base.shapes import Array, Bool, Float, Float32, Int32
from ov3d.common.metrics.report import ClassRow, EvalReport, extra_note, finite, finite_values
from ov3d.common.metrics.semantic import SemanticConfusion, SemanticScores
from ov3d.common.scenes.scene import IGNORE

OTHER = "other"

BACKGROUNDS = ("background", "other", "unlabeled", "unlabelled", "unknown", "clutter", "void")
"""Names of classes that mean everything else; they are never prompted."""


@dataclass(frozen=True, slots=True, eq=False)
class PromptedTable:
    """Scores of one way of answering.

    Attributes:
        title: what was scored.
        classes: prompted classes.
        scores: one entry per prompted class, then `other`.
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
        """The same with `other` as one more class."""
        return _mean(self.scores.iou[self.scores.present])

    @property
    def rows(self) -> list[ClassRow]:
        """One row per prompted class (and `other`) that has truth."""
        scores = self.scores
        return [
            ClassRow(
                name,
                "class",
                "",
                {"IoU": float(scores.iou[idx]), "Acc": float(scores.accuracy[idx])},
                {"points": int(scores.num_true[idx])},
            )
            for idx, name in enumerate((*self.classes, OTHER))
            if scores.present[idx]
        ]

    def report(self, scene: str, protocol: str, notes: Sequence[str] = ()) -> EvalReport:
        """The table as a report of its own; see `run_report.Table.report`."""
        means = {"mIoU": self.mean_iou, "mAcc": self.mean_accuracy, "mIoU with other": self.mean_iou_with_other}
        return EvalReport(
            dataset=scene,
            title=f"{scene}: {self.title}",
            protocol=protocol,
            num_scans=1,
            means=finite_values(means),
            classes=self.rows,
            facts={"coverage": finite(self.scores.coverage), "points": self.scores.num_points},
            notes=(*notes, *extra_note(self.extra)),
            matrix=self.scores.matrix,
            matrix_names=(*self.classes, OTHER),
            extra=finite_values(self.extra),
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form; NaN becomes null."""
        return {
            "title": self.title,
            "mean_iou": finite(self.mean_iou),
            "mean_accuracy": finite(self.mean_accuracy),
            "mean_iou_with_other": finite(self.mean_iou_with_other),
            "coverage": finite(self.scores.coverage),
            "num": self.scores.num_points,
            "extra": finite_values(self.extra),
            "classes": {
                row.name: {
                    "iou": row.scores["IoU"],
                    "accuracy": row.scores["Acc"],
                    "num_true": row.counts["points"],
                }
                for row in self.rows
            },
            "confusion": {"classes": [*self.classes, OTHER], "rows_truth": self.scores.matrix.tolist()},
        }


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """The question put to every method: the best of some classes, or none of them.

    Attributes:
        classes: the k prompted classes.
        text: their unit vectors.
        threshold: lowest raw cosine at which the best class counts as present; -1 if it always does.
        numbers: prompt number of each class id of the scene, k for classes that are not prompted; the last entry is for
            unknown truth, and so for an id of -1.
    """

    classes: tuple[str, ...]
    text: Float32[Array, "k d"]
    threshold: float
    numbers: Int32[Array, " c"]

    @classmethod
    def of(
        cls,
        known: tuple[str, ...],
        classes: tuple[str, ...],
        text: Float32[Array, "k d"],
        threshold: float | None = None,
    ) -> Question:
        """The question for some of a scene's classes.

        Args:
            known: all classes of the scene, in order of their ids.
            classes: those to prompt for.
            text: their unit vectors.
            threshold: lowest raw cosine at which the best class counts as present; None if it always does.
        """
        numbers = np.full(len(known) + 1, len(classes), np.int32)
        numbers[[known.index(name) for name in classes]] = np.arange(len(classes))
        numbers[-1] = IGNORE
        return cls(classes, text, -1.0 if threshold is None else threshold, numbers)

    def answers(self, scores: Float[Array, "n k"], seen: Bool[Array, " n"] | None = None) -> Int32[Array, " n"]:
        """The number of the best class of each point or pixel, k (`other`) below the threshold.

        Args:
            scores: raw cosines with the text vectors.
            seen: whether there is a feature; without one the answer is `other`.
        """
        found = scores.max(axis=1) >= self.threshold
        found = found if seen is None else found & seen
        return np.where(found, scores.argmax(axis=1), len(self.classes)).astype(np.int32)

    def confusion(self) -> SemanticConfusion:
        """An empty confusion matrix of the prompts and `other`."""
        return SemanticConfusion(len(self.classes) + 1, ignore_label=IGNORE, no_prediction=IGNORE)


def check_known(scene: str, known: tuple[str, ...], classes: tuple[str, ...]) -> None:
    """Check that a scene has some classes.

    Args:
        scene: its name.
        known: all its classes.
        classes: what a user named.

    Raises:
        UsageError: it has not.
    """
    for name in classes:
        if name not in known:
            raise UsageError(f"Scene {scene} has no class {name!r}.", did_you_mean(name, known))


def true_classes(known: tuple[str, ...], truth: Int32[Array, " n"]) -> tuple[str, ...]:
    """The classes that occur among true class ids, in order of their ids."""
    return tuple(known[label] for label in np.unique(truth[truth != IGNORE]))


def _mean(values: Array) -> float:
    return float(values.mean()) if values.size else float("nan")
