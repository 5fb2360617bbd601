"""Panoptic quality, exactly as the official tools of SemanticKITTI and Panoptic nuScenes compute it.

A segment is the set of points of one scan that share a class and an instance id. With I the points that a predicted and a
true segment of one class share, and U the points of either:
    IoU = I / U        a pair is a true positive (TP) if IoU > 1/2, strictly
    SQ = sum of IoU over TP / |TP|        RQ = |TP| / (|TP| + |FP| / 2 + |FN| / 2)        PQ = SQ RQ
(Kirillov et al., *Panoptic Segmentation*, CVPR 2019, eq. 1 and 2). PQ-dagger takes the IoU in place of the PQ of stuff (Porzi
et al., *Seamless Scene Segmentation*, CVPR 2019, section 4.2).

What the official tools do beyond the formula, and so does this:
- points whose truth is an ignored class are dropped first, from both sides; spilling onto them is free;
- an unmatched segment counts as FP or FN only from `min_points` points on, what is left of it after that drop; a match always
  counts;
- an instance id is whatever it is handed: 0 is an id, and ids on stuff split it. Both tools hand over the whole packed label,
  so that raw classes which map to one class stay separate segments;
- predicting an ignored class is never an FP, but the points are missing from their class: FN, and a lower IoU;
- means run over every class that is not ignored; a class that never occurs scores 0;
- the mean IoU leaves out points of ignored truth, not points of ignored prediction.

What they do and this does not: they let a label of -1 wrap round to the last class. Here it is refused.

The result is the same for any order of scans and any number of workers: counts are integers, and so is the sum of IoUs. A
double in (1/2, 1] is a whole number of 2^-53; those whole numbers are added, and rounded once in `compute`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ov3d.common.errors import DataError, UsageError
from ov3d.common.metrics.counting import as_labels, check_labels, check_same_length, count_unique, fold_runs
from ov3d.common.metrics.semantic import mean_or_nan
from ov3d.common.shapes import Array, Bool, Float64, Int64, Integer, UInt64

NUM_INSTANCE_BITS = 32
"""Instance ids are below 2^32, what the files of both data sets can hold and the official packing can tell apart."""

_IOU_BITS = 53
_LOW_BITS = 26


@dataclass(frozen=True, slots=True, eq=False)
class PanopticScores:
    """Scores of c classes; fractions, not per cent.

    Attributes:
        pq, sq, rq: panoptic, segmentation and recognition quality a class; 0 for an absent class.
        iou: semantic intersection over union a class.
        tp, fp, fn: segments a class.
        sum_iou: sum of the IoUs of the true positives a class.
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
        min_points: the least size of an unmatched segment that counts (SemanticKITTI 50, Panoptic nuScenes 15).

    Raises:
        UsageError: a class out of range, or a thing that is ignored.
    """

    def __init__(
        self, num_classes: int, things: Iterable[int], *, ignore: Iterable[int] = (), min_points: int = 50
    ) -> None:
        self.num_classes = num_classes
        self.things, self.ignore, self.min_points = tuple(sorted(things)), tuple(sorted(ignore)), min_points
        if num_classes < 1:
            raise UsageError(f"num_classes is {num_classes}; there must be at least one class.")
        for name, classes in (("things", self.things), ("ignore", self.ignore)):
            wrong = [idx for idx in classes if not 0 <= idx < num_classes]
            if wrong:
                raise UsageError(f"{name} holds {wrong[0]}; classes are 0 to {num_classes - 1}.")
        if set(self.things) & set(self.ignore):
            raise UsageError(f"Class {min(set(self.things) & set(self.ignore))} is both a thing and ignored.")
        self._class_bits = max((num_classes - 1).bit_length(), 1)
        self._is_ignored = np.isin(np.arange(num_classes), self.ignore)
        self._counts = np.zeros((3, num_classes), np.int64)  # tp, fp, fn
        self._sum_iou = np.zeros((2, num_classes), np.int64)  # high and low parts of sums of IoU 2^53
        self._confusion = np.zeros((num_classes, num_classes), np.int64)
        self.num_scans = 0

    @property
    def tp(self) -> Int64[Array, " c"]:
        """Matched segments a class."""
        return self._counts[0].copy()

    @property
    def fp(self) -> Int64[Array, " c"]:
        """Predicted segments a class that are large enough and match nothing."""
        return self._counts[1].copy()

    @property
    def fn(self) -> Int64[Array, " c"]:
        """True segments a class that are large enough and match nothing."""
        return self._counts[2].copy()

    @property
    def confusion(self) -> Int64[Array, "c c"]:
        """Points of each (true class, predicted class), ignored classes included (the official tool keeps its transpose)."""
        return self._confusion.copy()

    def update(
        self, prediction_class: object, prediction_instance: object, truth_class: object, truth_instance: object
    ) -> None:
        """Count the segments of one scan.

        Args:
            prediction_class: integers [n], a class a point.
            prediction_instance: integers [n], 0 to 2^32 - 1, an id a point; equal ids of different classes are different
                segments.
            truth_class: integers [n], the true class a point.
            truth_instance: integers [n], as `prediction_instance`. For the official numbers, hand over the whole packed
                label as the id, on both sides.

        Raises:
            DataError: not integers, lengths differ, a class below 0 or beyond the last, an id below 0 or too large;
                nothing is counted then.
        """
        names = ("prediction_class", "prediction_instance", "truth_class", "truth_instance")
        given = (prediction_class, prediction_instance, truth_class, truth_instance)
        arrays = {name: as_labels(name, values) for name, values in zip(names, given, strict=True)}
        check_same_length(**arrays)
        folded, lengths = fold_runs(*arrays.values())
        for name, values in zip(names, folded, strict=True):
            self._check_range(name, values, arrays[name])
        predicted = _packed(folded[1], folded[0], self._class_bits)
        true = _packed(folded[3], folded[2], self._class_bits)
        self._add(*self._segment_pairs(predicted, true, lengths))

    def update_segments(self, pairs: SegmentPairs) -> None:
        """Count one scan from its table of overlaps, for callers who have counted points already (see `counting`).

        Raises:
            DataError: a class below 0 or beyond the last.
        """
        for name in ("prediction_class", "truth_class"):
            self._check_range(name, getattr(pairs, name))
        self._add(*pairs)

    def merge(self, other: PanopticQuality) -> None:
        """Add another one's counts.

        Raises:
            UsageError: it was made with other classes or another `min_points`.
        """
        if self._settings != other._settings:
            raise UsageError(f"Counts of different settings cannot be merged: {self._settings} and {other._settings}.")
        self._counts += other._counts
        self._sum_iou += other._sum_iou
        self._confusion += other._confusion
        self.num_scans += other.num_scans

    def compute(self) -> PanopticScores:
        """The scores of everything that was counted."""
        tp, fp, fn = self._counts
        scale = 1 << _IOU_BITS
        # Python divides integers of any size and rounds once.
        sum_iou = np.array([((int(high) << _LOW_BITS) + int(low)) / scale for high, low in self._sum_iou.T])
        sq = sum_iou / np.maximum(tp, 1)
        rq = tp / np.maximum(tp + 0.5 * fp + 0.5 * fn, 0.5)
        pq = sq * rq
        included = ~self._is_ignored
        things = np.isin(np.arange(self.num_classes), self.things)
        known = self._confusion[included]
        hit = np.where(included, self._confusion.diagonal(), 0)
        num_true = np.where(included, self._confusion.sum(axis=1), 0)
        iou = hit / np.maximum(num_true + known.sum(axis=0) - hit, 1)
        num_points = int(num_true.sum())
        return PanopticScores(
            pq=pq,
            sq=sq,
            rq=rq,
            iou=iou,
            tp=tp.copy(),
            fp=fp.copy(),
            fn=fn.copy(),
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
            num_ignored=int(self._confusion.sum()) - num_points,
            coverage=int(known[:, included].sum()) / num_points if num_points else float("nan"),
            num_scans=self.num_scans,
        )

    @property
    def _settings(self) -> tuple[int, tuple[int, ...], tuple[int, ...], int]:
        return self.num_classes, self.things, self.ignore, self.min_points

    def _check_range(
        self, name: str, values: Integer[Array, " r"], unfolded: Integer[Array, " n"] | None = None
    ) -> None:
        if not len(values):
            return
        is_class = name.endswith("_class")
        beyond = self.num_classes if is_class else 1 << NUM_INSTANCE_BITS
        # Seen as unsigned, negative values are huge, so that one maximum tells both.
        unsigned = values.view(values.dtype.str.replace("i", "u")) if values.dtype.kind == "i" else values
        if int(unsigned.max()) < min(beyond, 1 << (8 * values.dtype.itemsize - (values.dtype.kind == "i"))):
            return
        values = values if unfolded is None else unfolded
        if is_class:
            check_labels(name, values, np.arange(self.num_classes))
        wrong = int(np.flatnonzero((values < 0) | (values > beyond - 1))[0])
        raise DataError(f"{name} holds {int(values[wrong])} at index {wrong}.", f"Instance ids are 0 to {beyond - 1}.")

    def _segment_pairs(
        self, predicted: UInt64[Array, " r"], true: UInt64[Array, " r"], lengths: Int64[Array, " r"] | None
    ) -> SegmentPairs:
        """The distinct pairs of packed (id, class), and how many points each has; overwrites `true`."""
        prediction_bits = int(predicted.max()).bit_length() if len(predicted) else 0
        truth_bits = int(true.max()).bit_length() if len(true) else 0
        if prediction_bits + truth_bits <= 64:
            np.left_shift(true, np.uint64(prediction_bits), out=true)
            np.bitwise_or(true, predicted, out=true)
            keys, counts = count_unique(true, lengths)
            true, predicted = keys >> np.uint64(prediction_bits), keys & np.uint64((1 << prediction_bits) - 1)
        else:  # ids too large for one key: number the segments of each side first
            true_segments, true_idx = np.unique(true, return_inverse=True)
            predicted_segments, predicted_idx = np.unique(predicted, return_inverse=True)
            num = len(predicted_segments)
            keys, counts = count_unique((true_idx * num + predicted_idx).astype(np.uint64), lengths)
            pair = keys.astype(np.int64)
            true, predicted = true_segments[pair // num], predicted_segments[pair % num]
        shift, mask = np.uint64(self._class_bits), np.uint64((1 << self._class_bits) - 1)
        parts = (predicted & mask, predicted >> shift, true & mask, true >> shift)
        pairs = [part.astype(np.int64) for part in parts]
        return SegmentPairs(pairs[0], pairs[1], pairs[2], pairs[3], counts)

    def _add(
        self,
        prediction_class: Int64[Array, " u"],
        prediction_id: Int64[Array, " u"],
        truth_class: Int64[Array, " u"],
        truth_id: Int64[Array, " u"],
        counts: Int64[Array, " u"],
    ) -> None:
        """Match the segments of one scan from the table of their overlaps, and count."""
        num = self.num_classes
        cells = np.bincount(truth_class * num + prediction_class, weights=counts, minlength=num * num)
        self._confusion += cells.astype(np.int64).reshape(num, num)
        self.num_scans += 1
        keep = (~self._is_ignored).take(truth_class)
        shared = counts[keep]
        predicted = _Segments((prediction_id << self._class_bits | prediction_class)[keep], self._class_bits, shared)
        true = _Segments((truth_id << self._class_bits | truth_class)[keep], self._class_bits, shared)
        union = predicted.area.take(predicted.idx) + true.area.take(true.idx) - shared
        # The tools compare the quotient with 1/2 in doubles; for counts below 2^52 this is the same, without rounding.
        hit = np.flatnonzero((prediction_class == truth_class)[keep] & (2 * shared > union))
        hit_true, hit_predicted = true.idx.take(hit), predicted.idx.take(hit)
        hit_class = true.label.take(hit_true)
        missed = [
            segments.label[segments.is_missed(matched, self.min_points) & ~self._is_ignored.take(segments.label)]
            for segments, matched in ((predicted, hit_predicted), (true, hit_true))
        ]
        rows = np.concatenate([hit_class, missed[0] + num, missed[1] + 2 * num])
        self._counts += np.bincount(rows, minlength=3 * num).reshape(3, num)
        units = np.ldexp(shared.take(hit) / union.take(hit), _IOU_BITS).astype(np.int64)
        parts = np.concatenate([units >> _LOW_BITS, units & ((1 << _LOW_BITS) - 1)])
        rows = np.concatenate([hit_class, hit_class + num])
        self._sum_iou += np.bincount(rows, weights=parts, minlength=2 * num).astype(np.int64).reshape(2, num)


class SegmentPairs(NamedTuple):
    """The overlaps of one scan: u pairs of a predicted and a true segment, and their points in common."""

    prediction_class: Int64[Array, " u"]
    prediction_id: Int64[Array, " u"]
    truth_class: Int64[Array, " u"]
    truth_id: Int64[Array, " u"]
    counts: Int64[Array, " u"]


class _Segments:
    """The distinct segments in one side of a table of overlaps.

    Attributes:
        label: class of each segment.
        area: points of each segment.
        idx: the segment of each row of the table.
    """

    def __init__(self, keys: Int64[Array, " u"], class_bits: int, counts: Int64[Array, " u"]) -> None:
        order = None
        if (keys[1:] < keys[:-1]).any():  # the truth of a table that was counted is sorted already
            order = np.argsort(keys)
            keys = keys.take(order)
        is_first = np.ones(len(keys), bool)
        np.not_equal(keys[1:], keys[:-1], out=is_first[1:])
        self.idx = np.cumsum(is_first)
        self.idx -= 1
        self.label = keys[is_first] & ((1 << class_bits) - 1)
        if order is not None:
            by_row = np.empty_like(self.idx)
            by_row[order] = self.idx
            self.idx = by_row
        self.area = np.bincount(self.idx, weights=counts, minlength=len(self.label)).astype(np.int64)

    def is_missed(self, matched: Int64[Array, " m"], min_points: int) -> Bool[Array, " s"]:
        """Whether a segment is large enough to count, and not among those that matched."""
        missed = self.area >= min_points
        missed[matched] = False
        return missed


def _packed(ids: Integer[Array, " n"], classes: Integer[Array, " n"], class_bits: int) -> UInt64[Array, " n"]:
    """Id and class in one unsigned 64-bit key."""
    key = np.left_shift(ids.astype(np.uint64, copy=False), np.uint64(class_bits))
    np.bitwise_or(key, classes.astype(np.uint64, copy=False), out=key)
    return key
