"""The result of evaluating a run on one scene: tables, and notes for their readers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ov3d.common.metrics.report import EvalReport


@runtime_checkable
class Table(Protocol):
    """Scores of one way of answering: a `PromptedTable`, `MasksTable` or `PanopticTable`."""

    @property
    def title(self) -> str:
        """What was scored."""
        ...

    def report(self, scene: str, protocol: str, notes: Sequence[str] = ()) -> EvalReport:
        """The table as a report of its own.

        Args:
            scene: name of the scene, prepended to the title.
            protocol: how it was scored.
            notes: caveats for readers; numbers that fit no column are added.
        """
        ...

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form; undefined numbers are null."""
        ...


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RunReport:
    """Scores of a run on one scene.

    Attributes:
        scene: its name.
        backend: what made the answers, for example `points/guide`.
        protocol: how they were scored.
        encoder: spec of the encoder.
        threshold: lowest raw cosine at which a class counts as present; -1 if the best class always does; None if the
            protocol does not use one.
        share_seen: share of the scored points or pixels that have a feature.
        tables: the run's own, then those of its 2D teacher.
        notes: caveats for readers of the numbers.
    """

    scene: str
    backend: str
    protocol: str
    encoder: str
    threshold: float | None
    share_seen: float
    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()

    def reports(self) -> list[EvalReport]:
        """One report per table, for printing."""
        chosen = self.threshold is not None and self.threshold > -1
        present = f", present from cosine {self.threshold:.3f} on" if chosen else ""
        notes = (f"encoder {self.encoder}{present}", *self.notes)
        return [table.report(self.scene, self.protocol, notes) for table in self.tables]

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {
            "scene": self.scene,
            "backend": self.backend,
            "protocol": self.protocol,
            "encoder": self.encoder,
            "threshold": self.threshold,
            "share_seen": self.share_seen,
            "tables": [table.to_json() for table in self.tables],
            "notes": list(self.notes),
        }
