"""Panoptic quality of a run or of prediction files as a table: PQ, SQ, RQ per class, for things, stuff, base and novel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ov3d.common.base.shapes import Array, Int64
from ov3d.common.metrics.panoptic import PanopticScores
from ov3d.common.metrics.report import ClassRow, EvalReport, extra_note, finite, finite_values, group_means


@dataclass(frozen=True, slots=True, eq=False)
class PanopticTable:
    """Panoptic scores of one way of labelling scans.

    Attributes:
        title: what was scored.
        classes: the c class names in order of their ids, ignored ones among them.
        scores: the result of `PanopticQuality.compute`.
        matrix: points of each (true class, predicted class).
        novel: names of the classes without labels in training; all others are base classes; None without such a split.
        extra: further numbers, by name.
    """

    title: str
    classes: tuple[str, ...]
    scores: PanopticScores
    matrix: Int64[Array, "c c"]
    novel: tuple[str, ...] | None = None
    extra: Mapping[str, float] = field(default_factory=dict)

    @property
    def means(self) -> dict[str, float | None]:
        """The numbers that papers report, over all classes that are not ignored; None if undefined."""
        scores = self.scores
        return finite_values(
            {
                "PQ": scores.mean_pq,
                "SQ": scores.mean_sq,
                "RQ": scores.mean_rq,
                "PQ†": scores.pq_dagger,
                "mIoU": scores.mean_iou,
            }
        )

    @property
    def rows(self) -> list[ClassRow]:
        """One row per class that is not ignored."""
        scores = self.scores
        columns = {"PQ": scores.pq, "SQ": scores.sq, "RQ": scores.rq, "IoU": scores.iou}
        counts = {"TP": scores.tp, "FP": scores.fp, "FN": scores.fn}
        return [
            ClassRow(
                name,
                "thing" if scores.things[idx] else "stuff",
                class_group(name, self.novel),
                {column: float(values[idx]) for column, values in columns.items()},
                {column: int(values[idx]) for column, values in counts.items()},
            )
            for idx, name in enumerate(self.classes)
            if scores.included[idx]
        ]

    def report(self, scene: str, protocol: str, notes: Sequence[str] = ()) -> EvalReport:
        """The table as a report of its own; see `run_report.Table.report`."""
        scores, rows = self.scores, self.rows
        return EvalReport(
            dataset=scene,
            title=f"{scene}: {self.title}",
            protocol=protocol,
            num_scans=scores.num_scans,
            means=self.means,
            groups=group_means(rows),
            classes=rows,
            facts={
                "coverage": finite(scores.coverage),
                "points": scores.num_points,
                "ignored points": scores.num_ignored,
            },
            notes=(*notes, *extra_note(self.extra)),
            matrix=self.matrix,
            matrix_names=self.classes,
            extra=finite_values(self.extra),
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form; NaN becomes null."""
        scores, rows = self.scores, self.rows
        return {
            "title": self.title,
            "means": self.means,
            "groups": group_means(rows),
            "coverage": finite(scores.coverage),
            "num": scores.num_points,
            "num_scans": scores.num_scans,
            "extra": finite_values(self.extra),
            "classes": {
                row.name: {"kind": row.kind, "group": row.group or None, **row.scores, **row.counts} for row in rows
            },
            "confusion": {"classes": list(self.classes), "rows_truth": self.matrix.tolist()},
        }


def class_group(name: str, novel: Sequence[str] | None) -> str:
    """Whether a class is `base` or `novel`; empty without a split."""
    if novel is None:
        return ""
    return "novel" if name in novel else "base"
