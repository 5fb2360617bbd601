"""What `ov3d eval` found, ready to be printed, written or compared: one row a class, means of groups of classes, facts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ov3d.common.base.shapes import Array, Int64
from ov3d.common.datasets import DatasetSpec, SplitSpec
from ov3d.common.metrics.panoptic import PanopticScores
from ov3d.common.metrics.semantic import SemanticScores


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class.

    Attributes:
        name: as the data set writes it.
        kind: thing, stuff or query.
        group: base or novel; empty where there is no split.
        scores: fractions by column; None where a score is not defined.
        counts: whole numbers by column (points, segments).
    """

    name: str
    kind: str
    group: str
    scores: Mapping[str, float | None]
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class EvalReport:
    """One evaluation.

    Attributes:
        dataset: its name, or the scene's; `dataset_version` is the version of its class map, none for a scene.
        title: for people.
        protocol: how it was scored.
        split: which classes were novel; empty when there are none.
        num_scans: scans, scenes or views.
        means: the numbers that papers print, fractions by name.
        groups: means of each column over groups of classes: things, stuff, base, novel, base things, ...
        classes: one row a class that takes part.
        facts: points, ignored points, coverage and the like.
        notes: what a reader of the numbers must know.
        extra: numbers that are no fractions and belong to no class (PSNR, SSIM).
        matrix: points of each (true class, predicted class), or none.
        matrix_names: its class names.
    """

    dataset: str
    dataset_version: int | None
    title: str
    protocol: str
    split: str
    num_scans: int
    means: Mapping[str, float | None]
    groups: Mapping[str, Mapping[str, float | None]]
    classes: Sequence[ClassRow]
    facts: Mapping[str, float | int | None]
    notes: tuple[str, ...] = ()
    matrix: Int64[Array, "c c"] | None = None
    matrix_names: tuple[str, ...] = field(default=())
    extra: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """A folder name."""
        name = self.title if self.title.startswith(self.dataset) else f"{self.dataset} {self.title}"
        return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form; what is not defined is null."""
        return {
            "dataset": self.dataset,
            "dataset_version": self.dataset_version,
            "title": self.title,
            "protocol": self.protocol,
            "split": self.split or None,
            "num_scans": self.num_scans,
            "means": dict(self.means),
            "groups": {name: dict(values) for name, values in self.groups.items()},
            "classes": [
                {"name": row.name, "kind": row.kind, "group": row.group or None, **row.scores, **row.counts}
                for row in self.classes
            ],
            "facts": dict(self.facts),
            "notes": list(self.notes),
            **({"extra": dict(self.extra)} if self.extra else {}),
            "confusion": None
            if self.matrix is None
            else {"classes": list(self.matrix_names), "rows_truth": self.matrix.tolist()},
        }


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
        scores: what `PanopticQuality.compute` gave.
        matrix: points of each (true class, predicted class).
        split: name of the base/novel split; none takes the data set's own.
        notes: handed on.
    """
    chosen = spec.split(split)
    rows = [
        ClassRow(
            one.name,
            one.kind,
            group_of(one.name, chosen),
            {
                "PQ": float(scores.pq[one.id]),
                "SQ": float(scores.sq[one.id]),
                "RQ": float(scores.rq[one.id]),
                "IoU": float(scores.iou[one.id]),
            },
            {"TP": int(scores.tp[one.id]), "FP": int(scores.fp[one.id]), "FN": int(scores.fn[one.id])},
        )
        for one in spec.classes
        if scores.included[one.id]
    ]
    means = {
        "PQ": scores.mean_pq,
        "SQ": scores.mean_sq,
        "RQ": scores.mean_rq,
        "PQ†": scores.pq_dagger,
        "mIoU": scores.mean_iou,
    }
    facts = {"coverage": scores.coverage, "points": scores.num_points, "ignored points": scores.num_ignored}
    return _report(spec, "panoptic", split, scores.num_scans, means, rows, facts, notes, matrix)


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
    chosen = spec.split(split)
    undefined = scores.num_true + scores.num_predicted == 0 if protocol == "lidarseg" else np.zeros(len(matrix), bool)
    rows = [
        ClassRow(
            one.name,
            one.kind,
            group_of(one.name, chosen),
            {
                "IoU": None if undefined[one.id] else float(scores.iou[one.id]),
                "Acc": float(scores.accuracy[one.id]) if scores.present[one.id] or protocol != "lidarseg" else None,
            },
            {"points": int(scores.num_true[one.id])},
        )
        for one in spec.classes
        if scores.included[one.id]
    ]
    means = {
        "mIoU": scores.mean_iou,
        "mAcc": scores.mean_accuracy,
        "mIoU present": scores.mean_iou_present,
        "mAcc present": scores.mean_accuracy_present,
        "overall Acc": scores.overall_accuracy,
    }
    facts = {"coverage": scores.coverage, "points": scores.num_points, "ignored points": scores.num_ignored}
    return _report(spec, protocol, split, num_scans, means, rows, facts, notes, matrix)


def run_reports(data: Mapping[str, Any]) -> list[EvalReport]:
    """The tables of a backend's report on one scene, as its `to_json` gives them, one report each.

    Args:
        data: `scene`, `encoder` and `tables`; perhaps `protocol` (else `semantic`), `threshold` and `notes`. A table has
            `title` and `classes` and perhaps `extra` numbers by name; one of points or pixels has three means, `coverage`,
            `num` and perhaps `confusion`; one of masks has `means`, `num_views` and `num_masks`.
    """
    threshold = data.get("threshold")
    present = "" if threshold is None or threshold <= -1 else f", present from cosine {threshold:.3f} on"
    reports = []
    for table in data["tables"]:
        masks = "means" in table
        rows = [_mask_row(name, one) if masks else _pixel_row(name, one) for name, one in table["classes"].items()]
        confusion = table.get("confusion")
        extra = table.get("extra", {})
        reports.append(
            EvalReport(
                dataset=str(data["scene"]),
                dataset_version=None,
                title=f"{data['scene']}: {table['title']}",
                protocol=str(data.get("protocol", "semantic")),
                split="",
                num_scans=int(table.get("num_views", 1)),
                means=dict(table["means"]) if masks else _pixel_means(table),
                groups={},
                classes=rows,
                facts={"masks": table["num_masks"]}
                if masks
                else {"coverage": table["coverage"], "points": table["num"]},
                notes=(f"encoder {data['encoder']}{present}", *data.get("notes", ()), *_extra_note(extra)),
                matrix=None if confusion is None else np.array(confusion["rows_truth"], np.int64),
                matrix_names=() if confusion is None else tuple(confusion["classes"]),
                extra=extra,
            )
        )
    return reports


def _pixel_row(name: str, one: Mapping[str, Any]) -> ClassRow:
    return ClassRow(name, "class", "", {"IoU": one["iou"], "Acc": one["accuracy"]}, {"points": int(one["num_true"])})


def _mask_row(name: str, one: Mapping[str, Any]) -> ClassRow:
    return ClassRow(name, "query", "", {"IoU": one["iou"]}, {"views": int(one["num_views"])})


def _pixel_means(table: Mapping[str, Any]) -> dict[str, float | None]:
    return {
        "mIoU": table["mean_iou"],
        "mAcc": table["mean_accuracy"],
        "mIoU with other": table["mean_iou_with_other"],
    }


def _extra_note(extra: Mapping[str, float | None]) -> tuple[str, ...]:
    """Numbers that fit no column, in one sentence."""
    if not extra:
        return ()
    return (", ".join(f"{name} {'-' if value is None else format(value, '.4g')}" for name, value in extra.items()),)


def group_of(name: str, split: SplitSpec | None) -> str:
    """Base or novel; empty without a split."""
    if split is None:
        return ""
    return "novel" if name in split.novel else "base"


def group_means(rows: Sequence[ClassRow]) -> dict[str, dict[str, float | None]]:
    """Means of every score over things, stuff, base and novel classes, and over base and novel things and stuff.

    Scores that are not defined are left out; a group without any is None in that column, a group without classes absent.
    """
    groups: dict[str, list[ClassRow]] = {}
    for row in rows:
        names = [f"{row.kind}s" if row.kind == "thing" else row.kind]
        if row.group:
            names += [row.group, f"{row.group} {names[0]}"]
        for name in names:
            groups.setdefault(name, []).append(row)
    order = ("things", "stuff", "base", "novel", "base things", "base stuff", "novel things", "novel stuff")
    columns = list(rows[0].scores) if rows else []
    return {
        name: {column: _mean([row.scores[column] for row in groups[name]]) for column in columns}
        for name in order
        if name in groups
    }


def finite(value: float | int | None) -> float | int | None:
    """The value, or None where it is not a number."""
    return None if value is None or not math.isfinite(value) else value


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _report(
    spec: DatasetSpec,
    protocol: str,
    split: str | None,
    num_scans: int,
    means: Mapping[str, float],
    rows: Sequence[ClassRow],
    facts: Mapping[str, float | int],
    notes: Sequence[str],
    matrix: Int64[Array, "c c"],
) -> EvalReport:
    chosen = spec.split(split)
    own_notes = [note for note in (spec.note, chosen.note if chosen is not None else "") if note]
    return EvalReport(
        dataset=spec.name,
        dataset_version=spec.version,
        title=spec.title,
        protocol=protocol,
        split=(split or spec.default_split or "") if chosen is not None else "",
        num_scans=num_scans,
        means={name: finite(value) for name, value in means.items()},
        groups=group_means(rows),
        classes=rows,
        facts={name: finite(value) for name, value in facts.items()},
        notes=(*notes, *own_notes),
        matrix=matrix,
        matrix_names=spec.names,
    )
