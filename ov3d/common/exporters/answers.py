"""Everything an answer is taken home as: a PLY with a score a point, a plan from above, a mask and an overlay a view."""

from __future__ import annotations

from pathlib import Path

from ov3d.common.asking.answer import Answer
from ov3d.common.asking.index import LanguageIndex
from ov3d.common.base.progress import Progress
from ov3d.common.exporters.images import top_down_picture, write_overlays, write_png
from ov3d.common.exporters.ply import write_answer_ply
from ov3d.common.scenes.views import FILE_NAME, read_views

PLY_NAME = "points.ply"
PLAN_NAME = "top-down.png"


def write_answer(folder: Path, index: LanguageIndex, answer: Answer, beside: Path, *, progress: Progress) -> list[Path]:
    """Write `points.ply`, `top-down.png`, and for every photograph `mask-NAME.png` and an overlay, `view-NAME.png`.

    Args:
        folder: where to; made where it is missing.
        index: the points.
        answer: of this index.
        beside: the folder of the index, which has the views.
        progress: hears how far it is, and which photographs are gone: those are left out, and the rest is written.

    Returns:
        The files.
    """
    files = [write_answer_ply(folder / PLY_NAME, index, answer)]
    files.append(write_png(folder / PLAN_NAME, top_down_picture(index, answer)))
    views_path = beside / FILE_NAME
    if not views_path.is_file():
        progress.say(f"No overlays: there are no views at {views_path}.")
        return files
    views = read_views(views_path)
    lost = []
    with progress.task("Drawing views", len(views)) as task:
        for written in write_overlays(folder, index, answer, views):
            if isinstance(written, Path):
                files.append(written)
            else:
                lost.append(written)
            task.advance(0.5)  # a mask and an overlay a view
    if lost:
        progress.say(f"{len(lost)} of {len(views)} views without a picture; the first: {lost[0]}")
    return files
