"""The result of `ov3d eval`, for printing, writing or comparing: one row per class, means of groups of classes, facts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ov3d.common.base.shapes import Array, Int64


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class.

    Attributes:
        name: as in the data set.
        kind: thing, stuff or query.
        group: base or novel; empty where classes are not split.
        scores: fractions by column; None where a score is not defined.
        counts: whole numbers by column (points, segments).
    """

    name: str
    kind: str
    group: str
    scores: Mapping[str, float | None]
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalReport:
    """One evaluation.

    Attributes:
        dataset: its name, or the scene's.
        dataset_version: of the data set's class map; None for a scene.
        title: human-readable title.
        protocol: how it was scored.
        split: name of the base/novel split; empty without one.
        num_scans: number of scans, scenes or views.
        means: the numbers that papers report, fractions by name.
        groups: means of each column over groups of classes: things, stuff, base, novel, base things, ...
        classes: one row per class that takes part.
        facts: points, ignored points, coverage and the like.
        notes: caveats for readers of the numbers.
        extra: numbers that are not fractions or belong to no class (PSNR, SSIM).
        matrix: points of each (true class, predicted class), or None.
        matrix_names: its class names.
    """

    dataset: str
    dataset_version: int | None = None
    title: str
    protocol: str
    split: str = ""
    num_scans: int
    means: Mapping[str, float | None]
    groups: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    classes: Sequence[ClassRow]
    facts: Mapping[str, float | int | None]
    notes: tuple[str, ...] = ()
    matrix: Int64[Array, "c c"] | None = None
    matrix_names: tuple[str, ...] = ()
    extra: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """A folder name."""
        name = self.title if self.title.startswith(self.dataset) else f"{self.dataset} {self.title}"
        return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form; undefined numbers are null."""
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


def group_means(rows: Sequence[ClassRow]) -> dict[str, dict[str, float | None]]:
    """Means of every score over things, stuff, base and novel classes, and over base and novel things and stuff.

    Undefined scores are ignored; a group without scores is None in that column, a group without classes is absent.
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


def finite(value: float) -> float | None:
    """The value, or None where it is not a number."""
    return value if math.isfinite(value) else None


def finite_values(values: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers by name, None if undefined."""
    return {name: finite(float(value)) for name, value in values.items()}


def extra_note(extra: Mapping[str, float]) -> tuple[str, ...]:
    """Numbers that fit no column, in one sentence, or empty."""
    texts = [f"{name} {format(value, '.4g') if math.isfinite(value) else '-'}" for name, value in extra.items()]
    return (", ".join(texts),) if texts else ()


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
