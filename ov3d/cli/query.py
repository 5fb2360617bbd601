"""`ov3d query`: where in a scene is this?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ov3d.cli.console import Console
from ov3d.cli.options import DeviceOption, JsonFlag, OutputsOption, QuietFlag

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.table import Table

    from ov3d.common.asking import Answer
    from ov3d.common.relevancy import FoundObject


def query(
    prompt: Annotated[str, typer.Argument(help='What to find, for example "a cat".', metavar="PROMPT")],
    run: Annotated[
        str, typer.Argument(help="A run: its folder, SCENE, SCENE/BACKEND, or latest.", metavar="RUN")
    ] = "latest",
    scene: Annotated[
        str | None, typer.Option("--scene", help="Which scene of the run, where it has several.", metavar="NAME")
    ] = None,
    top: Annotated[int, typer.Option("--top", help="How many objects to give at most.", metavar="N")] = 5,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold", help="Cosine from which a thing counts as there.  [default: the encoder's]", metavar="X"
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for a PLY and pictures of the answer.", metavar="DIR")
    ] = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    device: DeviceOption = "auto",
    outputs: OutputsOption = None,
) -> None:
    """Ask a run where something is: objects by score, with centre, size and number of points.

    Nothing there is an answer, too, and exits with 0. -o DIR writes points.ply (with a score a point), top-down.png, and for
    every photograph view-NAME.png and mask-NAME.png.

    Example: ov3d query "a cat" -o answer
    """
    from ov3d.common.index import read_index
    from ov3d.common.querying import ask_index, index_path
    from ov3d.common.runs import find_run
    from ov3d.common.text_cache import clean_prompt

    console = Console(as_json=as_json, quiet=quiet)
    prompt = clean_prompt(prompt)  # before anything is read: a bad prompt needs no run to be told
    found = find_run(run, outputs)
    if found.chosen:
        console.say(f"Asking {found.path} ({found.chosen}).")
    path = index_path(found, scene)
    index = read_index(path)
    answer = ask_index(index, prompt, threshold=threshold, top=top, device=device, say=console.say)
    if answer.ignored_words:
        console.say(f"Ignored, the encoder {answer.encoder} cannot see it: {', '.join(answer.ignored_words)}.")
    for note in answer.notes:
        console.say(f"Note: {note}.")
    files: list[Path] = []
    if output is not None:
        from ov3d.common.exporters.answers import write_answer

        files = write_answer(output, index, answer, path.parent, progress=console)
    data = {**answer.to_json(), "run": str(found.path), "files": [str(path) for path in files]}
    console.result(data, lambda out: _show(out, answer, files))


def _show(out: RichConsole, answer: Answer, files: list[Path]) -> None:
    """The answer for people."""
    from rich.text import Text

    # Names and prompts are the user's own text: brackets in them are no markup.
    out.print(Text(answer.headline[:1].upper() + answer.headline[1:] + "."))
    if answer.found:
        out.print(_objects(answer, answer.objects))
        out.print(Text(f"Encoder {answer.encoder}, threshold {answer.threshold:.2f}."))
    elif answer.nearly:
        out.print(Text("Closest, below the threshold:"))
        out.print(_objects(answer, answer.nearly))
    if files:
        out.print(Text(f"{len(files)} files in {files[0].parent}: points.ply, top-down.png, view-*.png, mask-*.png"))


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
