"""`ov3d doctor`: is this machine ready, and does this scene make sense?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ov3d.cli.console import Console
from ov3d.cli.options import CacheOption, JsonFlag, LayoutOption, QuietFlag, ScaleOption, use_cache
from ov3d.common.base.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

    from ov3d.common.checks.machine import Fact

MARKS = {"ok": "[green]ok[/green]", "absent": "[dim]--[/dim]", "fault": "[red]!![/red]"}


def doctor(
    scene: Annotated[Path | None, typer.Argument(help="Scene to check; omit it to check this machine.")] = None,
    layout: LayoutOption = None,
    scale: ScaleOption = None,
    cache: CacheOption = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Check this machine, or whether a scene's images, poses and depth agree.

    Without SCENE: versions, devices, optional packages and the cache. With SCENE: what was read, the share of points that the
    cameras see, and the median depth error, which reveals wrong poses or depth scales. Exits with 1 if something is wrong.

    Example: ov3d doctor my-room
    """
    use_cache(cache)
    console = Console(as_json=as_json, quiet=quiet)
    if scene is None:
        from ov3d.common.checks.machine import describe

        facts, title = describe(), "this machine"
    else:
        from ov3d.common.checks.scene import describe_scene
        from ov3d.common.readers import load_scene

        read = load_scene(scene, layout=layout, scale=scale)
        facts, title = describe_scene(read, progress=console), f"scene {read.name}"
    console.result({"what": title, "facts": [asdict(fact) for fact in facts]}, lambda out: _show(out, title, facts))
    faults = [fact for fact in facts if fact.state == "fault"]
    if faults:
        raise DataError(
            f"{len(faults)} problem(s) in {title}; first: {faults[0].name}: {faults[0].value}.", faults[0].hint
        )


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
