"""Semantic segmentation: one confusion matrix over all points, and its scores.

With TP, FP, FN of a class over all points whose truth is known:
    IoU = TP / (TP + FP + FN)        accuracy = TP / (TP + FN), the class's recall
as in Everingham et al., *The PASCAL VOC Challenge: A Retrospective* (IJCV 2015), section 4. A class without any point in truth
and prediction scores 0 in means over all classes; means over present classes leave out classes without a true point.

Counts are 64-bit integers, so the result is the same for any number of parts and any order of merging.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ov3d.common.base.errors import UsageError
from ov3d.common.base.shapes import Array, Bool, Float64, Int64
from ov3d.common.metrics.counting import PairCounter, as_labels, check_same_length


@dataclass(frozen=True, slots=True, eq=False)
class SemanticScores:
    """Scores of c classes; fractions, not per cent.

    Attributes:
        iou: intersection over union of each class; 0 where there is neither truth nor prediction.
        accuracy: recall of each class; 0 without a true point.
        present: whether the class has a true point.
        included: whether the class takes part in means (an ignored class does not).
        num_true: points whose truth is the class.
        num_predicted: points of known truth that were predicted as the class.
        mean_iou, mean_accuracy: over all included classes, absent ones as 0.
        mean_iou_present, mean_accuracy_present: over included classes that have a true point; NaN without such a class.
        overall_accuracy: share of points of known truth that are right; NaN without points.
        coverage: share of points of known truth that were predicted as an included class; NaN without points.
        num_points: points of known truth.
        num_ignored: points left out because their truth is unknown.
        matrix: points of each (true class, predicted class).
    """

    iou: Float64[Array, " c"]
    accuracy: Float64[Array, " c"]
    present: Bool[Array, " c"]
    included: Bool[Array, " c"]
    num_true: Int64[Array, " c"]
    num_predicted: Int64[Array, " c"]
    mean_iou: float
    mean_accuracy: float
    mean_iou_present: float
    mean_accuracy_present: float
    overall_accuracy: float
    coverage: float
    num_points: int
    num_ignored: int
    matrix: Int64[Array, "c c"]


class SemanticConfusion:
    """A confusion matrix that takes scans one at a time: `update`, `merge`, `compute`.

    Args:
        num_classes: classes are 0 to `num_classes` - 1.
        ignore_label: the truth of points that are left out, inside or outside the classes; without it every truth must be
            a class. Inside the classes it takes part in no mean, and predicting it is a miss.
        no_prediction: the prediction of points that got none: they count as a miss of their true class and lower the
            coverage; without it every prediction must be a class.

    Raises:
        UsageError: no class, or `no_prediction` is a class.
    """

    def __init__(self, num_classes: int, *, ignore_label: int | None = None, no_prediction: int | None = None) -> None:
        if num_classes < 1:
            raise UsageError(f"num_classes must be at least 1, got {num_classes}.")
        if no_prediction is not None and 0 <= no_prediction < num_classes:
            raise UsageError(f"no_prediction must not be a class, got {no_prediction}.", "Use -1.")
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.no_prediction = no_prediction
        classes = range(num_classes)
        truth_labels = [*classes, *([] if ignore_label is None or ignore_label in classes else [ignore_label])]
        prediction_labels = [*classes, *([] if no_prediction is None else [no_prediction])]
        self._count = PairCounter(truth_labels, prediction_labels)
        self._counts = np.zeros((len(truth_labels), len(prediction_labels)), np.int64)

    @property
    def matrix(self) -> Int64[Array, "c c"]:
        """Points of each (true class, predicted class); the row of an ignored class is zero."""
        matrix = self._counts[: self.num_classes, : self.num_classes].copy()
        if self.ignore_label is not None and 0 <= self.ignore_label < self.num_classes:
            matrix[self.ignore_label] = 0
        return matrix

    @property
    def unanswered(self) -> Int64[Array, " c"]:
        """Points of each true class that have no prediction."""
        missed = self._counts[: self.num_classes, self.num_classes :].sum(axis=1)
        if self.ignore_label is not None and 0 <= self.ignore_label < self.num_classes:
            missed[self.ignore_label] = 0
        return missed

    def update(self, prediction: object, truth: object) -> None:
        """Count the points of one scan or view.

        Args:
            prediction: integers [n], a predicted class per point.
            truth: integers [n], the true class per point.

        Raises:
            DataError: not integers, lengths differ, or a label is neither a class nor one that was declared; nothing is
                counted then.
        """
        predicted, true = as_labels("prediction", prediction), as_labels("truth", truth)
        check_same_length(prediction=predicted, truth=true)
        self._counts += self._count(true, predicted)

    def update_pairs(
        self, prediction: Int64[Array, " u"], truth: Int64[Array, " u"], counts: Int64[Array, " u"]
    ) -> None:
        """Count points that have already been counted by pair (see `counting.count_overlaps`).

        Args:
            prediction: predicted class per pair.
            truth: true class per pair.
            counts: points per pair.

        Raises:
            DataError: as `update`.
        """
        rows, columns = self._count.positions(truth, prediction)
        np.add.at(self._counts, (rows, columns), counts)

    def merge(self, other: SemanticConfusion) -> None:
        """Add another one's counts.

        Raises:
            UsageError: it counts other classes.
        """
        mine, theirs = self._settings, other._settings
        if mine != theirs:
            raise UsageError(f"Confusions of different settings cannot be merged: {mine} and {theirs}.")
        self._counts += other._counts

    def compute(self) -> SemanticScores:
        """The scores of everything counted so far."""
        included = np.ones(self.num_classes, bool)
        if self.ignore_label is not None and 0 <= self.ignore_label < self.num_classes:
            included[self.ignore_label] = False
        matrix = self.matrix
        num_points = int(matrix.sum() + self.unanswered.sum())
        return scores_from_matrix(matrix, self.unanswered, included, num_ignored=int(self._counts.sum()) - num_points)

    @property
    def _settings(self) -> tuple[int, int | None, int | None]:
        return self.num_classes, self.ignore_label, self.no_prediction


def scores_from_matrix(
    matrix: Int64[Array, "c c"],
    unanswered: Int64[Array, " c"] | None = None,
    included: Bool[Array, " c"] | None = None,
    *,
    num_ignored: int = 0,
) -> SemanticScores:
    """Scores of a confusion matrix.

    Args:
        matrix: points of each (true class, predicted class).
        unanswered: points of each true class without a prediction.
        included: classes that take part in means.
        num_ignored: number of ignored points, copied to the result.
    """
    num_classes = len(matrix)
    unanswered = np.zeros(num_classes, np.int64) if unanswered is None else unanswered
    included = np.ones(num_classes, bool) if included is None else included
    hit = matrix.diagonal()
    num_true, num_predicted = matrix.sum(axis=1) + unanswered, matrix.sum(axis=0)
    iou = hit / np.maximum(num_true + num_predicted - hit, 1)
    accuracy = hit / np.maximum(num_true, 1)
    present = num_true > 0
    num_points, num_answered = int(num_true.sum()), int(matrix[:, included].sum())
    return SemanticScores(
        iou=iou,
        accuracy=accuracy,
        present=present,
        included=included,
        num_true=num_true,
        num_predicted=num_predicted,
        mean_iou=mean_or_nan(iou[included]),
        mean_accuracy=mean_or_nan(accuracy[included]),
        mean_iou_present=mean_or_nan(iou[included & present]),
        mean_accuracy_present=mean_or_nan(accuracy[included & present]),
        overall_accuracy=int(hit.sum()) / num_points if num_points else float("nan"),
        coverage=num_answered / num_points if num_points else float("nan"),
        num_points=num_points,
        num_ignored=num_ignored,
        matrix=matrix,
    )


def lidarseg_scores(scores: SemanticScores) -> SemanticScores:
    """The IoUs and their mean as the tool of nuScenes-lidarseg computes them.

    It zeroes both the row and the column of the ignored class, so that a point predicted as ignored does not count as missed;
    it divides by a union rounded to single precision, and leaves classes without truth and prediction out of the mean.

    Args:
        scores: with a matrix of all points; their other fields are copied.
    """
    kept = scores.included
    matrix = np.where(kept[:, None] & kept, scores.matrix, 0)
    hit = matrix.diagonal()
    union = matrix.sum(axis=1) + matrix.sum(axis=0) - hit
    iou = hit / np.maximum(union, 1).astype(np.float32)
    return replace(scores, iou=iou, mean_iou=mean_or_nan(iou[union > 0]))


def mean_or_nan(values: Float64[Array, " k"] | Sequence[float]) -> float:
    """The mean, or NaN (without a warning) of nothing."""
    return float(np.mean(values)) if len(values) else float("nan")
