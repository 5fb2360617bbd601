"""How well each stage labels the points of the scenes whose truth is known: metrics.json of a run.

A point takes the best of all classes of the scenes' own lists, with no threshold; pseudo labels are taken as they are. One
confusion matrix per stage and split; points without an answer count as missed. Truth is only compared with, never learnt from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ov3d.common.base.shapes import Array, Float32, Int32, Integer
from ov3d.common.metrics.semantic import SemanticConfusion
from ov3d.common.scenes.scene import IGNORE, Scene

METRICS_NAME = "metrics.json"
METRICS_KIND = "points-metrics"
METRICS_VERSION = 1


@dataclass(slots=True)
class Truth:
    """True classes of the points of a run's scenes, where known.

    Attributes:
        classes: of all scenes, each once.
        labels: by scene, numbers into `classes`, `IGNORE` where unknown.
    """

    classes: tuple[str, ...] = ()
    labels: dict[str, Integer[Array, " n"]] = field(default_factory=dict)

    def add(self, scene: Scene) -> None:
        """Add a prepared scene, if it has truth."""
        if scene.cloud is None or scene.cloud.labels is None or not scene.classes:
            return
        self.classes = tuple(dict.fromkeys((*self.classes, *scene.classes)))
        number = np.array([*(self.classes.index(name) for name in scene.classes), IGNORE], np.int16)
        labels = scene.cloud.labels
        self.labels[scene.name] = number[np.where(labels == IGNORE, len(scene.classes), labels)]


@dataclass(frozen=True, slots=True)
class Measured:
    """One stage's answers on some scenes.

    Attributes:
        mean_iou, mean_accuracy: over all classes, counting those that no point has as 0.
        mean_iou_present, mean_accuracy_present: over classes that some point has.
        coverage: share of points that got an answer.
        iou: by class that some point has.
    """

    mean_iou: float
    mean_accuracy: float
    mean_iou_present: float
    mean_accuracy_present: float
    coverage: float
    iou: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form."""
        numbers = ("mean_iou", "mean_accuracy", "mean_iou_present", "mean_accuracy_present", "coverage")
        return {name: getattr(self, name) for name in numbers} | {"iou": dict(self.iou)}


def measure(truth: Truth, scenes: tuple[str, ...], answers: Callable[[str], Int32[Array, " n"]]) -> Measured | None:
    """Score the answers on some scenes.

    Args:
        truth: of the run.
        scenes: names; those without truth are left out.
        answers: class numbers of `truth.classes` of a scene's points, `IGNORE` for points without one.

    Returns:
        None if no scene has truth.
    """
    known = [name for name in scenes if name in truth.labels]
    if not known:
        return None
    confusion = SemanticConfusion(len(truth.classes), ignore_label=IGNORE, no_prediction=IGNORE)
    for name in known:
        confusion.update(answers(name), truth.labels[name].astype(np.int32))
    scores = confusion.compute()
    return Measured(
        scores.mean_iou,
        scores.mean_accuracy,
        scores.mean_iou_present,
        scores.mean_accuracy_present,
        scores.coverage,
        {name: float(scores.iou[idx]) for idx, name in enumerate(truth.classes) if scores.present[idx]},
    )


def best_class(scores: Float32[Array, "n k"]) -> Int32[Array, " n"]:
    """The class with the highest score of each row."""
    return scores.argmax(axis=1).astype(np.int32)
