"""`ov3d query`: find something in a scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ov3d.cli.console import Console
from ov3d.cli.options import DeviceOption, JsonFlag, OutputsOption, QuietFlag, RunArgument

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.table import Table

    from ov3d.common.asking.answer import Answer
    from ov3d.common.asking.index import LanguageIndex
    from ov3d.common.asking.relevancy import FoundObject


TopOption = Annotated[int, typer.Option("--top", help="Maximum number of objects to return.", metavar="N")]
ThresholdOption = Annotated[
    float | None,
    typer.Option(
        "--threshold", help="Lowest cosine at which something counts as present.  [default: the encoder's]", metavar="X"
    ),
]
AnswerOption = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        help="Folder for a PLY and images of the answer; with --render, alternatively a .png or .mp4 file.",
        metavar="PATH",
    ),
]
RenderOption = Annotated[
    str | None,
    typer.Option("--render", help="Also render an animation; KIND is orbit, a path around the scene.", metavar="KIND"),
]
FramesOption = Annotated[
    int | None, typer.Option("--frames", help="Number of frames of the animation.  [default: 24]", min=2, metavar="N")
]
SizeOption = Annotated[
    int | None,
    typer.Option("--size", help="Long side of the animation in pixels.  [default: 240]", min=32, metavar="N"),
]


@dataclass(frozen=True)
class Orbit:
    """An animation to write.

    Attributes:
        path: ends in .png or .mp4.
        frames: number of frames; None uses the exporter's default.
        size: long side in pixels; None uses the exporter's default.
        device: device of the backend's renderer.
    """

    path: Path
    frames: int | None
    size: int | None
    device: str


def query(
    prompt: Annotated[str, typer.Argument(help='What to find, for example "a cat".', metavar="PROMPT")],
    run: RunArgument = "latest",
    scene: Annotated[
        str | None, typer.Option("--scene", help="Scene to search, if the run has several.", metavar="NAME")
    ] = None,
    top: TopOption = 5,
    threshold: ThresholdOption = None,
    output: AnswerOption = None,
    render: RenderOption = None,
    frames: FramesOption = None,
    size: SizeOption = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    device: DeviceOption = "auto",
    outputs: OutputsOption = None,
) -> None:
    """Find something in a scene of a run: objects ranked by score, with centre, size and number of points.

    Finding nothing is a valid answer (exit code 0). -o DIR writes points.ply (with a score per point), top-down.png, and
    view-NAME.png and mask-NAME.png for every photograph. --render orbit writes an animation to orbit.png in that folder, to
    the file named by -o, or without -o to orbit-PROMPT.png in the current folder.

    Example: ov3d query "a cat" -o answer
    """
    from ov3d.common.asking.ask import ask, index_path
    from ov3d.common.asking.index import read_index
    from ov3d.common.asking.prompt import clean_prompt
    from ov3d.common.base.runs import find_run

    console = Console(as_json=as_json, quiet=quiet)
    prompt = clean_prompt(prompt)  # first, so that a bad prompt fails before any file is read
    orbit = _orbit(prompt, render, output, frames, size, device)
    found = find_run(run, outputs)
    if found.chosen:
        console.say(f"Asking {found.path} ({found.chosen}).")
    path = index_path(found, scene)
    index = read_index(path)
    answer = ask(index, prompt, threshold=threshold, top=top, device=device, say=console.say)
    _say_notes(answer, console)
    files: list[Path] = []
    if output is not None and (orbit is None or output != orbit.path):
        from ov3d.common.exporters.answers import write_answer

        files = write_answer(output, index, answer, path.parent, progress=console)
    if orbit is not None:
        files.append(_write_orbit(orbit, str(found.manifest["backend"]), path, index, answer, console))
    data = {**answer.to_json(), "run": str(found.path), "files": [str(path) for path in files]}
    console.result(data, lambda out: _show(out, answer, files, orbit))


def _say_notes(answer: Answer, console: Console) -> None:
    if answer.ignored_words:
        console.say(f"Ignored, because the encoder {answer.encoder} cannot see it: {', '.join(answer.ignored_words)}.")
    for note in answer.notes:
        console.say(f"Note: {note}.")


def _orbit(
    prompt: str, render: str | None, output: Path | None, frames: int | None, size: int | None, device: str
) -> Orbit | None:
    """The requested animation, if any.

    Raises:
        UsageError: incompatible options, or an MP4 without ffmpeg; raised before anything is computed.
    """
    from ov3d.common.base.errors import UsageError, did_you_mean

    if render is None:
        for name, value in (("--frames", frames), ("--size", size)):
            if value is not None:
                raise UsageError(f"{name} works only with --render orbit.", "Leave it out, or add --render orbit.")
        if output is not None and output.suffix.lower() in (".png", ".apng", ".mp4"):
            raise UsageError(f"-o {output} must be a folder without --render.", "Name a folder, or add --render orbit.")
        return None
    if render != "orbit":
        raise UsageError(f"Unknown animation {render!r}.", did_you_mean(render, ("orbit",)))
    from ov3d.common.exporters.animation import ENDINGS, check_animation
    from ov3d.common.exporters.images import safe_name

    path = Path(f"orbit-{safe_name(prompt)[:60]}.png")
    if output is not None:
        path = output if output.suffix.lower() in ENDINGS else output / "orbit.png"
    check_animation(path)
    return Orbit(path, frames, size, device)


def _write_orbit(
    orbit: Orbit, backend: str, path: Path, index: LanguageIndex, answer: Answer, console: Console
) -> Path:
    """Write the animation of an index at `path`: rendered by the backend if it has a renderer, else painted points."""
    from ov3d.backends import get_backend
    from ov3d.common.base.errors import DataError
    from ov3d.common.exporters.orbit import LONG_SIDE, NUM_FRAMES, PaintedPoints, ViewRenderer, write_orbit
    from ov3d.common.scenes.views import FILE_NAME, read_views

    views_path = path.with_name(FILE_NAME)
    renderer: ViewRenderer | None = None
    try:
        renderer = get_backend(backend).renderer(path.parent, index, answer, orbit.device)
    except DataError as error:
        console.say(f"{error.message} The points are painted instead.")
    return write_orbit(
        orbit.path,
        index,
        answer,
        read_views(views_path) if views_path.is_file() else None,
        renderer or PaintedPoints(index, answer),
        num_frames=orbit.frames or NUM_FRAMES,
        long_side=orbit.size or LONG_SIDE,
        progress=console,
    )


def _show(out: RichConsole, answer: Answer, files: list[Path], orbit: Orbit | None) -> None:
    """Print the answer as text."""
    from rich.text import Text

    # Names and prompts are the user's own text: brackets in them are not markup.
    out.print(Text(answer.headline[:1].upper() + answer.headline[1:] + "."))
    if answer.found:
        out.print(_objects(answer, answer.objects))
        out.print(Text(f"Encoder {answer.encoder}, threshold {answer.threshold:.2f}."))
    elif answer.nearly:
        out.print(Text("Closest, below the threshold:"))
        out.print(_objects(answer, answer.nearly))
    pictures = [path for path in files if orbit is None or path != orbit.path]
    if pictures:
        what = "points.ply, top-down.png, view-*.png, mask-*.png"
        out.print(Text(f"{len(pictures)} files in {pictures[0].parent}: {what}"))
    if orbit is not None:
        out.print(Text(f"Animation: {orbit.path}"))


def _objects(answer: Answer, objects: Sequence[FoundObject]) -> Table:
    from rich.table import Table

    unit = answer.world.unit_name
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("rank", "score", f"centre ({unit})", f"size ({unit})", "points"):
        table.add_column(name, justify="right")
    for rank, item in enumerate(objects, start=1):
        centre = (item.centre + answer.world.origin).tolist()
        cells = (" ".join(f"{value:.2f}" for value in centre), " x ".join(f"{value:.2f}" for value in item.size))
        table.add_row(str(rank), f"{item.score:.2f}", *cells, f"{item.num_points:,}")
    return table
