"""`ov3d doctor`: is this machine ready, and does this scene make sense?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ov3d.cli.console import Console
from ov3d.cli.options import CacheOption, JsonFlag, LayoutOption, QuietFlag, ScaleOption, use_cache
from ov3d.common.base.errors import DataError, UsageError

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

    from ov3d.common.checks.machine import Fact
    from ov3d.common.scenes.scene import Scene

MARKS = {"ok": "[green]ok[/green]", "absent": "[dim]--[/dim]", "fault": "[red]!![/red]"}


def doctor(
    scene: Annotated[Path | None, typer.Argument(help="Scene to check; omit it to check this machine.")] = None,
    layout: LayoutOption = None,
    scale: ScaleOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Folder for pictures of a LiDAR sweep: its points on photographs, and from above.",
            metavar="DIR",
        ),
    ] = None,
    cache: CacheOption = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Check this machine, or whether a scene's images, poses and depth agree.

    Without SCENE: versions, devices, optional packages and the cache. With SCENE: what was read, the share of points that the
    cameras see, and the median depth error, which reveals wrong poses or depth scales; of a LiDAR sweep also time offsets and
    cameras whose rotation is off. Exits with 1 if something is wrong.

    Example: ov3d doctor my-room
    """
    use_cache(cache)
    if output is not None and scene is None:
        raise UsageError("-o works only with a LiDAR sweep.", "For example: ov3d doctor SWEEP -o DIR")
    console = Console(as_json=as_json, quiet=quiet)
    if scene is None:
        from ov3d.common.checks.machine import describe

        facts, title = describe(), "this machine"
    else:
        from ov3d.common.checks.scene import describe_scene
        from ov3d.common.readers import load_scene

        read = load_scene(scene, layout=layout, scale=scale)
        facts, title = describe_scene(read, progress=console), f"scene {read.name}"
        if output is not None:
            _draw(output, read, console)
    console.result({"what": title, "facts": [asdict(fact) for fact in facts]}, lambda out: _show(out, title, facts))
    faults = [fact for fact in facts if fact.state == "fault"]
    if faults:
        raise DataError(
            f"{len(faults)} problem(s) in {title}; first: {faults[0].name}: {faults[0].value}.", faults[0].hint
        )


def _draw(folder: Path, scene: Scene, console: Console) -> None:
    if scene.sweep is None:
        raise UsageError(f"{scene.name} is not a LiDAR sweep, and -o draws only those.", "Leave out -o.")
    from ov3d.common.exporters.sweep_pictures import write_sweep_pictures

    found = list(write_sweep_pictures(folder, scene))
    for error in found:
        if isinstance(error, DataError):
            console.say(f"{error.message} {error.hint}")
    console.say(f"Wrote {sum(isinstance(one, Path) for one in found)} pictures to {folder}.")


def _show(out: RichConsole, title: str, facts: list[Fact]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"ov3d doctor: {title}", title_justify="left", box=None, pad_edge=False, show_header=False)
    table.add_column(width=2)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for fact in facts:
        value = escape(fact.value) + (f"  [dim]{escape(fact.hint)}[/dim]" if fact.hint else "")
        table.add_row(MARKS[fact.state], escape(fact.name), value)
    out.print(table)
