"""A table of scores of masks in views, for 3D-OVS and LangSplat."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ov3d.common.metrics.report import ClassRow, EvalReport, extra_note, finite_values
from ov3d.common.metrics.views import ViewScores


@dataclass(frozen=True, slots=True, eq=False)
class MasksTable:
    """Scores of masks in views.

    Attributes:
        title: what was scored.
        scores: by view and class.
        extra: further numbers: PSNR, SSIM.
    """

    title: str
    scores: ViewScores
    extra: Mapping[str, float] = field(default_factory=dict)

    @property
    def means(self) -> dict[str, float | None]:
        """Mean IoU and, where it is defined, the accuracy of pixels."""
        scores = self.scores
        accuracy = {} if math.isnan(scores.accuracy) else {"pixel Acc": scores.accuracy}
        return finite_values({"mIoU": scores.mean_iou, **accuracy})

    @property
    def rows(self) -> list[ClassRow]:
        """One row per class or query."""
        views = [name for _, name in self.scores.pairs]
        return [
            ClassRow(name, "query", "", {"IoU": iou}, {"views": views.count(name)})
            for name, iou in self.scores.by_class.items()
        ]

    def report(self, scene: str, protocol: str, notes: Sequence[str] = ()) -> EvalReport:
        """The table as a report of its own; see `run_report.Table.report`."""
        return EvalReport(
            dataset=scene,
            title=f"{scene}: {self.title}",
            protocol=protocol,
            num_scans=self.scores.num_views,
            means=self.means,
            classes=self.rows,
            facts={"masks": len(self.scores.pairs)},
            notes=(*notes, *extra_note(self.extra)),
            extra=finite_values(self.extra),
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form; NaN becomes null."""
        scores = self.scores
        return {
            "title": self.title,
            "means": self.means,
            "num_views": scores.num_views,
            "num_masks": len(scores.pairs),
            "classes": {row.name: {"iou": row.scores["IoU"], "num_views": row.counts["views"]} for row in self.rows},
            "views": {f"{view}/{name}": iou for (view, name), iou in scores.pairs.items()},
            "extra": finite_values(self.extra),
        }
