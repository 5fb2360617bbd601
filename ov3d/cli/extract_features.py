"""`ov3d extract-features`: encode photographs into the feature cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ov3d.cli.console import Console
from ov3d.cli.options import (
    CacheOption,
    DeviceOption,
    EncoderOption,
    JsonFlag,
    LayoutOption,
    OfflineFlag,
    QuietFlag,
    RefineOption,
    ScaleOption,
    TextEncoderOption,
    go_offline,
    use_cache,
)

if TYPE_CHECKING:
    from rich.console import Console as RichConsole


def extract_features(
    scenes: Annotated[list[Path], typer.Argument(help="Scenes, or folders of scenes.", metavar="SCENE...")],
    encoder: EncoderOption = "offline",
    text_encoder: TextEncoderOption = None,
    refine: RefineOption = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Estimate images to encode, disk, memory and time, then exit.")
    ] = False,
    layout: LayoutOption = None,
    scale: ScaleOption = None,
    device: DeviceOption = "auto",
    cache: CacheOption = None,
    offline: OfflineFlag = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Encode the images of scenes into the feature cache, or check label maps and features made elsewhere.

    Images that are already cached are skipped, so an interrupted extraction continues where it stopped. Features are keyed by
    image content: the same photograph is never encoded twice.

    Example: ov3d extract-features my-room
    """
    go_offline(offline)
    use_cache(cache)
    console = Console(as_json=as_json, quiet=quiet)
    from ov3d.common.base.device import pick_device
    from ov3d.common.language.specs import suitable_refinement
    from ov3d.common.readers import open_source
    from ov3d.common.teachers import open_teacher

    # Check all paths before the long work.
    sources = [open_source(scene, layout=layout, scale=scale, say=console.say) for scene in scenes]
    teacher = open_teacher(encoder, refine=refine, text_encoder=text_encoder, device=pick_device(device))
    rows: list[dict[str, Any]] = []
    for source in sources:
        for idx in range(len(source)):
            scene = source[idx]
            if dry_run:
                plan = teacher.plan(scene)
                row = {**plan.to_json(), **teacher.estimate(plan)}
            else:
                row = teacher.extract(scene, progress=console).to_json()
            rows.append({"scene": scene.name, **row})
    card = teacher.card
    data = {
        "encoder": card.spec,
        "dtype": card.image.dtype,
        "refine": suitable_refinement(refine, card.spec),
        "dry_run": dry_run,
        "scenes": rows,
    }
    console.result(data, lambda out: _show(out, data, teacher.place))


def _show(out: RichConsole, data: dict[str, Any], root: str) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    columns = [("scene", "left")]
    columns += [(name, "right") for name in data["scenes"][0] if name not in {"scene", "failed", "damaged"}]
    for name, justify in columns:
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for row in data["scenes"]:
        table.add_row(*(_cell(name, row[name]) for name, _ in columns))
    out.print(table)
    for row in data["scenes"]:
        for what, faults in (("left out", row["failed"]), ("made again", row.get("damaged", []))):
            for fault in faults:
                line = f"{what}: {row['scene']}, image {fault['image']}: {fault['reason']}"
                out.print(line, highlight=False, markup=False, soft_wrap=True)
    done = "would be kept" if data["dry_run"] else "are kept"
    out.print(f"Features of {data['encoder']} ({data['dtype']}) {done} in {root}", highlight=False, markup=False)


def _cell(name: str, value: Any) -> str:
    if name in {"bytes", "peak_bytes"}:
        return f"{value / 1e6:.1f} MB"
    if name == "seconds":
        return f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
