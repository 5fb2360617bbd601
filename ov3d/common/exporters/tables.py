"""An evaluation as a table: for a terminal, as CSV, as JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ov3d.common.base.files import write_json, write_text
from ov3d.common.exporters.confusion_png import write_confusion_png
from ov3d.common.metrics.report import ClassRow, EvalReport

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

REPORT_KIND = "evaluation-report"
REPORT_VERSION = 1


def reports_csv(reports: Sequence[EvalReport]) -> str:
    """Several reports of the same columns as one CSV: as `report_csv`, after a column `table` with the report's title."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    for idx, report in enumerate(reports):
        head, *rows = csv.reader(io.StringIO(report_csv(report)))
        if idx == 0:
            writer.writerow(["table", *head])
        writer.writerows([report.title, *row] for row in rows)
    return stream.getvalue()


def report_csv(report: EvalReport) -> str:
    """Classes, groups and means as CSV: `level,name,kind,group` and one column a score (fractions, full precision).

    Scores of the whole have the level `mean`, one row a score, with the value in the column `value`.
    """
    score_names, count_names = _columns(report)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["level", "name", "kind", "group", *score_names, *count_names, "value"])
    for row in report.classes:
        scores = [_exact(row.scores.get(name)) for name in score_names]
        writer.writerow(
            ["class", row.name, row.kind, row.group, *scores, *(row.counts[name] for name in count_names), ""]
        )
    for group, values in report.groups.items():
        scores = [_exact(values.get(name)) for name in score_names]
        writer.writerow(["group", group, "", "", *scores, *[""] * len(count_names), ""])
    empty = [""] * (len(score_names) + len(count_names))
    for name, value in {**report.means, **report.facts}.items():
        writer.writerow(["mean" if name in report.means else "fact", name, "", "", *empty, _exact(value)])
    return stream.getvalue()


def write_report(folder: Path, report: EvalReport) -> list[Path]:
    """Write `report.json`, `scores.csv` and, where there is a confusion matrix, `confusion.png`; returns their paths.

    Raises:
        StorageError: the folder cannot be written.
    """
    paths = [
        write_json(folder / "report.json", report.to_json(), kind=REPORT_KIND, version=REPORT_VERSION),
        write_text(folder / "scores.csv", report_csv(report)),
    ]
    if report.matrix is not None:
        path = folder / "confusion.png"
        title = f"{report.title}, {report.protocol}: share of each true class (row) by predicted class (column), in %"
        paths.append(write_confusion_png(path, report.matrix, report.matrix_names, title=title))
    return paths


def print_report(console: Console, report: EvalReport) -> None:
    """Print the class rows, the means of groups and the numbers of the whole, in per cent."""
    split = f", split {report.split}" if report.split else ""
    noun = "view" if report.classes and report.classes[0].kind == "query" else "scan"
    line = f"{report.title}, protocol {report.protocol}{split}"
    if report.dataset_version is not None:
        noun += "s" if report.num_scans != 1 else ""
        line = f"{line}, {report.num_scans:,} {noun}, class map v{report.dataset_version}"
    console.print(line, style="bold", highlight=False, markup=False)
    console.print(_class_table(report))
    console.print()
    if report.groups:
        console.print(_group_table(report))
        console.print()
    for line in _packed([f"{name} {_percent(value)}" for name, value in report.means.items()], "  ", console.width):
        console.print(line, style="bold", highlight=False, markup=False)
    for line in _packed(_facts(report), "; ", console.width):
        console.print(line, highlight=False, markup=False)
    for note in report.notes:
        console.print(f"Note: {note}", highlight=False, markup=False, style="dim")


def _class_table(report: EvalReport) -> Table:
    from rich.markup import escape

    score_names, count_names = _columns(report)
    table = _table()
    table.add_column("class", no_wrap=True, overflow="ellipsis", min_width=12)
    if _has_kinds(report):
        table.add_column("kind")
    if report.split:
        table.add_column("split")
    for name in (*score_names, *count_names):
        table.add_column(name, justify="right", no_wrap=True)
    for row in report.classes:
        cells = [escape(row.name)]
        cells += [row.kind] if _has_kinds(report) else []
        cells += [f"[cyan]{row.group}[/cyan]" if row.group == "novel" else row.group] if report.split else []
        cells += [_percent(row.scores.get(name)) for name in score_names]
        cells += [f"{row.counts[name]:,}" for name in count_names]
        table.add_row(*cells, style="dim" if _is_absent(row) else "")
    return table


def _group_table(report: EvalReport) -> Table:
    from rich.markup import escape

    score_names, _ = _columns(report)
    table = _table()
    table.add_column("mean over", no_wrap=True, min_width=12)
    for name in score_names:
        table.add_column(name, justify="right", no_wrap=True)
    for group, values in report.groups.items():
        style = "cyan" if group.startswith("novel") else ""
        table.add_row(escape(group), *(_percent(values.get(name)) for name in score_names), style=style)
    return table


def _packed(parts: Sequence[str], between: str, width: int) -> list[str]:
    """The parts in as few lines as hold them, none of them broken."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(between) + len(part) <= width:
            lines[-1] += between + part
        else:
            lines.append(part)
    return lines


def _facts(report: EvalReport) -> list[str]:
    return [
        f"coverage {_percent(value)} % of points of known truth"
        if name == "coverage"
        else f"{'-' if value is None else format(int(value), ',')} {name}"
        for name, value in report.facts.items()
    ]


def _table() -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, show_edge=False, padding=(0, 1))


def _columns(report: EvalReport) -> tuple[list[str], list[str]]:
    if not report.classes:
        return [], []
    return list(report.classes[0].scores), list(report.classes[0].counts)


def _has_kinds(report: EvalReport) -> bool:
    return any(row.kind in ("thing", "stuff") for row in report.classes)


def _is_absent(row: ClassRow) -> bool:
    return not any(row.counts.values()) and not any(row.scores.values())


def _percent(value: float | int | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _exact(value: float | int | None) -> str:
    return "" if value is None else repr(value)
