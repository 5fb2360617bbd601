"""`ov3d eval`: score the answers of a run, or prediction files from any program."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ov3d.cli.console import Console
from ov3d.cli.options import CacheOption, DeviceOption, JsonFlag, OutputsOption, QuietFlag, use_cache
from ov3d.common.base.errors import DataError, UsageError

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

    from ov3d.common.metrics.label_ids import Ids
    from ov3d.common.metrics.report import EvalReport

IDS = ("auto", "raw", "class")

RunArgument = Annotated[
    str | None, typer.Argument(help="A run: its folder, SCENE, SCENE/BACKEND, or latest.", metavar="[RUN]")
]
DatasetOption = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="Score prediction files of this data set instead of a run: semantickitti, nuscenes-panoptic, nuscenes-lidarseg, "
        "scannet, s3dis, 3d-ovs, lerf-ovs, or your own YAML file.",
        metavar="NAME",
    ),
]
TruthOption = Annotated[
    Path | None, typer.Option("--ground-truth", help="Folder of ground-truth labels or masks.", metavar="DIR")
]
PredictionsOption = Annotated[
    Path | None, typer.Option("--predictions", help="Folder of predicted labels or masks.", metavar="DIR")
]
ProtocolOption = Annotated[
    str | None,
    typer.Option(
        "--protocol",
        help="panoptic, semantic, lidarseg, 3d-ovs or langsplat; for a nerf run held-out, 3d-ovs or langsplat.  "
        "[default: the data set's, or the backend's first]",
        metavar="NAME",
    ),
]
SubsetOption = Annotated[
    str | None,
    typer.Option(
        "--subset", help="Sequences to score: train, val, test or all.  [default: the data set's]", metavar="NAME"
    ),
]
SplitOption = Annotated[
    str | None,
    typer.Option("--split", help="Split into base and novel classes.  [default: the data set's]", metavar="NAME"),
]
ListOption = Annotated[
    Path | None, typer.Option("--list", help="Score only the scans named in this file, one per line.", metavar="FILE")
]
TruthIdsOption = Annotated[
    str | None,
    typer.Option(
        "--truth-ids",
        help="Ids in the ground truth: raw (of the data set), class (learning ids), or auto.  [default: auto]",
        metavar="KIND",
    ),
]
PredictionIdsOption = Annotated[
    str | None,
    typer.Option(
        "--prediction-ids", help="Ids in the predictions: raw, class or auto.  [default: auto]", metavar="KIND"
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers", help="Number of worker processes.  [default: depends on the number of scans]", metavar="N"
    ),
]
SceneOption = Annotated[
    Path | None,
    typer.Option("--scene", help="Scene to score, if it has moved or the run has several.", metavar="SCENE"),
]
ClassesOption = Annotated[
    str | None,
    typer.Option(
        "--classes",
        help="Classes to score in a run, comma-separated.  [default: all in the ground truth]",
        metavar="A,B",
    ),
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        help="Lowest cosine at which a class counts as present in a run.  [default: the run's]",
        metavar="X",
    ),
]
EnsembleFlag = Annotated[
    bool,
    typer.Option(
        "--ensemble", help="For a points run, also score its 3D network combined with image features (2D-3D)."
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="Folder for report.json, scores.csv and confusion.png.", metavar="DIR"),
]
CsvFlag = Annotated[bool, typer.Option("--csv", help="Print only the scores, as CSV, on stdout.")]


def evaluate(
    run: RunArgument = None,
    dataset: DatasetOption = None,
    ground_truth: TruthOption = None,
    predictions: PredictionsOption = None,
    protocol: ProtocolOption = None,
    subset: SubsetOption = None,
    split: SplitOption = None,
    scans: ListOption = None,
    truth_ids: TruthIdsOption = None,
    prediction_ids: PredictionIdsOption = None,
    workers: WorkersOption = None,
    scene: SceneOption = None,
    classes: ClassesOption = None,
    threshold: ThresholdOption = None,
    ensemble: EnsembleFlag = False,
    output: OutputOption = None,
    as_csv: CsvFlag = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    device: DeviceOption = "auto",
    outputs: OutputsOption = None,
    cache: CacheOption = None,
) -> None:
    """Score a run against its scene's ground truth, or prediction files from any program with the official metrics.

    With --dataset: PQ, SQ, RQ, PQ-dagger and mIoU as the official tools compute them, per class and for base and novel things
    and stuff. Missing, unexpected and damaged files are listed. See docs/protocols.md for the folder layouts.

    Example: ov3d eval --dataset semantickitti --ground-truth dataset --predictions mine
    """
    use_cache(cache)
    if as_csv and as_json:
        raise UsageError("--csv and --json both print to stdout.", "Choose one; -o DIR writes both.")
    console = Console(as_json=as_json, quiet=quiet)
    files = _FileOptions(ground_truth, predictions, protocol, scans, subset, split, truth_ids, prediction_ids, workers)
    asked = _RunOptions(protocol, scene, classes, threshold, ensemble)
    found: EvalReport | list[EvalReport]
    if dataset is None:
        _refuse(
            files.typed, "works only with --dataset NAME.", "Name the data set, or leave it out to score your own run."
        )
        found = _run_reports(run or "latest", asked, device, outputs, console)
    elif run is not None:
        raise UsageError("A run and --dataset cannot be used together.", "Leave one out.")
    else:
        _refuse(asked.typed, "works only with a run, not with --dataset.")
        found = _files_report(dataset, files, console)
    _finish(found, output, as_csv, console)


@dataclass(frozen=True)
class _FileOptions:
    """Options for prediction files only, and the protocol."""

    ground_truth: Path | None
    predictions: Path | None
    protocol: str | None
    scans: Path | None
    subset: str | None
    split: str | None
    truth_ids: str | None
    prediction_ids: str | None
    workers: int | None

    @property
    def labels_only(self) -> dict[str, object]:
        """Options that do not apply to masks, by the name a user types."""
        names = ("subset", "split", "truth_ids", "prediction_ids", "workers")
        return {f"--{name.replace('_', '-')}": getattr(self, name) for name in names}

    @property
    def typed(self) -> dict[str, object]:
        """All options but the protocol, which applies to runs as well, by the name a user types."""
        places = {"--ground-truth": self.ground_truth, "--predictions": self.predictions, "--list": self.scans}
        return {**places, **self.labels_only}


@dataclass(frozen=True)
class _RunOptions:
    """Options for runs only, and the protocol."""

    protocol: str | None
    scene: Path | None
    classes: str | None
    threshold: float | None
    ensemble: bool

    @property
    def typed(self) -> dict[str, object]:
        """All options but the protocol, by the name a user types."""
        flag = self.ensemble or None
        return {"--scene": self.scene, "--classes": self.classes, "--threshold": self.threshold, "--ensemble": flag}

    @property
    def prompted(self) -> tuple[str, ...]:
        """Names of the classes to ask for."""
        return tuple(part.strip() for part in (self.classes or "").split(",") if part.strip())


def _refuse(options: Mapping[str, object], why: str, hint: str = "Leave it out.") -> None:
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{name} {why}", hint)


def _read_list(path: Path) -> list[str]:
    if not path.is_file():
        raise DataError(f"No list of scans at {path}.", "Check the path given to --list.")
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise DataError(f"{path} names no scans.", "Write one name per line, for example 08/000000.")
    return names


def _files_report(dataset: str, files: _FileOptions, console: Console) -> EvalReport:
    """Report on a folder of predictions."""
    if files.ground_truth is None or files.predictions is None:
        raise UsageError("--dataset needs --ground-truth DIR and --predictions DIR.")
    wanted = None if files.scans is None else _read_list(files.scans)
    from ov3d.common.datasets import load_dataset
    from ov3d.common.metrics.folders import FolderOptions, evaluate_folders
    from ov3d.common.metrics.label_files import FaultyFilesError
    from ov3d.common.metrics.view_folders import evaluate_views

    truth_ids, prediction_ids = _ids("--truth-ids", files.truth_ids), _ids("--prediction-ids", files.prediction_ids)
    spec, roots = load_dataset(dataset), (files.ground_truth, files.predictions)
    try:
        if not spec.classes:
            _refuse(files.labels_only, f"does not apply to {spec.title}.")
            return evaluate_views(spec, *roots, protocol=files.protocol, wanted=wanted, progress=console)
        options = FolderOptions(files.protocol, files.subset, wanted, files.split, truth_ids, prediction_ids)
        return evaluate_folders(spec, *roots, options, workers=files.workers, progress=console)
    except FaultyFilesError as error:
        if len(error.faults) == 1:
            raise
        for fault in error.faults:
            print(fault, file=sys.stderr)
        raise DataError(f"{len(error.faults):,} files cannot be scored; they are listed above.", error.hint) from None


def _ids(option: str, value: str | None) -> Ids:
    if value is None:
        return "auto"
    if value not in IDS:
        raise UsageError(f"{option} must be one of {', '.join(IDS)}, got {value!r}.")
    return cast("Ids", value)


def _run_reports(
    name: str, asked: _RunOptions, device: str, outputs: Path | None, console: Console
) -> list[EvalReport]:
    """One report per table of the run's scenes: its own answers, then its teacher's."""
    from ov3d.backends import get_backend
    from ov3d.common.base.runs import find_run

    run = find_run(name, outputs)
    if run.chosen:
        console.say(f"Scoring {run.path} ({run.chosen}).")
    from ov3d.common.learning.evaluate_run import EvaluateRequest, evaluate_run

    backend = get_backend(str(run.manifest["backend"]))
    request = EvaluateRequest(asked.prompted, asked.threshold, asked.protocol, asked.ensemble)
    found = evaluate_run(backend, run, request, scene=asked.scene, device=device, progress=console)
    return [report for one in found for report in one.reports()]


def _finish(found: EvalReport | list[EvalReport], output: Path | None, as_csv: bool, console: Console) -> None:
    """Write the files, and print the result in the requested form."""
    from ov3d.common.exporters.tables import print_report, report_csv, reports_csv, write_report

    reports = found if isinstance(found, list) else [found]
    files: list[Path] = []
    for idx, report in enumerate(reports):
        if output is not None:
            files += write_report(output if idx == 0 else output / report.slug, report)
    if as_csv:
        sys.stdout.write(reports_csv(reports) if isinstance(found, list) else report_csv(found))
        return
    data: dict[str, Any] = {"files": [str(path) for path in files]}
    data |= {"reports": [report.to_json() for report in reports]} if isinstance(found, list) else reports[0].to_json()

    def show(out: RichConsole) -> None:
        for idx, report in enumerate(reports):
            if idx:
                out.print()
            print_report(out, report)
        for path in files:
            out.print(f"Wrote {path}", highlight=False, markup=False, soft_wrap=True)

    console.result(data, show)
