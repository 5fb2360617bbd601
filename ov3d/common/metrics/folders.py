"""Scoring folders of label files: pair, read, count, merge; one process or many, with the same result.

Scans are divided into chunks that are counted separately and merged in order; all counts are integers, so neither chunks nor
processes affect the result.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.progress import Progress, Silent
from ov3d.common.base.shapes import Array, Bool, Int64
from ov3d.common.datasets import DatasetSpec
from ov3d.common.datasets.loader import NO_CLASS
from ov3d.common.metrics.counting import count_overlaps
from ov3d.common.metrics.dataset_report import panoptic_report, semantic_report
from ov3d.common.metrics.label_files import Fault, FaultyFilesError, LabelPair, pair_files
from ov3d.common.metrics.label_ids import UNKNOWN, FileLabels, Ids, SideLabels, class_ids_error
from ov3d.common.metrics.panoptic import PanopticQuality
from ov3d.common.metrics.report import EvalReport
from ov3d.common.metrics.segments import SegmentPairs
from ov3d.common.metrics.semantic import SemanticConfusion, lidarseg_scores

CHUNK = 32
"""Scans per chunk."""

SCANS_PER_PROCESS = 500
"""Scans per additional process: fewer would be read and counted before the process has imported NumPy."""

Metric: TypeAlias = PanopticQuality | SemanticConfusion


@dataclass(frozen=True, slots=True, eq=False)
class Scoring:
    """How pairs of files are scored; small, because it is sent to every process.

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
        """An empty metric."""
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
    """Counts of some scans.

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
        """Add another part, with later scans."""
        self.metric.merge(other.metric)  # type: ignore[arg-type]
        self.faults += other.faults
        self.truth_seen |= other.truth_seen
        self.prediction_seen |= other.prediction_seen


@dataclass(frozen=True, slots=True)
class FolderOptions:
    """What to score in folders of label files, and how.

    Attributes:
        protocol: one of the data set's; None means its first.
        subset: train, val, test or all, where the data set has them; None means its default.
        wanted: names of the scans to score; None means all of the subset.
        split: base/novel split; None means the data set's own.
        truth_ids, prediction_ids: what the files hold.
    """

    protocol: str | None = None
    subset: str | None = None
    wanted: Iterable[str] | None = None
    split: str | None = None
    truth_ids: Ids = "auto"
    prediction_ids: Ids = "auto"


def evaluate_folders(
    spec: DatasetSpec,
    truth_root: Path,
    prediction_root: Path,
    options: FolderOptions = FolderOptions(),
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> EvalReport:
    """Score a folder of per-point predictions against a folder of ground truth.

    Args:
        spec: the data set.
        truth_root, prediction_root: folders, laid out as `docs/protocols.md` says.
        options: what is scored, and how.
        workers: processes; None means as many as the number of scans is worth.
        progress: receives progress.

    Raises:
        FaultyFilesError: files are missing, unexpected, damaged or hold unknown ids; all are named.
        DataError: an empty folder, or class ids where raw ids are expected.
        UsageError: no such protocol, subset or split.
    """
    spec.split(options.split)
    protocol = checked_protocol(spec, options.protocol)
    scoring = Scoring(spec, protocol, options.truth_ids, options.prediction_ids)
    pairs, faults = pair_files(spec, truth_root, prediction_root, subset=options.subset, wanted=options.wanted)
    total = score_pairs(scoring, pairs, workers=workers, progress=progress)
    faults += total.faults
    wrong_ids = class_ids_error(spec, "truth", options.truth_ids, total.truth_seen) or class_ids_error(
        spec, "prediction", options.prediction_ids, total.prediction_seen
    )
    if wrong_ids is not None:  # it explains every unknown id; what else is wrong is still named
        others = [fault for fault in faults if not fault.why.startswith(UNKNOWN)]
        raise FaultyFilesError(others, f"Also: {wrong_ids}") if others else wrong_ids
    if faults:
        raise FaultyFilesError(faults)
    return _report(scoring, total.metric, len(pairs), options.split)


def checked_protocol(spec: DatasetSpec, protocol: str | None) -> str:
    """The protocol of that name, or the data set's first.

    Raises:
        UsageError: the data set has no such protocol.
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
        workers: processes; None means as many as the number of scans is worth.
        progress: receives progress.
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
    truth = SideLabels(scoring.spec, "truth", scoring.truth_ids)
    prediction = SideLabels(scoring.spec, "prediction", scoring.prediction_ids)
    part = Part(scoring.new_metric(), [], truth.seen, prediction.seen)
    for pair in pairs:
        _score_pair(pair, (truth, prediction), part)
    return part


def _num_workers(workers: int | None, num_scans: int) -> int:
    if workers is not None:
        if workers < 1:
            raise UsageError(f"--workers must be at least 1, got {workers}.")
        return workers
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(available, num_scans // SCANS_PER_PROCESS))


def _scored(scoring: Scoring, chunks: Sequence[Sequence[LabelPair]], workers: int) -> Iterator[Part]:
    if workers == 1 or len(chunks) < 2:
        for chunk in chunks:
            yield score_chunk(scoring, chunk)
        return
    # Spawned processes import this module afresh, without the caller's threads and locks.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(chunks)), mp_context=context) as pool:
        yield from pool.map(score_chunk, [scoring] * len(chunks), chunks)


def _score_pair(pair: LabelPair, sides: tuple[SideLabels, SideLabels], part: Part) -> None:
    """Count one pair of files, or note what is wrong with them."""
    paths, files = (pair.truth, pair.prediction), list[FileLabels]()
    for side, path in zip(sides, paths, strict=True):
        try:
            files.append(side.read(path))
        except DataError as error:
            part.faults.append(Fault(str(path), error.message))
    if len(files) < 2:
        return
    truth, prediction = files
    if len(truth.values) != len(prediction.values):
        why = f"it holds {len(prediction.values)} labels, the truth {len(truth.values)}"
        part.faults.append(Fault(str(pair.prediction), why))
        return
    shared = count_overlaps(prediction.values, truth.values)
    classes: list[Int64[Array, " u"]] = []
    for side, path, file, labels in zip(sides, paths, files, (shared.truth, shared.prediction), strict=True):
        try:
            classes.append(side.classes(labels, signed=file.signed))
        except DataError as error:
            part.faults.append(Fault(str(path), error.message))
    if len(classes) < 2:
        return
    if isinstance(part.metric, PanopticQuality):
        # The segment's id is the whole packed label, as in the official tools.
        part.metric.update_segments(
            SegmentPairs(classes[1], shared.prediction, classes[0], shared.truth, shared.counts)
        )
    else:
        part.metric.update_pairs(classes[1], classes[0], shared.counts)


def _report(scoring: Scoring, metric: Metric, num_scans: int, split: str | None) -> EvalReport:
    spec = scoring.spec
    if isinstance(metric, PanopticQuality):
        return panoptic_report(spec, metric.compute(), metric.confusion, split=split)
    scores, matrix = metric.compute(), metric.matrix
    if scoring.protocol == "lidarseg":
        scores = lidarseg_scores(scores)
    return semantic_report(spec, scores, matrix, protocol=scoring.protocol, num_scans=num_scans, split=split)
