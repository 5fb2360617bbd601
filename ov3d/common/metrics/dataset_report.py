"""The reports of evaluations by a data set's own classes: what the official tools print, with the version of the class map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ov3d.common.base.shapes import Array, Int64
from ov3d.common.datasets import DatasetSpec
from ov3d.common.metrics.panoptic import PanopticScores
from ov3d.common.metrics.panoptic_table import PanopticTable, class_group
from ov3d.common.metrics.report import ClassRow, EvalReport, finite, finite_values, group_means
from ov3d.common.metrics.semantic import SemanticScores


def panoptic_report(
    spec: DatasetSpec,
    scores: PanopticScores,
    matrix: Int64[Array, "c c"],
    *,
    split: str | None = None,
    notes: Sequence[str] = (),
) -> EvalReport:
    """The report of a panoptic evaluation.

    Args:
        spec: the data set.
        scores: the result of `PanopticQuality.compute`.
        matrix: points of each (true class, predicted class).
        split: name of the base/novel split; None uses the data set's own.
        notes: caveats for readers of the numbers, before the data set's own notes.
    """
    chosen = spec.split(split)
    table = PanopticTable(spec.title, spec.names, scores, matrix, novel=None if chosen is None else chosen.novel)
    return _of_dataset(table.report(spec.name, "panoptic", notes), spec, split)


def semantic_report(
    spec: DatasetSpec,
    scores: SemanticScores,
    matrix: Int64[Array, "c c"],
    *,
    protocol: str = "semantic",
    num_scans: int,
    split: str | None = None,
    notes: Sequence[str] = (),
) -> EvalReport:
    """The report of a semantic evaluation; arguments as `panoptic_report`."""
    rows = _semantic_rows(spec, scores, split, lidarseg=protocol == "lidarseg")
    means = {
        "mIoU": scores.mean_iou,
        "mAcc": scores.mean_accuracy,
        "mIoU present": scores.mean_iou_present,
        "mAcc present": scores.mean_accuracy_present,
        "overall Acc": scores.overall_accuracy,
    }
    report = EvalReport(
        dataset=spec.name,
        title=spec.title,
        protocol=protocol,
        num_scans=num_scans,
        means=finite_values(means),
        groups=group_means(rows),
        classes=rows,
        facts={
            "coverage": finite(scores.coverage),
            "points": scores.num_points,
            "ignored points": scores.num_ignored,
        },
        notes=tuple(notes),
        matrix=matrix,
        matrix_names=spec.names,
    )
    return _of_dataset(report, spec, split)


def _semantic_rows(spec: DatasetSpec, scores: SemanticScores, split: str | None, *, lidarseg: bool) -> list[ClassRow]:
    """One row per class that is not ignored; the tool of nuScenes-lidarseg leaves scores without any point undefined."""
    chosen = spec.split(split)
    novel = None if chosen is None else chosen.novel
    defined = (scores.num_true + scores.num_predicted > 0) | (not lidarseg)
    return [
        ClassRow(
            one.name,
            one.kind,
            class_group(one.name, novel),
            {
                "IoU": float(scores.iou[one.id]) if defined[one.id] else None,
                "Acc": float(scores.accuracy[one.id]) if scores.present[one.id] or not lidarseg else None,
            },
            {"points": int(scores.num_true[one.id])},
        )
        for one in spec.classes
        if scores.included[one.id]
    ]


def _of_dataset(report: EvalReport, spec: DatasetSpec, split: str | None) -> EvalReport:
    """The report with the data set's title, version, split and notes."""
    chosen = spec.split(split)
    own_notes = [note for note in (spec.note, chosen.note if chosen is not None else "") if note]
    return replace(
        report,
        title=spec.title,
        dataset_version=spec.version,
        split=(split or spec.default_split or "") if chosen is not None else "",
        notes=(*report.notes, *own_notes),
    )
