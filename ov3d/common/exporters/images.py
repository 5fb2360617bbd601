"""Pictures of an answer: scores overlaid on each photograph, and the scene from above with the found objects boxed.

Nothing here needs depth images: the scene's own points are painted as squares, nearest first (`splat.py`), so a cat behind a
wall does not show through it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ov3d.common.asking.answer import Answer
from ov3d.common.asking.index import LanguageIndex
from ov3d.common.asking.relevancy import percentile
from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Float64, UInt8
from ov3d.common.exporters.colours import heat_of
from ov3d.common.exporters.drawing import (
    INK,
    SHADE,
    badge_place,
    blend_heat,
    draw_badge,
    draw_outlines,
    draw_scale_bar,
    save_png,
    soften,
    with_legend,
)
from ov3d.common.exporters.ply import instance_ranks
from ov3d.common.exporters.splat import EMPTY, paint
from ov3d.common.exporters.view_heat import ViewHeat, picked, spacing_of, view_heat
from ov3d.common.scenes.cameras import Camera
from ov3d.common.scenes.views import ViewSet

MAX_OVERLAY_SIDE = 1280
TOP_DOWN_SIDE = 1000
MARGIN = 0.04
BOX_GAP = 8
"""Pixels between a found object and its box, so that a picture on a wall (a line from above) still shows its heat."""
GROUND = (30, 30, 36)
MIN_BADGE_PIXELS = 24
"""Visible pixels an object needs for its number to be drawn."""
CEILING_SHARE = 0.5
CEILING_BAND = 0.12
CEILING_CUT = 0.8
"""If the highest points of half the plan are in the topmost 12 % of the height, there is a ceiling: everything above
80 % is left out of the view from above."""


def overlay_picture(
    index: LanguageIndex, answer: Answer, views: ViewSet, idx: int, seen: ViewHeat | None = None
) -> UInt8[Array, "h w 3"]:
    """One photograph with the heat of its visible points, outlines and ranks of the found objects, and a legend.

    Args:
        index: the points.
        answer: for this index.
        views: the posed photographs; those larger than `MAX_OVERLAY_SIDE` are drawn smaller.
        idx: index of the view.
        seen: the heat of the view at `drawn_camera`; by default it is computed.

    Raises:
        DataError: the photograph is missing or has changed, or the answer is for another index.
    """
    from PIL import Image, ImageDraw

    _check(index, answer)
    photograph = Image.fromarray(views.load_image(idx))
    camera = drawn_camera(views.camera(idx))
    if photograph.size != (camera.width, camera.height):
        photograph = photograph.resize((camera.width, camera.height), Image.Resampling.LANCZOS)
    seen = seen or view_heat(index, answer, views, idx, camera)
    ranks = seen.ranks
    pixels = draw_outlines(blend_heat(np.asarray(photograph), seen.heat), ranks, max(1, camera.width // 500))
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    for rank in range(1, len(answer.objects) + 1):
        if np.count_nonzero(ranks == rank) >= MIN_BADGE_PIXELS:
            draw_badge(draw, *badge_place(ranks == rank), str(rank), max(11, camera.width // 40))
    return np.asarray(with_legend(picture, answer, f"{answer.scene}, view {views.names[idx]}"))


def mask_picture(
    index: LanguageIndex, answer: Answer, views: ViewSet, idx: int, seen: ViewHeat | None = None
) -> UInt8[Array, "h w"]:
    """White where a view sees a found object, else black; has the photograph's size, but does not need its file.

    For photographs larger than `MAX_OVERLAY_SIDE` the mask is computed at that size and enlarged to the nearest pixel.
    """
    from PIL import Image

    _check(index, answer)
    full = views.camera(idx)
    seen = seen or view_heat(index, answer, views, idx, drawn_camera(full))
    mask = Image.fromarray(seen.mask.astype(np.uint8) * 255)
    return np.asarray(mask.resize((full.width, full.height), Image.Resampling.NEAREST))


def drawn_camera(camera: Camera) -> Camera:
    """A view's camera at the size at which it is drawn."""
    scale = min(1.0, MAX_OVERLAY_SIDE / max(camera.width, camera.height))
    return camera.resized(max(1, round(scale * camera.width)), max(1, round(scale * camera.height)))


def write_overlays(folder: Path, index: LanguageIndex, answer: Answer, views: ViewSet) -> Iterator[Path | DataError]:
    """Write every view as `mask-NAME.png` (255 where a found object is) and, with its photograph, as `view-NAME.png`.

    For a view whose photograph is missing, the error is yielded instead of the second.
    """
    for idx, name in enumerate(views.names):
        seen = view_heat(index, answer, views, idx, drawn_camera(views.camera(idx)))
        yield write_png(folder / f"mask-{safe_name(name)}.png", mask_picture(index, answer, views, idx, seen))
        try:
            yield write_png(folder / f"view-{safe_name(name)}.png", overlay_picture(index, answer, views, idx, seen))
        except DataError as error:
            yield error


def safe_name(name: str) -> str:
    """A name made safe for use in a file name."""
    return "".join(char if char.isalnum() or char in "._-" else "-" for char in name)


def top_down_picture(index: LanguageIndex, answer: Answer) -> UInt8[Array, "h w 3"]:
    """The scene from above, orthographic along the world's up: heat, boxes and ranks of the found objects, a scale bar."""
    from PIL import Image, ImageDraw

    _check(index, answer)
    plan = index.xyz.astype(np.float64) @ plan_axes(index.world.up).T
    ranks = instance_ranks(len(index), answer)
    shown = _below_ceiling(plan) | (ranks > 0)
    low, scale, width, height = _plan_frame(plan[shown])
    place = np.array([scale, -scale])
    start = np.array([0.0, height]) - low * place
    kept = np.flatnonzero(shown)
    # Higher points hide lower ones; found objects, best points first, hide everything.
    top = plan[kept, 2].max(initial=0.0) + 2.0
    depth = -np.where(ranks[kept] > 0, top + answer.scores[kept], plan[kept, 2])
    radius = np.full(len(kept), np.clip(np.ceil((1.6 * spacing_of(index) * scale - 1) / 2), 0, 8), np.int64)
    painted = paint(plan[kept, :2] * place + start, depth, radius, width, height)
    owner = np.where(painted == EMPTY, EMPTY, np.append(kept, EMPTY)[painted])

    heat = soften(picked(heat_of(answer.scores, *answer.score_range), owner, empty=0), 1.0)
    ground = np.append(point_colours(index), [np.array(GROUND, np.uint8)], axis=0)[owner]
    picture = Image.fromarray(blend_heat(ground, heat))
    draw = ImageDraw.Draw(picture)
    for rank, item in reversed(list(enumerate(answer.objects, start=1))):
        corners = np.percentile(plan[item.point_idx, :2], (2, 98), axis=0) * place + start
        (left, right), (upper, lower) = np.sort(corners, axis=0).T
        box = (left - BOX_GAP, upper - BOX_GAP, right + BOX_GAP, lower + BOX_GAP)
        draw.rectangle(box, outline=SHADE, width=4)
        draw.rectangle((box[0] + 1, box[1] + 1, box[2] - 1, box[3] - 1), outline=INK, width=2)
        draw_badge(draw, *_beside(box, width), str(rank), 18)
    draw_scale_bar(draw, scale, answer.world.unit_name, 16.0, height - 16.0, 0.25 * width)
    return np.asarray(with_legend(picture, answer, f"{answer.scene}, from above"))


def write_png(path: str | Path, pixels: UInt8[Array, "h w ..."]) -> Path:
    """Write a picture as PNG, colour or grey, atomically."""
    from PIL import Image

    return save_png(path, Image.fromarray(pixels), compress_level=6)


def plan_axes(up: tuple[float, float, float]) -> Float64[Array, "3 3"]:
    """Unit rows right, forward and up of a view from above; right is the world's x (or z, if up is x) projected flat."""
    upward = np.asarray(up, np.float64) / np.linalg.norm(up)
    guide = np.array([0.0, 0.0, 1.0]) if abs(upward[0]) > 0.9 else np.array([1.0, 0.0, 0.0])
    right = guide - (guide @ upward) * upward
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(upward, right), upward])


def _check(index: LanguageIndex, answer: Answer) -> None:
    if len(answer.scores) != len(index):
        raise DataError(
            f"An answer with {len(answer.scores)} scores does not belong to an index of {len(index)} points."
        )


def _plan_frame(plan: Float64[Array, "n 3"]) -> tuple[Float64[Array, " 2"], float, int, int]:
    """Lower left corner, pixels per unit, width and height of a plan of (almost) all points."""
    flat = plan[np.isfinite(plan).all(axis=1), :2]
    if not len(flat):
        return np.zeros(2), TOP_DOWN_SIDE / 2, TOP_DOWN_SIDE, TOP_DOWN_SIDE
    low = np.array([percentile(flat[:, axis], 0.2) for axis in range(2)])
    high = np.array([percentile(flat[:, axis], 99.8) for axis in range(2)])
    extent = max(float((high - low).max()), 1e-6)
    low, high = low - MARGIN * extent, high + MARGIN * extent
    # A long thin scene still gets a page large enough to read its legend.
    narrow = np.maximum(0.5 * extent - (high - low), 0) / 2
    low, high = low - narrow, high + narrow
    scale = TOP_DOWN_SIDE / float((high - low).max())
    width, height = (max(1, round(scale * side)) for side in (high - low).tolist())
    return low, scale, width, height


def _below_ceiling(plan: Float64[Array, "n 3"]) -> Array:
    """Which points are not part of a ceiling that would hide the room."""
    finite = np.isfinite(plan).all(axis=1)
    if not finite.any():
        return finite
    height = plan[:, 2]
    floor, top = percentile(height[finite], 1.0), percentile(height[finite], 99.0)
    low = plan[finite, :2].min(axis=0)
    cell_size = max(float(np.ptp(plan[finite, :2], axis=0).max()) / 64, 1e-9)
    column, row = np.floor((plan[finite, :2] - low) / cell_size).astype(np.int64).T
    highest = np.full((65, 65), -np.inf)
    np.maximum.at(highest, (column, row), height[finite])
    occupied = highest[np.isfinite(highest)]
    if (occupied > top - CEILING_BAND * (top - floor)).mean() < CEILING_SHARE or top <= floor:
        return finite
    return finite & (height <= floor + CEILING_CUT * (top - floor))


def point_colours(index: LanguageIndex) -> UInt8[Array, "n 3"]:
    """The points' own colours, or grey by height if they have none."""
    if index.rgb is not None:
        return index.rgb
    height = np.nan_to_num(index.xyz.astype(np.float64) @ plan_axes(index.world.up)[2])
    shade = heat_of(height, float(height.min(initial=0)), float(height.max(initial=1)))
    return np.repeat((70 + 140 * shade).astype(np.uint8)[:, None], 3, axis=1)


def _beside(box: tuple[float, float, float, float], width: int) -> tuple[float, float]:
    """Where to draw a box's number: at its upper right corner, inside the picture."""
    return min(box[2], width - 16.0), max(box[1], 16.0)
