"""Write an answer to files: a PLY with scores per point, a view from above, a mask and an overlay per view."""

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
        folder: the output folder; created if missing.
        index: the points.
        answer: for this index.
        beside: the folder of the index, which has the views.
        progress: receives progress and a line about missing photographs, whose views are skipped.

    Returns:
        The written files.
    """
    files = [write_answer_ply(folder / PLY_NAME, index, answer)]
    files.append(write_png(folder / PLAN_NAME, top_down_picture(index, answer)))
    views_path = beside / FILE_NAME
    if not views_path.is_file():
        progress.say(f"No overlays: {views_path} does not exist.")
        return files
    views = read_views(views_path)
    lost = []
    with progress.task("Drawing views", len(views)) as task:
        for written in write_overlays(folder, index, answer, views):
            if isinstance(written, Path):
                files.append(written)
            else:
                lost.append(written)
            task.advance(0.5)  # a mask and an overlay per view
    if lost:
        progress.say(f"{len(lost)} of {len(views)} views could not be drawn; the first: {lost[0]}")
    return files
