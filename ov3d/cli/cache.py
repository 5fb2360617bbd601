"""`ov3d cache`: what the feature cache holds, and whether it still holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from ov3d.cli.console import Console
from ov3d.cli.options import CacheOption, JsonFlag, QuietFlag, use_cache
from ov3d.common.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

app = typer.Typer(help="Look after the cache of 2D features.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Look after the cache of 2D features."""


@app.command("verify")
def verify(cache: CacheOption = None, as_json: JsonFlag = False, quiet: QuietFlag = False) -> None:
    """Read every cached file whole, and hash again every image that one was made from.

    Exits with 1 where a file is damaged. `ov3d extract-features` makes damaged and outdated files anew.

    Example: ov3d cache verify
    """
    use_cache(cache)
    from ov3d.common.features.verify import verify_cache

    console = Console(as_json=as_json, quiet=quiet)
    report = verify_cache(progress=console)

    def show(out: RichConsole) -> None:
        out.print(f"{report.num_files} files, {report.num_bytes / 1e6:.1f} MB, in {report.root}", highlight=False)
        for path in report.damaged:
            out.print(f"damaged: {path}", highlight=False)
        for path in report.outdated:
            out.print(f"its image has changed: {path}", highlight=False)

    console.result(report.to_json(), show)
    if report.damaged:
        raise DataError(f"{len(report.damaged)} of {report.num_files} cached files are damaged.", "Extract again.")
