"""An answer in one view: the score of each pixel, and its found object.

If a run stored language codes of its views' pixels, they give the scores: they were rendered from the learnt field and have
its edges. Otherwise the points are painted into the view. Either way a found object is where its points are; with codes, its
pixels are those connected to painted ones whose own score reaches the object's extent.

Symbols: h, w the wanted size; r rank of the index.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ov3d.common.asking.answer import Answer
from ov3d.common.asking.index import SPACING_FACT, LanguageIndex, half_to_single
from ov3d.common.asking.relevancy import point_spacing
from ov3d.common.base.shapes import Array, Bool, Float, Float16, Float32, Int32
from ov3d.common.exporters.colours import heat_of
from ov3d.common.exporters.drawing import soften, tidied
from ov3d.common.exporters.ply import instance_ranks
from ov3d.common.exporters.splat import paint_view
from ov3d.common.scenes.cameras import Camera
from ov3d.common.scenes.views import ViewSet

REACH = 3
"""Pixels of the code map by which an object spreads from its painted points, which are a voxel apart."""
NOTHING = -1
NOBODY = np.iinfo(np.int32).max
"""Marks no object when taking the smallest rank."""


@dataclass(frozen=True, slots=True, eq=False)
class ViewHeat:
    """An answer in one view.

    Attributes:
        heat: 0 (the background's score) to 1 (the best).
        ranks: rank of the found object at each pixel, from 1; -1 for none.
    """

    heat: Float[Array, "h w"]
    ranks: Int32[Array, "h w"]

    @property
    def mask(self) -> Bool[Array, "h w"]:
        """Which pixels belong to a found object."""
        return self.ranks > 0


def view_heat(index: LanguageIndex, answer: Answer, views: ViewSet, idx: int, camera: Camera) -> ViewHeat:
    """An answer in a view.

    Args:
        index: the points.
        answer: for this index.
        views: the views.
        idx: index of the view.
        camera: the view's, at the desired size.
    """
    code = views.view_code(idx)
    if code is not None and code.size and len(answer.query) == code.shape[2]:
        return _from_codes(index, answer, views, idx, camera, code)
    owner = paint_view(index.xyz, camera, views.world_from_camera[idx], spacing_of(index))
    ranks = tidied(picked(instance_ranks(len(index), answer), owner), max(camera.width / 200, 2.0))
    heat = picked(heat_of(answer.scores, *answer.score_range), owner, empty=0)
    return ViewHeat(soften(heat, max(camera.width / 320, 1.0)), ranks)


def code_scores(code: Float16[Array, "*shape r"], query: Float32[Array, " r"]) -> Float32[Array, "*shape"]:
    """Raw cosines of pixels' codes; 0 for empty pixels."""
    flat = half_to_single(code).reshape(-1, len(query))
    return (flat @ query).reshape(code.shape[:-1])


def spacing_of(index: LanguageIndex) -> float:
    """The distance between neighbouring points: as stated in the index, else estimated."""
    stated = index.facts.get(SPACING_FACT)
    return float(stated) if isinstance(stated, int | float) and stated > 0 else point_spacing(index.xyz)


def picked(values: Array, owner: Array, *, empty: int = NOTHING) -> Array:
    """The value of the point that covers each pixel."""
    return np.append(values, values.dtype.type(empty))[owner]


def enlarged(values: Float32[Array, "h w"], width: int, height: int) -> Float32[Array, "h2 w2"]:
    """A map at another size, bilinear."""
    from PIL import Image

    if values.shape == (height, width):
        return values
    return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR))


def _from_codes(
    index: LanguageIndex, answer: Answer, views: ViewSet, idx: int, camera: Camera, code: Float16[Array, "a b r"]
) -> ViewHeat:
    low, _ = answer.score_range  # empty pixels are cold, regardless of the background's score
    scores = np.where((code != 0).any(axis=2), code_scores(code, answer.query), np.float32(low))
    small = camera.resized(code.shape[1], code.shape[0])
    owner = paint_view(index.xyz, small, views.world_from_camera[idx], spacing_of(index))
    levels = np.array([np.inf, *(answer.extent_level(item.score) for item in answer.objects)], np.float32)
    ranks = _grown(picked(instance_ranks(len(index), answer), owner), scores, levels)
    full = enlarged(np.ascontiguousarray(scores), camera.width, camera.height)
    rows = ((np.arange(camera.height) + 0.5) * code.shape[0] / camera.height).astype(np.int64)
    columns = ((np.arange(camera.width) + 0.5) * code.shape[1] / camera.width).astype(np.int64)
    wide = ranks[rows[:, None], columns]
    inside = full >= levels[wide.clip(0)]
    heat = heat_of(full, *answer.score_range)
    return ViewHeat(heat, np.where(inside, wide, np.int32(NOTHING)).astype(np.int32))


def _grown(
    painted: Int32[Array, "h w"], scores: Float32[Array, "h w"], levels: Float32[Array, " k"]
) -> Int32[Array, "h w"]:
    """Grow objects from their points: by `REACH` pixels anywhere, and further as long as pixels reach the object's level.

    Points are sparse where depth was; the learnt field is not. Where two objects meet, the better one (lower rank) wins.
    """
    grown = np.where(painted > 0, painted, NOBODY)
    for step in range(max(painted.shape)):
        padded = np.pad(grown, 1, mode="edge")
        sides = np.stack([padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]).min(axis=0)
        joins = (grown == NOBODY) & (sides != NOBODY)
        if step >= REACH:
            joins &= scores >= levels[np.where(joins, sides, 0)]
        if not joins.any():
            break
        grown[joins] = sides[joins]
    return np.where(grown == NOBODY, NOTHING, grown).astype(np.int32)
