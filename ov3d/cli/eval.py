"""`ov3d eval`: how good are the answers of a run, or of anybody's predictions?"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ov3d.cli.console import Console
from ov3d.cli.options import CacheOption, DeviceOption, JsonFlag, OutputsOption, QuietFlag, use_cache
from ov3d.common.base.errors import DataError, UsageError

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

    from ov3d.common.metrics.report import EvalReport

IDS = ("auto", "raw", "class")


def evaluate(
    run: Annotated[
        str | None, typer.Argument(help="A run: its folder, SCENE, SCENE/BACKEND, or latest.", metavar="[RUN]")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            help="Score files instead of a run: semantickitti, nuscenes-panoptic, nuscenes-lidarseg, scannet, s3dis, 3d-ovs, "
            "lerf-ovs, or a YAML file of the same form.",
            metavar="NAME",
        ),
    ] = None,
    ground_truth: Annotated[
        Path | None, typer.Option("--ground-truth", help="Folder of true labels or masks.", metavar="DIR")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="Folder of predicted labels or masks.", metavar="DIR")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol",
            help="panoptic, semantic, lidarseg, 3d-ovs or langsplat; a nerf run: held-out, 3d-ovs or langsplat.  "
            "[default: the data set's, or the backend's first]",
            metavar="NAME",
        ),
    ] = None,
    subset: Annotated[
        str | None, typer.Option("--subset", help="train, val, test or all.  [default: the data set's]", metavar="NAME")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Base/novel split.  [default: the data set's]", metavar="NAME")
    ] = None,
    scans: Annotated[
        Path | None, typer.Option("--list", help="Score only the scans named in this file, one a line.", metavar="FILE")
    ] = None,
    truth_ids: Annotated[
        str | None,
        typer.Option("--truth-ids", help="Ids in the truth: raw, class, or auto.  [default: auto]", metavar="KIND"),
    ] = None,
    prediction_ids: Annotated[
        str | None,
        typer.Option(
            "--prediction-ids", help="Ids in the predictions: raw, class, or auto.  [default: auto]", metavar="KIND"
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", help="Processes that read and count.  [default: by number of scans]", metavar="N"),
    ] = None,
    scene: Annotated[
        Path | None, typer.Option("--scene", help="A run's scene, where it has moved or several are.", metavar="SCENE")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes", help="Classes to ask a run for, by commas.  [default: all with truth]", metavar="A,B"
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold", help="Cosine from which a run's class is there.  [default: encoder's]", metavar="X"
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for report.json, scores.csv, confusion.png.", metavar="DIR"),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the scores as CSV on stdout, and nothing else.")] = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    device: DeviceOption = "auto",
    outputs: OutputsOption = None,
    cache: CacheOption = None,
) -> None:
    """Score a run against its scene's truth, or anybody's prediction files with the official numbers.

    With --dataset: PQ, SQ, RQ, PQ-dagger and mIoU as the official tools compute them, per class, for base and novel things and
    stuff. docs/protocols.md says how folders are laid out. Files that are missing, too many or damaged are all listed.

    Example: ov3d eval --dataset semantickitti --ground-truth dataset --predictions mine
    """
    use_cache(cache)
    if as_csv and as_json:
        raise UsageError("--csv and --json both want stdout.", "Choose one; -o DIR writes both.")
    console = Console(as_json=as_json, quiet=quiet)
    ids_and_workers = {"--truth-ids": truth_ids, "--prediction-ids": prediction_ids, "--workers": workers}
    labels_only = {"--subset": subset, "--split": split, **ids_and_workers}
    if dataset is None:
        files_only = {"--ground-truth": ground_truth, "--predictions": predictions, "--list": scans, **labels_only}
        _refuse(files_only, "goes with --dataset NAME.", "Name the data set, or leave it out to score a run.")
        reports = _evaluate_run(run or "latest", protocol, scene, classes, threshold, device, outputs, console)
        _finish(reports, output, as_csv, console)
        return
    if run is not None:
        raise UsageError("A run and --dataset cannot be scored together.", "Leave one out.")
    _refuse({"--scene": scene, "--classes": classes, "--threshold": threshold}, "goes with a run, not with --dataset.")
    if ground_truth is None or predictions is None:
        raise UsageError("--dataset needs --ground-truth DIR and --predictions DIR.")
    wanted = None if scans is None else _read_list(scans)
    report = _evaluate_files(dataset, ground_truth, predictions, protocol, wanted, labels_only, console)
    _finish(report, output, as_csv, console)


def _refuse(options: Mapping[str, object], why: str, hint: str = "Leave it out.") -> None:
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{name} {why}", hint)


def _read_list(path: Path) -> list[str]:
    if not path.is_file():
        raise DataError(f"There is no list of scans at {path}.", "Check the path given to --list.")
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise DataError(f"{path} names no scan.", "Write one name a line, for example 08/000000.")
    return names


def _evaluate_files(
    dataset: str,
    ground_truth: Path,
    predictions: Path,
    protocol: str | None,
    wanted: list[str] | None,
    labels_only: Mapping[str, Any],
    console: Console,
) -> EvalReport:
    """The report of a folder; `labels_only` are the options that masks know nothing of."""
    from ov3d.common.datasets import load_dataset
    from ov3d.common.metrics.label_files import FaultyFilesError

    for option in ("--truth-ids", "--prediction-ids"):
        if labels_only[option] not in (None, *IDS):
            raise UsageError(f"{option} is {labels_only[option]!r}.", f"Choose one of {', '.join(IDS)}.")
    spec = load_dataset(dataset)
    try:
        if not spec.classes:
            from ov3d.common.metrics.view_folders import evaluate_views

            _refuse(labels_only, f"does not apply to {spec.title}.")
            return evaluate_views(spec, ground_truth, predictions, protocol=protocol, wanted=wanted, progress=console)
        from ov3d.common.metrics.folders import evaluate_folders

        return evaluate_folders(
            spec,
            ground_truth,
            predictions,
            protocol=protocol,
            subset=labels_only["--subset"],
            wanted=wanted,
            split=labels_only["--split"],
            truth_ids=labels_only["--truth-ids"] or "auto",
            prediction_ids=labels_only["--prediction-ids"] or "auto",
            workers=labels_only["--workers"],
            progress=console,
        )
    except FaultyFilesError as error:
        if len(error.faults) == 1:
            raise
        for fault in error.faults:
            print(fault, file=sys.stderr)
        raise DataError(f"{len(error.faults):,} files cannot be scored; they are listed above.", error.hint) from None


def _evaluate_run(
    name: str,
    protocol: str | None,
    scene: Path | None,
    classes: str | None,
    threshold: float | None,
    device: str,
    outputs: Path | None,
    console: Console,
) -> list[EvalReport]:
    """One report for each table of the run's scenes: its own answers, then its teacher's."""
    from ov3d.backends import get_backend
    from ov3d.common.asking.index import read_index
    from ov3d.common.base.device import pick_device
    from ov3d.common.base.runs import find_run
    from ov3d.common.metrics.report import run_reports
    from ov3d.common.readers import load_scene

    run = find_run(name, outputs)
    if run.chosen:
        console.say(f"Scoring {run.path} ({run.chosen}).")
    made_by = str(run.manifest["backend"])
    backend = get_backend(made_by)
    if protocol is not None and protocol not in backend.protocols:
        raise UsageError(
            f"A run of {made_by} is scored by protocol {' or '.join(backend.protocols)}, not {protocol}.",
            "Leave --protocol out.",
        )
    names = sorted(run.indexes)
    if scene is not None and scene.resolve().name in names:
        names = [scene.resolve().name]
    elif scene is not None and len(names) != 1:
        raise UsageError(f"Run {run.path} has no scene {scene.resolve().name!r}.", f"It has: {', '.join(names)}.")
    prompted = tuple(part.strip() for part in (classes or "").split(",") if part.strip())
    reports: list[EvalReport] = []
    for one in names:
        place = scene if scene is not None else Path(read_index(run.indexes[one]).scene_path)
        layout = run.manifest.get("layout") if scene is None else None
        found = backend.evaluate(
            run,
            load_scene(place, layout=layout, scale=run.manifest.get("scale")),
            device=pick_device(device),
            classes=prompted,
            threshold=threshold,
            progress=console,
            protocol=protocol,
        )
        reports += run_reports(found.to_json())
    return reports


def _finish(found: EvalReport | list[EvalReport], output: Path | None, as_csv: bool, console: Console) -> None:
    """Write the files, and print the result in the form asked for."""
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
