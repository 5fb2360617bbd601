"""`ov3d demo`: from photographs to answers on a generated room, without a network."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ov3d.cli.console import Console
from ov3d.cli.options import (
    CacheOption,
    DeviceOption,
    JsonFlag,
    OutputsOption,
    QuietFlag,
    RefineOption,
    SeedOption,
    go_offline,
    use_cache,
)

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

    from ov3d.common.asking.answer import Answer
    from ov3d.common.base.runs import Run
    from ov3d.common.scenes.scene import Scene

PRESENT = ("cat", "coffee", "temple", "motorcycle")
"""What hangs on the walls; both prompts and classes."""
ABSENT = ("a piano", "a sheep", "an airplane")


def demo(
    seed: SeedOption = 0,
    views: Annotated[
        int, typer.Option("--views", help="Number of views rendered in the room.", min=4, metavar="N")
    ] = 8,
    refine: RefineOption = "auto",
    outputs: OutputsOption = None,
    device: DeviceOption = "auto",
    cache: CacheOption = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Build a room hung with real photographs, and find them by describing them.

    Renders posed RGB-D views of a generated room, encodes them with the offline encoder, lifts the features onto the room's
    points, asks for things that are there and things that are not, and compares with the truth. Needs ov3d[offline].

    Example: ov3d demo
    """
    go_offline(True)
    use_cache(cache)
    console = Console(as_json=as_json, quiet=quiet)
    from ov3d.api import demo_scene
    from ov3d.backends import get_backend
    from ov3d.common.base.config import load_config
    from ov3d.common.base.device import pick_device
    from ov3d.common.base.runs import outputs_root
    from ov3d.common.learning.run import train_run

    start = time.perf_counter()
    home = outputs_root(outputs) / "demo"
    console.say(f"Building a room with {views} views in {home / f'room-{seed}'}")
    scene = demo_scene(home / f"room-{seed}", seed, views, progress=console)
    backend = get_backend("points")
    settings = load_config(backend.config_type, None, [f"refine={refine}", "stages=[fuse]"])
    run = train_run(backend, scene.path, settings, outputs=outputs, device=device, progress=console)
    answers = _ask(run, scene, device, console)
    report = backend.evaluate(run, scene, device=pick_device(device), classes=PRESENT, progress=console)
    pictures = _draw(run, answers, home / "answers", console)
    data = {
        "room": str(scene.path),
        "run": str(run.path),
        "answers": [_row(answer, scene) for answer in answers],
        "evaluation": report.to_json(),
        "pictures": [str(path) for path in pictures],
        "seconds": round(time.perf_counter() - start, 1),
    }
    console.result(data, lambda out: _show(out, data))


def _ask(run: Run, scene: Scene, device: str, console: Console) -> list[Answer]:
    from ov3d.common.asking.ask import ask, index_path
    from ov3d.common.asking.index import read_index

    index = read_index(index_path(run, scene.name))
    prompts = [f"a {name}" for name in PRESENT] + list(ABSENT)
    return [ask(index, prompt, device=device, say=console.say) for prompt in prompts]


def _draw(run: Run, answers: list[Answer], folder: Path, console: Console) -> list[Path]:
    """Write the images and the point cloud of every answer that found something."""
    from ov3d.common.asking.ask import index_path
    from ov3d.common.asking.index import read_index
    from ov3d.common.exporters.answers import write_answer

    index = read_index(index_path(run))
    files: list[Path] = []
    for answer in answers:
        if answer.found:
            place = folder / answer.prompt.replace(" ", "-")
            files += write_answer(place, index, answer, index_path(run).parent, progress=console)
    return files


def _row(answer: Answer, scene: Scene) -> dict[str, Any]:
    """An answer and its error: the distance from its first object to the nearest true one of that name."""
    from ov3d.common.metrics.objects import distance_to_nearest, true_objects

    row: dict[str, Any] = {"prompt": answer.prompt, "found": answer.found, "best_score": round(answer.best_score, 3)}
    name = answer.prompt.split(" ", 1)[1]
    row["present"] = name in PRESENT
    if answer.found:
        first = answer.objects[0]
        row["centre"] = [round(value, 2) for value in first.centre.tolist()]
        if row["present"]:
            row["metres_off"] = round(distance_to_nearest(first.centre, true_objects(scene, name)), 3)
    return row


def _show(out: RichConsole, data: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (("asked", "left"), ("answer", "left"), ("score", "right"), ("centre (m)", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("off by (m)", justify="right")
    for row in data["answers"]:
        centre = " ".join(f"{value:.2f}" for value in row.get("centre", []))
        answer = "found" if row["found"] else "not here"
        right = "[green]yes[/green]" if row["found"] == row["present"] else "[red]wrong[/red]"
        off = f"{row['metres_off']:.2f}" if "metres_off" in row else ""
        table.add_row(row["prompt"], f"{answer} ({right})", f"{row['best_score']:.2f}", centre, off)
    out.print(table)
    out.print()
    scores = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("against the truth", "mIoU", "mAcc"):
        scores.add_column(name, justify="left" if name.startswith("against") else "right")
    for entry in data["evaluation"]["tables"]:
        scores.add_row(entry["title"], f"{entry['mean_iou']:.3f}", f"{entry['mean_accuracy']:.3f}")
    out.print(scores)
    out.print(f"\nPictures and point clouds: {Path(data['pictures'][0]).parent.parent if data['pictures'] else 'none'}")
    out.print(f'{data["seconds"]:.0f} seconds. Try another prompt: ov3d query "a steaming cup"', highlight=False)
