"""Scoring folders of label files: pair, read, count, merge; one process or many, with the same result.

Scans are cut into chunks that are counted apart and merged in order; all counts are integers, so neither the chunks nor the
processes can change a bit. Ids that no file may hold are found in the table of counted pairs, not point by point.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.progress import Progress, Silent
from ov3d.common.base.shapes import Array, Bool, Int64, Integer, UInt32
from ov3d.common.datasets import DatasetSpec
from ov3d.common.datasets.loader import NO_CLASS, UNKNOWN_ID
from ov3d.common.metrics.counting import count_overlaps
from ov3d.common.metrics.label_files import Fault, FaultyFilesError, LabelPair, LabelReader, pair_files
from ov3d.common.metrics.panoptic import PanopticQuality, SegmentPairs
from ov3d.common.metrics.report import EvalReport, panoptic_report, semantic_report
from ov3d.common.metrics.semantic import SemanticConfusion, lidarseg_scores

CHUNK = 32
"""Scans that a process takes at a time."""

SCANS_PER_PROCESS = 500
"""A second process is started only for so many scans more: fewer are read and counted before it has imported NumPy."""

UNKNOWN = "it holds ids that the class map does not know"

NEGATIVE = 0xFFFFFFFF
"""What stands for the negative ids that a data set allows, once labels are unsigned."""

Ids: TypeAlias = Literal["auto", "raw", "class"]
Metric: TypeAlias = PanopticQuality | SemanticConfusion


@dataclass(frozen=True, slots=True, eq=False)
class Scoring:
    """How one pair of files is scored; small, and sent to every process.

    Attributes:
        spec: the data set.
        protocol: one of its protocols.
        truth_ids, prediction_ids: whether files hold raw ids or class ids.
    """

    spec: DatasetSpec
    protocol: str
    truth_ids: Ids = "auto"
    prediction_ids: Ids = "auto"

    def new_metric(self) -> Metric:
        """A metric that has counted nothing."""
        spec = self.spec
        ignored = spec.ignored_class
        if self.protocol == "panoptic":
            ignore = [] if ignored is None else [ignored]
            return PanopticQuality(len(spec.classes), spec.things, ignore=ignore, min_points=spec.min_points)
        return SemanticConfusion(
            len(spec.classes), ignore_label=NO_CLASS if ignored is None else ignored, no_prediction=NO_CLASS
        )


@dataclass(slots=True, eq=False)
class Part:
    """What was counted in some scans.

    Attributes:
        metric: the counts of scans without a fault.
        faults: files that cannot be scored.
        truth_seen, prediction_seen: which ids occurred, as far as the id tables reach; the last entry is any id beyond.
    """

    metric: Metric
    faults: list[Fault]
    truth_seen: Bool[Array, " t"]
    prediction_seen: Bool[Array, " p"]

    def merge(self, other: Part) -> None:
        """Add another part, whose scans come after these."""
        self.metric.merge(other.metric)  # type: ignore[arg-type]
        self.faults += other.faults
        self.truth_seen |= other.truth_seen
        self.prediction_seen |= other.prediction_seen


def evaluate_folders(
    spec: DatasetSpec,
    truth_root: Path,
    prediction_root: Path,
    *,
    protocol: str | None = None,
    subset: str | None = None,
    wanted: Iterable[str] | None = None,
    split: str | None = None,
    truth_ids: Ids = "auto",
    prediction_ids: Ids = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
) -> EvalReport:
    """Score a folder of per-point predictions against a folder of truth.

    Args:
        spec: the data set.
        truth_root, prediction_root: folders, laid out as `docs/protocols.md` says.
        protocol: one of the data set's; none takes its first.
        subset: train, val, test or all, where the data set has them.
        wanted: names of the scans to score; none takes all of the subset.
        split: base/novel split; none takes the data set's own.
        truth_ids, prediction_ids: `raw` or `class` ids in the files; `auto` takes raw ones, and refuses files that look like
            class ids.
        workers: processes; none takes as many as the number of scans is worth.
        progress: hears how far it is.

    Raises:
        FaultyFilesError: some files are missing, too many, damaged or hold ids that the data set does not know; all are named.
        DataError: an empty folder, or class ids where raw ids are expected.
        UsageError: no such protocol, subset or split.
    """
    listener = progress or Silent()
    spec.split(split)
    scoring = Scoring(spec, checked_protocol(spec, protocol), truth_ids, prediction_ids)
    pairs, faults = pair_files(spec, truth_root, prediction_root, subset=subset, wanted=wanted)
    total = score_pairs(scoring, pairs, workers=workers, progress=listener)
    faults += total.faults
    wrong_ids = _class_ids_error(scoring, total)
    if wrong_ids is not None:  # it explains every unknown id; what else is wrong is still named
        others = [fault for fault in faults if not fault.why.startswith(UNKNOWN)]
        raise FaultyFilesError(others, f"Also: {wrong_ids}") if others else wrong_ids
    if faults:
        raise FaultyFilesError(faults)
    return _report(scoring, total.metric, len(pairs), split)


def checked_protocol(spec: DatasetSpec, protocol: str | None) -> str:
    """The protocol of that name, or the data set's first.

    Raises:
        UsageError: the data set is not scored that way.
    """
    if protocol is None:
        return spec.protocols[0]
    if protocol not in spec.protocols:
        raise UsageError(f"{spec.title} has no protocol {protocol!r}.", f"It has: {', '.join(spec.protocols)}.")
    return protocol


def score_pairs(
    scoring: Scoring, pairs: Sequence[LabelPair], *, workers: int | None = None, progress: Progress | None = None
) -> Part:
    """Count all pairs of files.

    Args:
        scoring: how.
        pairs: the files.
        workers: processes; none takes as many as the number of scans is worth.
        progress: hears how far it is.
    """
    chunks = [pairs[start : start + CHUNK] for start in range(0, len(pairs), CHUNK)]
    total = score_chunk(scoring, [])
    with (progress or Silent()).task("Scoring scans", float(len(pairs))) as task:
        for chunk, part in zip(chunks, _scored(scoring, chunks, _num_workers(workers, len(pairs))), strict=True):
            total.merge(part)
            task.advance(float(len(chunk)))
    return total


def score_chunk(scoring: Scoring, pairs: Sequence[LabelPair]) -> Part:
    """Count some pairs of files in this process."""
    tables = [
        scoring.spec.id_table("truth", class_ids=scoring.truth_ids == "class"),
        scoring.spec.id_table("prediction", class_ids=scoring.prediction_ids == "class"),
    ]
    part = Part(scoring.new_metric(), [], *(np.zeros(len(table) + 1, bool) for table in tables))
    readers = LabelReader(scoring.spec.layout), LabelReader(scoring.spec.layout)
    for pair in pairs:
        _score_pair(scoring, pair, readers, tables[0], tables[1], part)
    return part


def _num_workers(workers: int | None, num_scans: int) -> int:
    if workers is not None:
        if workers < 1:
            raise UsageError(f"--workers is {workers}; at least one process has to do the work.")
        return workers
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(available, num_scans // SCANS_PER_PROCESS))


def _scored(scoring: Scoring, chunks: Sequence[Sequence[LabelPair]], workers: int) -> Iterator[Part]:
    if workers == 1 or len(chunks) < 2:
        for chunk in chunks:
            yield score_chunk(scoring, chunk)
        return
    # Spawned processes import this module anew: nothing of the caller's threads or locks comes along.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(chunks)), mp_context=context) as pool:
        yield from pool.map(score_chunk, [scoring] * len(chunks), chunks)


def _score_pair(
    scoring: Scoring,
    pair: LabelPair,
    readers: tuple[LabelReader, LabelReader],
    truth_table: Int64[Array, " t"],
    prediction_table: Int64[Array, " p"],
    part: Part,
) -> None:
    """Count one pair of files, or note what is wrong with them."""
    sides: list[UInt32[Array, ...]] = []
    signed: list[bool] = []
    for side, path, reader in zip(("truth", "prediction"), (pair.truth, pair.prediction), readers, strict=True):
        try:
            labels = reader.read(path)
            signed.append(labels.dtype.kind == "i")
            sides.append(_unsigned(labels, _negative_ids(scoring, side)))
        except DataError as error:
            part.faults.append(Fault(str(path), error.message))
    if len(sides) < 2:
        return
    truth, prediction = sides
    if len(truth) != len(prediction):
        why = f"it holds {len(prediction)} labels, the truth {len(truth)}"
        part.faults.append(Fault(str(pair.prediction), why))
        return
    overlaps = count_overlaps(prediction, truth)
    raw_truth = _raw_ids(scoring, overlaps.truth)
    raw_prediction = _raw_ids(scoring, overlaps.prediction)
    truth_class = _look_up(raw_truth, truth_table, part.truth_seen, signed[0])
    prediction_class = _look_up(raw_prediction, prediction_table, part.prediction_seen, signed[1])
    unknown = [
        (pair.truth, raw_truth[truth_class == UNKNOWN_ID]),
        (pair.prediction, raw_prediction[prediction_class == UNKNOWN_ID]),
    ]
    wrong = [Fault(str(path), _unknown_ids(ids)) for path, ids in unknown if len(ids)]
    if wrong:
        part.faults += wrong
        return
    if isinstance(part.metric, PanopticQuality):
        # The whole packed label is the segment's id, as in the official tools.
        segments = SegmentPairs(prediction_class, overlaps.prediction, truth_class, overlaps.truth, overlaps.counts)
        part.metric.update_segments(segments)
    else:
        part.metric.update_pairs(prediction_class, truth_class, overlaps.counts)


def _unsigned(labels: Integer[Array, " n"], negative: Sequence[int]) -> UInt32[Array, " n"]:
    """Labels as 32 unsigned bits; the negative ids that are allowed become `NEGATIVE`."""
    if not len(labels):
        return np.zeros(0, np.uint32)
    if labels.dtype.kind == "u" and labels.dtype.itemsize <= 4:
        return labels.astype(np.uint32, copy=False)
    low, high = int(labels.min()), int(labels.max())
    if high >= NEGATIVE:
        raise DataError(f"it holds the label {high}, which is no id")
    if low < 0:
        wrong = np.setdiff1d(labels[labels < 0], negative)
        if len(wrong):
            raise DataError(f"it holds the label {int(wrong[0])}: negative labels are no class, and are not guessed")
        labels = np.where(labels < 0, NEGATIVE, labels.astype(np.int64))
    return labels.astype(np.uint32, copy=False)


def _negative_ids(scoring: Scoring, side: str) -> tuple[int, ...]:
    if side == "truth":
        return scoring.spec.negative_ids("truth", class_ids=scoring.truth_ids == "class")
    return scoring.spec.negative_ids("prediction", class_ids=scoring.prediction_ids == "class")


def _raw_ids(scoring: Scoring, labels: Int64[Array, " u"]) -> Int64[Array, " u"]:
    """The class part of packed labels."""
    if scoring.spec.layout == "semantickitti":
        return labels & 0xFFFF
    if scoring.spec.layout == "nuscenes-panoptic":
        return labels // 1000
    return labels


def _look_up(
    raw: Int64[Array, " u"], table: Int64[Array, " t"], seen: Bool[Array, " s"], signed: bool
) -> Int64[Array, " u"]:
    """Class of each raw id; remembers which ids there were. `signed`: `NEGATIVE` stands for a negative id of the file."""
    beyond = len(table)
    inside = np.where(raw < beyond, raw, beyond)
    negative = (raw == NEGATIVE) & signed
    seen[inside[~negative]] = True
    found = np.append(table, UNKNOWN_ID)[inside]
    found[negative] = NO_CLASS
    return found


def _unknown_ids(ids: Int64[Array, " u"]) -> str:
    unique = np.unique(ids)
    names = [f"{idx} (-1 as unsigned)" if idx in (0xFFFF, NEGATIVE) else str(idx) for idx in unique[:6].tolist()]
    listed = ", ".join(names) + (", ..." if len(unique) > 6 else "")
    return f"{UNKNOWN}: {listed}"


def _class_ids_error(scoring: Scoring, total: Part) -> DataError | None:
    """The error that files hold class ids where the data set has raw ids, or the other way round; none if they do not.

    Raw ids reach beyond the class ids; if, in all files of a side, none does, and at least one label is not 0, then either the
    files hold class ids or only a few raw classes occur. The user says which.
    """
    spec = scoring.spec
    for side, ids, seen, option in (
        ("truth", scoring.truth_ids, total.truth_seen, "--truth-ids"),
        ("prediction", scoring.prediction_ids, total.prediction_seen, "--prediction-ids"),
    ):
        raw_ids = spec.truth_ids if side == "truth" or not spec.prediction_ids else spec.prediction_ids
        num_classes = len(spec.classes)
        classes_of_raw = {raw for raw, idx in raw_ids.items() if idx is not None}
        if ids != "auto" or max(classes_of_raw, default=0) < num_classes:
            continue
        occurring = np.flatnonzero(seen)
        if len(occurring) and 0 < occurring.max() < num_classes and _more_like_class_ids(set(occurring.tolist()), spec):
            return DataError(
                f"All ids in the files of the {side} are below {num_classes}, the number of classes of {spec.title}; "
                f"its raw ids go up to {max(raw_ids)}. These look like class (learning) ids where raw ids are expected.",
                f"If they are class ids: {option} class. If they are raw ids all the same: {option} raw.",
            )
    if spec.layout in ("nuscenes-panoptic", "nuscenes-lidarseg") and scoring.prediction_ids == "auto":
        general = np.flatnonzero(total.prediction_seen[len(spec.classes) :])
        if len(general):
            return DataError(
                f"The predictions hold ids beyond {len(spec.classes) - 1}, the last challenge class of {spec.title}.",
                "If they are general category ids (0-31), map them to challenge classes: docs/protocols.md has the table.",
            )
    return None


def _more_like_class_ids(ids: set[int], spec: DatasetSpec) -> bool:
    """Whether a set of small ids is more likely one of class ids than of raw ids."""
    known = {raw for raw, idx in spec.truth_ids.items() if idx is not None}
    if spec.layout == "points":  # most small raw ids are classes too: only those that are not can tell
        return bool(ids - known - {0})
    return True


def _report(scoring: Scoring, metric: Metric, num_scans: int, split: str | None) -> EvalReport:
    spec = scoring.spec
    if isinstance(metric, PanopticQuality):
        return panoptic_report(spec, metric.compute(), metric.confusion, split=split)
    scores, matrix = metric.compute(), metric.matrix
    if scoring.protocol == "lidarseg":
        scores = lidarseg_scores(scores)
    return semantic_report(spec, scores, matrix, protocol=scoring.protocol, num_scans=num_scans, split=split)
