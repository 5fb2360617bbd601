"""`ov3d cache`: list, prune and verify the cached features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ov3d.cli.console import Console
from ov3d.cli.options import CacheOption, JsonFlag, OutputsOption, QuietFlag, use_cache
from ov3d.common.base.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

app = typer.Typer(help="Inspect and clean the cache of 2D features.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Inspect and clean the cache of 2D features."""


@app.command("ls")
def list_features(cache: CacheOption = None, as_json: JsonFlag = False, quiet: QuietFlag = False) -> None:
    """List the cached features, one line per encoder.

    Example: ov3d cache ls
    """
    use_cache(cache)
    from ov3d.common.features.inventory import list_cache
    from ov3d.common.features.layout import default_root

    console = Console(as_json=as_json, quiet=quiet)
    rows = [folder.to_json() for folder in list_cache()]
    root = default_root()

    def show(out: RichConsole) -> None:
        from datetime import datetime

        from rich.table import Table

        table = Table("encoder", "files", "MB", "newest", box=None, pad_edge=False)
        for row in rows:
            newest = "" if row["newest"] is None else f"{datetime.fromtimestamp(row['newest']):%Y-%m-%d %H:%M}"
            table.add_row(row["encoder"], f"{row['files']:,}", f"{row['bytes'] / 1e6:,.1f}", newest)
        if rows:
            out.print(table)
        total = sum(row["bytes"] for row in rows) / 1e6
        out.print(f"{total:,.1f} MB in {root}", highlight=False, markup=False, soft_wrap=True)

    console.result({"root": str(root), "encoders": rows}, show)


@app.command("prune")
def prune_features(
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", help="Only features of this encoder, as named by `ov3d cache ls`.", metavar="NAME"),
    ] = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", help="Only files older than this, e.g. 12h, 30d or 2w.", metavar="AGE")
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option(
            "--max-size", help="Delete the oldest files until the cache is this small, e.g. 20GB.", metavar="SIZE"
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be deleted, then exit.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also delete features that unfinished runs may need.")] = False,
    outputs: OutputsOption = None,
    cache: CacheOption = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Delete cached features by encoder, by age, or down to a size; several filters combine.

    Deleted features can be recomputed by encoding the images again. Finished runs keep their own lifted features and can
    still be queried. If unfinished runs use the encoder, nothing is deleted without --force.

    Example: ov3d cache prune --older-than 30d --dry-run
    """
    use_cache(cache)
    from ov3d.common.features.inventory import parse_age, parse_size, plan_prune, prune

    console = Console(as_json=as_json, quiet=quiet)
    plan = plan_prune(
        older_than=None if older_than is None else parse_age(older_than),
        max_bytes=None if max_size is None else parse_size(max_size),
        encoder=encoder,
        outputs=outputs,
    )
    for run in plan.unfinished:
        console.say(f"Unfinished run {run} may need these features.")
    if plan.finished:
        console.say(
            f"{len(plan.finished)} finished runs were made with them: they can still be queried, but ov3d eval can no "
            "longer score the photographs' own features."
        )
    if not dry_run:
        prune(plan, force=force)
    done = "would be deleted" if dry_run else "deleted"
    line = f"{len(plan.files):,} files, {plan.size / 1e6:,.1f} MB, {done} from {plan.root}"
    console.result(
        {**plan.to_json(), "dry_run": dry_run},
        lambda out: out.print(line, highlight=False, markup=False, soft_wrap=True),
    )


@app.command("verify")
def verify(cache: CacheOption = None, as_json: JsonFlag = False, quiet: QuietFlag = False) -> None:
    """Check every cached file for damage, and whether its source image has changed.

    Exits with 1 if a file is damaged. `ov3d extract-features` recomputes damaged and outdated files.

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
        raise DataError(
            f"{len(report.damaged)} of {report.num_files} cached files are damaged.", "Run ov3d extract-features again."
        )
