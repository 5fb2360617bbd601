"""Panoptic quality, exactly as the official tools of SemanticKITTI and Panoptic nuScenes compute it.

A segment is the set of points of one scan that share a class and an instance id. With I the points that a predicted and a
true segment of one class share, and U the points of either:
    IoU = I / U        a pair is a true positive (TP) if IoU > 1/2, strictly
    SQ = sum of IoU over TP / |TP|        RQ = |TP| / (|TP| + |FP| / 2 + |FN| / 2)        PQ = SQ RQ
(Kirillov et al., *Panoptic Segmentation*, CVPR 2019, eq. 1 and 2). PQ-dagger takes the IoU in place of the PQ of stuff (Porzi
et al., *Seamless Scene Segmentation*, CVPR 2019, section 4.2).

Beyond the formula, the official tools and this module do the following:
- points whose truth is an ignored class are dropped first, from both sides; spilling onto them is free;
- an unmatched segment counts as FP or FN only if it has at least `min_points` points after that drop; a match always counts;
- instance ids are used as given: 0 is an id, and ids on stuff split it. Both tools pass the whole packed label, so that raw
  classes which map to one class stay separate segments;
- predicting an ignored class is never an FP, but the points are missing from their class: FN, and a lower IoU;
- means run over every class that is not ignored; a class that never occurs scores 0;
- the mean IoU leaves out points of ignored truth, not points of ignored prediction.

Unlike the official tools, which let a label of -1 wrap around to the last class, this module rejects it.

The result is the same for any order of scans and any number of workers: counts are integers, and so is the sum of IoUs. A
double in (1/2, 1] is a whole number of 2^-53; those whole numbers are added, and rounded once in `compute`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.shapes import Array, Bool, Float64, Int64, Integer
from ov3d.common.metrics.counting import as_labels, check_labels, check_same_length, fold_runs, largest_unsigned
from ov3d.common.metrics.segments import SegmentPairs, numbered, overlaps
from ov3d.common.metrics.semantic import mean_or_nan

NUM_INSTANCE_BITS = 32
"""Instance ids are below 2^32, the limit of both data sets' files and of the official packing."""

_IOU_BITS = 53
_LOW_BITS = 26

_TP, _IOU, _FP, _FN = 0, (1, 2), 3, 4
"""Rows of the counts per class."""


@dataclass(frozen=True, slots=True, eq=False)
class PanopticScores:
    """Scores of c classes; fractions, not per cent.

    Attributes:
        pq, sq, rq: panoptic, segmentation and recognition quality per class; 0 for an absent class.
        iou: semantic intersection over union per class.
        tp, fp, fn: segments per class.
        sum_iou: sum of the IoUs of the true positives per class.
        included: whether the class takes part in means (ignored classes do not).
        things: whether the class is a thing.
        num_true: points of each true class.
        mean_pq, mean_sq, mean_rq, mean_iou: over all included classes.
        pq_dagger: mean over included classes of the PQ of things and the IoU of stuff.
        num_points: points of known truth.
        num_ignored: points whose truth is ignored.
        coverage: share of points of known truth that were predicted as a class that is not ignored; NaN without points.
        num_scans: scans that were counted.
    """

    pq: Float64[Array, " c"]
    sq: Float64[Array, " c"]
    rq: Float64[Array, " c"]
    iou: Float64[Array, " c"]
    tp: Int64[Array, " c"]
    fp: Int64[Array, " c"]
    fn: Int64[Array, " c"]
    sum_iou: Float64[Array, " c"]
    included: Bool[Array, " c"]
    things: Bool[Array, " c"]
    num_true: Int64[Array, " c"]
    mean_pq: float
    mean_sq: float
    mean_rq: float
    mean_iou: float
    pq_dagger: float
    num_points: int
    num_ignored: int
    coverage: float
    num_scans: int


class PanopticQuality:
    """Panoptic quality that takes scans one at a time: `update`, `merge`, `compute`.

    Args:
        num_classes: classes are 0 to `num_classes` - 1, ignored ones among them.
        things: which of them are things.
        ignore: which of them are ignored.
        min_points: smallest unmatched segment that counts (SemanticKITTI 50, Panoptic nuScenes 15).

    Raises:
        UsageError: a class is out of range, or a thing is ignored.
    """

    def __init__(
        self, num_classes: int, things: Iterable[int], *, ignore: Iterable[int] = (), min_points: int = 50
    ) -> None:
        self.num_classes = num_classes
        self.things, self.ignore, self.min_points = tuple(sorted(things)), tuple(sorted(ignore)), min_points
        if num_classes < 1:
            raise UsageError(f"num_classes must be at least 1, got {num_classes}.")
        for name, classes in (("things", self.things), ("ignore", self.ignore)):
            wrong = [idx for idx in classes if not 0 <= idx < num_classes]
            if wrong:
                raise UsageError(f"{name} must hold classes from 0 to {num_classes - 1}, got {wrong[0]}.")
        if set(self.things) & set(self.ignore):
            raise UsageError(f"Class {min(set(self.things) & set(self.ignore))} is both a thing and ignored.")
        self._class_bits = max((num_classes - 1).bit_length(), 1)
        self._class_mask = (1 << self._class_bits) - 1
        self._is_known = (~np.isin(np.arange(num_classes), self.ignore)).astype(np.int64)
        # Everything that is counted, in one array: first tp, sums of IoU 2^53 (high and low parts), fp, fn; then the matrix.
        self._totals = np.zeros((5 + num_classes) * num_classes, np.int64)
        self.num_scans = 0

    @property
    def tp(self) -> Int64[Array, " c"]:
        """Matched segments per class."""
        return self._row(_TP).copy()

    @property
    def fp(self) -> Int64[Array, " c"]:
        """Predicted segments per class that are large enough and match nothing."""
        return self._row(_FP).copy()

    @property
    def fn(self) -> Int64[Array, " c"]:
        """True segments per class that are large enough and match nothing."""
        return self._row(_FN).copy()

    @property
    def confusion(self) -> Int64[Array, "c c"]:
        """Points of each (true class, predicted class), ignored classes included (the official tool keeps its transpose)."""
        return self._totals[5 * self.num_classes :].reshape(self.num_classes, self.num_classes).copy()

    def update(
        self, prediction_class: object, prediction_instance: object, truth_class: object, truth_instance: object
    ) -> None:
        """Count the segments of one scan.

        Args:
            prediction_class: integers [n], the predicted class of each point.
            prediction_instance: integers [n], 0 to 2^32 - 1, the id of each point; equal ids of different classes are
                different segments.
            truth_class: integers [n], the true class of each point.
            truth_instance: integers [n], as `prediction_instance`. For the official numbers, pass the whole packed label as
                the id, on both sides.

        Raises:
            DataError: not integers, lengths differ, a class below 0 or beyond the last, an id below 0 or too large;
                nothing is counted then.
        """
        names = ("prediction_class", "prediction_instance", "truth_class", "truth_instance")
        given = (prediction_class, prediction_instance, truth_class, truth_instance)
        arrays = {name: as_labels(name, values) for name, values in zip(names, given, strict=True)}
        check_same_length(**arrays)
        folded, lengths = fold_runs(*arrays.values())
        largest = [self._largest(name, values, arrays[name]) for name, values in zip(names, folded, strict=True)]
        id_bits = largest[1].bit_length(), largest[3].bit_length()
        self._add(*overlaps(folded[:2], folded[2:], lengths, id_bits, self._class_bits))

    def update_segments(self, pairs: SegmentPairs) -> None:
        """Count one scan from its table of overlaps, for callers that have already counted points (see `counting`).

        Raises:
            DataError: a class below 0 or beyond the last.
        """
        for name in ("prediction_class", "truth_class"):
            self._largest(name, getattr(pairs, name))
        predicted = pairs.prediction_id << self._class_bits | pairs.prediction_class
        self._add(predicted, pairs.truth_id << self._class_bits | pairs.truth_class, pairs.counts)

    def merge(self, other: PanopticQuality) -> None:
        """Add the counts of another instance.

        Raises:
            UsageError: it has different classes or another `min_points`.
        """
        if self._settings != other._settings:
            raise UsageError(f"Counts of different settings cannot be merged: {self._settings} and {other._settings}.")
        self._totals += other._totals
        self.num_scans += other.num_scans

    def compute(self) -> PanopticScores:
        """The scores of everything counted so far."""
        tp, fp, fn, confusion = self.tp, self.fp, self.fn, self.confusion
        # Python divides integers of any size and rounds once.
        units = [
            (high << _LOW_BITS) + low for high, low in zip(*(self._row(row).tolist() for row in _IOU), strict=True)
        ]
        sum_iou = np.array([total / (1 << _IOU_BITS) for total in units])
        sq = sum_iou / np.maximum(tp, 1)
        rq = tp / np.maximum(tp + 0.5 * fp + 0.5 * fn, 0.5)
        pq = sq * rq
        included = self._is_known > 0
        things = np.isin(np.arange(self.num_classes), self.things)
        known = confusion[included]
        hit = np.where(included, confusion.diagonal(), 0)
        num_true = np.where(included, confusion.sum(axis=1), 0)
        iou = hit / np.maximum(num_true + known.sum(axis=0) - hit, 1)
        num_points = int(num_true.sum())
        return PanopticScores(
            pq=pq,
            sq=sq,
            rq=rq,
            iou=iou,
            tp=tp,
            fp=fp,
            fn=fn,
            sum_iou=sum_iou,
            included=included,
            things=things,
            num_true=num_true,
            mean_pq=mean_or_nan(pq[included]),
            mean_sq=mean_or_nan(sq[included]),
            mean_rq=mean_or_nan(rq[included]),
            mean_iou=mean_or_nan(iou[included]),
            pq_dagger=mean_or_nan(np.where(things, pq, iou)[included]),
            num_points=num_points,
            num_ignored=int(confusion.sum()) - num_points,
            coverage=int(known[:, included].sum()) / num_points if num_points else float("nan"),
            num_scans=self.num_scans,
        )

    @property
    def _settings(self) -> tuple[int, tuple[int, ...], tuple[int, ...], int]:
        return self.num_classes, self.things, self.ignore, self.min_points

    def _row(self, row: int) -> Int64[Array, " c"]:
        return self._totals[row * self.num_classes : (row + 1) * self.num_classes]

    def _largest(self, name: str, values: Integer[Array, " r"], unfolded: Integer[Array, " n"] | None = None) -> int:
        """The largest of the values, all of which are in range, or an error that names one of the unfolded ones."""
        is_class = name.endswith("_class")
        beyond = self.num_classes if is_class else 1 << NUM_INSTANCE_BITS
        largest = largest_unsigned(values) if len(values) else 0
        if largest < min(beyond, 1 << (8 * values.dtype.itemsize - (values.dtype.kind == "i"))):
            return largest
        values = values if unfolded is None else unfolded
        if is_class:
            check_labels(name, values, np.arange(self.num_classes))
        wrong = int(np.flatnonzero((values < 0) | (values > beyond - 1))[0])
        raise DataError(
            f"{name} holds {int(values[wrong])} at index {wrong}.", f"Instance ids must be from 0 to {beyond - 1}."
        )

    def _add(self, predicted: Int64[Array, " u"], true: Int64[Array, " u"], counts: Int64[Array, " u"]) -> None:
        """Match the segments of one scan from the table of their overlaps, and count.

        Args:
            predicted, true: id and class of each pair's segments, the class in the low bits.
            counts: points of each pair.
        """
        num = self.num_classes
        prediction_class, truth_class = predicted & self._class_mask, true & self._class_mask
        # Points of ignored truth are dropped from both sides: segments entirely there have no area and do not count.
        shared = counts * self._is_known.take(truth_class)
        is_true = 1 << (NUM_INSTANCE_BITS + self._class_bits)
        segments, idx = numbered(np.concatenate([predicted, true | is_true]))
        area = np.bincount(idx, weights=np.concatenate([shared, shared]), minlength=len(segments))  # doubles: exact
        idx_of_side = idx.reshape(2, -1)
        union = area.take(idx_of_side).sum(axis=0) - shared
        # The tools compare the quotient with 1/2 in doubles; for counts below 2^52 this is the same, without rounding.
        hit = np.flatnonzero((prediction_class == truth_class) & (2 * shared > union))
        area[idx_of_side.take(hit, axis=1)] = 0
        missed = segments[area >= max(self.min_points, 1)]
        missed_class = missed & self._class_mask
        units = np.ldexp(shared.take(hit) / union.take(hit), _IOU_BITS).astype(np.int64)
        rows = (
            np.add.outer((_TP * num, _IOU[0] * num, _IOU[1] * num), truth_class.take(hit)).ravel(),
            np.where(missed < is_true, _FP * num, _FN * num) + missed_class,
            (truth_class + 5) * num + prediction_class,
        )
        weights = (
            np.ones(len(hit), np.int64),
            units >> _LOW_BITS,
            units & ((1 << _LOW_BITS) - 1),
            self._is_known.take(missed_class),
            counts,
        )
        found = np.bincount(np.concatenate(rows), weights=np.concatenate(weights), minlength=len(self._totals))
        self._totals += found.astype(np.int64)
        self.num_scans += 1
