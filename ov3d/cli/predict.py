"""`ov3d predict`: label a new scan without photographs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ov3d.cli.console import Console
from ov3d.cli.options import (
    DeviceOption,
    JsonFlag,
    LayoutOption,
    OfflineFlag,
    OutputsOption,
    QuietFlag,
    ScaleOption,
    SeedOption,
    go_offline,
)

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

THRESHOLD = typer.Option(
    "--threshold",
    help="Lowest cosine at which a point gets a label.  [default: no threshold for all classes of the run, else the run's]",
    metavar="X",
)


def predict(
    run: Annotated[str, typer.Argument(help="Run: a folder, SCENE, SCENE/BACKEND, or latest.", metavar="RUN")],
    scan: Annotated[
        Path,
        typer.Argument(help="Scan to label: PLY, LAS, LAZ, PCD, .npy, .bin, or a scene with a cloud.", metavar="SCAN"),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="PLY file to write.", metavar="FILE")],
    classes: Annotated[
        str | None,
        typer.Option("--classes", help="Classes of the run to use, comma-separated.  [default: all]", metavar="A,B"),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option("--prompts", help="Any words to use instead of classes, comma-separated.", metavar="X,Y"),
    ] = None,
    threshold: Annotated[float | None, THRESHOLD] = None,
    turns: Annotated[
        int, typer.Option("--turns", help="Average over this many rotated copies of the scan.", metavar="N")
    ] = 1,
    ensemble: Annotated[
        bool,
        typer.Option(
            "--ensemble", help="Use features of SCAN's images where they are more confident than the network."
        ),
    ] = False,
    seed: SeedOption = 0,
    layout: LayoutOption = None,
    scale: ScaleOption = None,
    outputs: OutputsOption = None,
    device: DeviceOption = "auto",
    offline: OfflineFlag = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Label a scan with the 3D network of a run; no photographs are needed.

    The PLY keeps the scan's points in order, with the properties of the input file, and adds a label (65535: none), a score
    (cosine) and the colour of the class; its header names the classes.

    --ensemble needs a scene with photographs and a cloud, or a scene that the run was trained on.

    Example: ov3d predict latest scan.ply -o labelled.ply
    """
    go_offline(offline)
    console = Console(as_json=as_json, quiet=quiet)
    from ov3d.common.base.runs import find_run
    from ov3d.common.learning.prediction_request import PredictRequest

    asked, words = _listed("--classes", classes), _listed("--prompts", prompts)
    request = PredictRequest(asked, words, threshold, turns, seed, layout, scale, ensemble)
    found = find_run(run, outputs)
    if found.chosen:
        console.say(f"Labelling with {found.path} ({found.chosen}).")
    from ov3d.backends import get_backend
    from ov3d.common.base.device import pick_device

    backend = get_backend(str(found.manifest["backend"]))
    data = backend.predict(found, scan, output, request, device=pick_device(device), progress=console)
    console.result(data, lambda out: _show(out, data))


def _listed(option: str, text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    from ov3d.common.base.errors import UsageError

    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise UsageError(
            f"{option} {text!r} has an empty name.", f"Separate names by single commas, e.g. {option} wall,floor."
        )
    return names


def _show(out: RichConsole, data: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class")
    for name in ("points", "share"):
        table.add_column(name, justify="right")
    counted = sorted(data["classes"].items(), key=lambda item: -item[1])
    for name, count in (*counted, ("(no label)", data["unlabelled"])):
        if count or len(counted) <= 12:
            table.add_row(Text(name), f"{count:,}", f"{100 * count / data['points']:.1f} %")
    out.print(table)
    memory = "" if data["peak_bytes"] is None else f", {data['peak_bytes'] / 1e9:.2f} GB at most"
    line = f"{data['points']:,} points in {data['seconds']:.1f} s{memory}: {data['output']}"
    out.print(line, highlight=False, markup=False, soft_wrap=True)
