"""`ov3d train`: train a backend on a scene, so that it can be queried."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ov3d.cli.console import Console
from ov3d.cli.options import (
    CacheOption,
    ConfigOption,
    DeviceOption,
    JsonFlag,
    LayoutOption,
    OfflineFlag,
    OutputsOption,
    QuietFlag,
    ScaleOption,
    SetOption,
    TextEncoderOption,
    go_offline,
    use_cache,
)

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

    from ov3d.common.base.runs import Run
    from ov3d.common.learning.estimate import Estimate


BackendArgument = Annotated[str, typer.Argument(help="Backend: points or nerf (lidar follows in a later version).")]
ScenesArgument = Annotated[Path, typer.Argument(help="A scene, or a folder of scenes.")]
StagesOption = Annotated[
    str | None,
    typer.Option(
        "--stages",
        help="Stages to run, comma-separated, starting with the first: field,distil (nerf) or "
        "fuse,pseudo-label,specialise,guide (points).  [default: all; with the preset zero-shot, only fuse]",
        metavar="A,B",
    ),
]
PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="Default settings: cpu, gpu or paper; for points also zero-shot.  [default: cpu; for points zero-shot]",
        metavar="NAME",
    ),
]
SpecOption = Annotated[
    str | None,
    typer.Option("--encoder", help="Source of 2D features; see ov3d extract-features --help.", metavar="SPEC"),
]
RefinementOption = Annotated[
    str | None,
    typer.Option("--refine", help="Refinement of 2D features: auto, none, dino or timm:NAME.", metavar="NAME"),
]
NoExtractFlag = Annotated[
    bool, typer.Option("--no-extract", help="Fail if features are missing instead of extracting them.")
]
ResumeOption = Annotated[
    Path | None, typer.Option("--resume", help="Resume the unfinished run in this folder.", metavar="RUN")
]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Estimate disk, memory and time, then exit.")]
TrainSeedOption = Annotated[int | None, typer.Option("--seed", help="Random seed.", min=0, metavar="N")]


def train(
    backend: BackendArgument,
    scene: ScenesArgument,
    stages: StagesOption = None,
    preset: PresetOption = None,
    encoder: SpecOption = None,
    text_encoder: TextEncoderOption = None,
    refine: RefinementOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    no_extract: NoExtractFlag = False,
    resume: ResumeOption = None,
    dry_run: DryRunFlag = False,
    layout: LayoutOption = None,
    scale: ScaleOption = None,
    outputs: OutputsOption = None,
    device: DeviceOption = "auto",
    seed: TrainSeedOption = None,
    cache: CacheOption = None,
    offline: OfflineFlag = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Train a backend on a scene or a folder of scenes, and write a run that `ov3d query` can search.

    The run is a new folder OUTPUTS/SCENE/BACKEND/TIME with its settings and one LanguageIndex per scene. The options
    --stages, --preset, --encoder, --refine and --seed are short for --set NAME=VALUE.

    Example: ov3d train points my-room --stages fuse
    """
    go_offline(offline)
    use_cache(cache)
    console = Console(as_json=as_json, quiet=quiet)
    if text_encoder is not None:
        encoder = _with_text(encoder, text_encoder)
    overrides = _overrides(stages=stages, preset=preset, encoder=encoder, refine=refine, seed=seed) + (settings or [])
    from ov3d.backends import get_backend
    from ov3d.common.base.config import load_config
    from ov3d.common.learning.backend import RunOptions
    from ov3d.common.learning.run import estimate_run, train_run

    chosen = get_backend(backend)
    loaded = load_config(chosen.config_type, _resumed_config(resume, config), overrides)
    options = RunOptions(layout=layout, scale=scale, extract=not no_extract)
    if dry_run:
        rows = estimate_run(chosen, scene, loaded, device=device, options=options, progress=console)
        data = {"dry_run": True, "scenes": [row.to_json() for row in rows]}
        console.result(data, lambda out: _show_estimate(out, rows))
        return
    run = train_run(
        chosen, scene, loaded, run=resume, outputs=outputs, device=device, options=options, progress=console
    )
    data = {"run": str(run.path), "manifest": run.manifest}
    console.result(data, lambda out: _show(out, run))


def _show_estimate(out: RichConsole, rows: list[Estimate]) -> None:
    from rich.table import Table

    table = Table("scene", "images to encode", "points", "disk", "peak memory", "seconds", box=None, pad_edge=False)
    for row in rows:
        disk, memory = f"{row.bytes / 1e6:,.0f} MB", f"{row.peak_bytes / 1e6:,.0f} MB"
        table.add_row(row.scene, f"{row.images:,}", f"{row.points:,}", disk, memory, f"{row.seconds:,.0f}")
    out.print(table)
    seconds, size = sum(row.seconds for row in rows), sum(row.bytes for row in rows)
    out.print(
        f"About {seconds / 60:,.1f} minutes and {size / 1e6:,.0f} MB on disk; nothing was written.", highlight=False
    )


def _with_text(encoder: str | None, text_encoder: str) -> str:
    from ov3d.common.base.errors import UsageError
    from ov3d.common.language.specs import with_text

    if encoder is None:
        raise UsageError("--text-encoder works only with --encoder labels:DIR or features:DIR.", "Add --encoder.")
    return with_text(encoder, text_encoder)


def _overrides(*, stages: str | None, **values: object) -> list[str]:
    texts = [f"{name}={value}" for name, value in values.items() if value is not None]
    return texts + ([f"stages=[{stages}]"] if stages is not None else [])


def _resumed_config(resume: Path | None, config: Path | None) -> Path | None:
    if resume is None or config is not None:
        return config
    from ov3d.common.base.runs import started_config

    return started_config(resume)


def _show(out: RichConsole, run: Run) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in _lines(run.manifest):
        table.add_row(name, value)
    out.print(table)
    out.print(f"Run: {run.path}", highlight=False, markup=False, soft_wrap=True)
    for line in _next_steps(run.manifest):
        out.print(line, highlight=False, markup=False)


def _next_steps(manifest: dict[str, Any]) -> list[str]:
    """What to do next with a run, given what it holds."""
    if not manifest["indexes"]:
        return ["Nothing to query yet: the later stages write the index."]
    lines = ['Query it: ov3d query "a cat"']
    if "guide" in manifest["stages"]:
        lines.append("Label a scan with it: ov3d predict latest scan.ply -o labelled.ply")
    return lines


def _lines(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    from ov3d.common.asking.corruption_note import corruption_note

    lines = [("backend", str(manifest["backend"])), ("stages", ", ".join(manifest["stages"]))]
    lines.append(("scenes", ", ".join(manifest["indexes"])))
    for scene, facts in manifest.get("facts", {}).items():
        if note := corruption_note(facts):
            lines.append(("corruption", f"{scene}: {note}"))
    seconds = manifest.get("seconds", {})
    lines.append(("seconds", ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())))
    return lines
