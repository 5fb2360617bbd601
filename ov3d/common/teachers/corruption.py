"""Controlled corruption of label maps for ablations, imitating a bad segmenter.

Of the labelled pixels of all views, `level` per cent get a wrong class from the scene's classes:

- half of them in blocks of 32 x 32 pixels, drawn anew in every view. Averaging views cures them.
- half of them bound to the surface: patches of the cloud about as wide as 32 pixels look from the cameras' median distance,
  each with one wrong class in two thirds of the views that see it (never fewer than a third). The mean over the views is also
  wrong there, so averaging cannot cure them.

A pixel is changed by at most one half, a pixel that already has the drawn class is unchanged, void stays void. Both shares are
counted and reported with every result. Images are divided into tiles of 8 x 8 pixels: a tile belongs to the patch with the
most points in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.files import hash_text
from ov3d.common.base.packing import distinct_cells
from ov3d.common.base.progress import Progress, Silent
from ov3d.common.base.shapes import Array, Int32, Int64
from ov3d.common.lifting.projection import VisibilityConfig, median_spacing, visible_in_frame
from ov3d.common.scenes.scene import Frame, PointCloud

ALGORITHM = "corruption-1"
BLOCK = 32
TILE = 8
SHARE_OF_VIEWS = 2 / 3
"""Share of the views of a patch that get its wrong class."""
MIN_VIEWS = 2
"""Patches seen by fewer views are left alone."""
REACH = 2.0
"""Tiles without a point get the patch of the nearest tile within this many tiles."""

UNTOUCHED = -1
_VISIBILITY = VisibilityConfig(border=0)

Load = Callable[[Frame], Any]
"""Maps a frame to its class numbers `[h, w]`, negative for void."""


@dataclass(frozen=True, slots=True, eq=False)
class Corruption:
    """A corruption of one scene.

    Attributes:
        level: target percentage of labelled pixels to change.
        seed: random seed.
        tiles: for each frame the class that its tiles get, `UNTOUCHED` for most.
        independent, surface: share of the labelled pixels that each half changed.
        patches: for each patch of the surface half, the number of views that see it and that get its wrong class.
    """

    level: int
    seed: int
    tiles: Mapping[str, Int32[Array, "th tw"]]
    independent: float
    surface: float
    patches: Int64[Array, "p 2"]

    def key(self, frame: str) -> str:
        """Identifies the changes to a frame."""
        tiles = self.tiles[frame]
        return hash_text(ALGORITHM, str(self.level), str(self.seed), str(tiles.shape), tiles.tobytes().hex())

    def apply(self, frame: str, classes: Int32[Array, "h w"]) -> Int32[Array, "h w"]:
        """A frame's class numbers, corrupted."""
        height, width = classes.shape
        wrong = self.tiles[frame].repeat(TILE, axis=0).repeat(TILE, axis=1)[:height, :width]
        return np.where((wrong != UNTOUCHED) & (classes >= 0), wrong, classes)

    def to_json(self) -> dict[str, Any]:
        """The facts reported with every result."""
        return {"level": self.level, "seed": self.seed, "independent": self.independent, "surface": self.surface}


def draw_corruption(
    cloud: PointCloud,
    frames: Sequence[Frame],
    load: Load,
    num_classes: int,
    *,
    level: int,
    seed: int,
    progress: Progress | None = None,
) -> Corruption:
    """Draw the corruption of a scene.

    Args:
        cloud: the surface.
        frames: with label maps.
        load: their class numbers.
        num_classes: number of classes of the maps.
        level: percentage of the labelled pixels.
        seed: the same seed, scene and level give the same corruption.
        progress: advanced once per frame.

    Raises:
        DataError: the maps hold fewer than two classes, so no wrong class can be drawn.
    """
    views = []
    with (progress or Silent()).task("Finding labels to corrupt", len(frames)) as task:
        for frame in frames:
            views.append(_View(load(frame), num_classes))
            task.advance()
    present = np.flatnonzero(sum(view.counts.sum(axis=(0, 1), dtype=np.int64) for view in views))
    if len(present) < 2:
        raise DataError(
            "The label maps of the scene hold fewer than two classes, so none can be corrupted.", "Leave corrupt= out."
        )
    num_labelled = sum(int(view.labelled.sum(dtype=np.int64)) for view in views)
    rng = np.random.default_rng([seed, level])
    goal = level / 200
    surface, patches = 0, np.zeros((0, 2), np.int64)
    if level:
        _bind_tiles(cloud, frames, views, rng)
        surface, patches = _corrupt_surface(views, present, goal * num_labelled, rng)
    independent = sum(_corrupt_blocks(view, present, goal, rng) for view in views)
    tiles = {frame.name: view.tiles for frame, view in zip(frames, views, strict=True)}
    return Corruption(level, seed, tiles, independent / num_labelled, surface / num_labelled, patches)


class _View:
    """One view's tiles.

    Attributes:
        counts: number of pixels per tile and class, at most 64.
        labelled: number of labelled pixels per tile.
        tiles: the wrong class of each tile.
        patch: the patch that each tile shows, -1 for none.
    """

    def __init__(self, classes: Int32[Array, "h w"], num_classes: int) -> None:
        rows, columns = (-(-side // TILE) for side in classes.shape)
        tile = (np.arange(classes.shape[0]) // TILE)[:, None] * columns + np.arange(classes.shape[1]) // TILE
        known = classes >= 0
        flat = tile[known] * num_classes + classes[known]
        counts = np.bincount(flat, minlength=rows * columns * num_classes)
        self.counts = counts.reshape(rows, columns, num_classes).astype(np.uint8)
        self.labelled = self.counts.sum(axis=2, dtype=np.int32)
        self.tiles = np.full((rows, columns), UNTOUCHED, np.int32)
        self.patch = np.full((rows, columns), -1, np.int64)


def _bind_tiles(cloud: PointCloud, frames: Sequence[Frame], views: list[_View], rng: np.random.Generator) -> None:
    """Find the surface patch that each tile shows."""
    from scipy.ndimage import distance_transform_edt

    spacing = median_spacing(cloud.xyz)
    seen = [visible_in_frame(cloud.xyz, frame, _VISIBILITY, spacing=spacing) for frame in frames]
    widths = [one.z / (0.5 * (frame.camera.fx + frame.camera.fy)) for one, frame in zip(seen, frames, strict=True)]
    if not sum(map(len, widths)):
        return
    side = BLOCK * float(np.median(np.concatenate(widths)))
    cells = np.floor((cloud.xyz - cloud.xyz.min(axis=0)) / side + rng.random(3)).astype(np.int64)
    _, patch_of_point = distinct_cells(cells)
    for one, view in zip(seen, views, strict=True):
        if not len(one):
            continue
        column, row = (one.uv // TILE).astype(np.int64).T
        pairs = np.column_stack([row * view.patch.shape[1] + column, patch_of_point[one.point_idx]])
        found, place = distinct_cells(pairs)
        tile, patch = found.T
        order = np.argsort(np.bincount(place), kind="stable")  # the patch with the most points is written last
        view.patch.reshape(-1)[tile[order]] = patch[order]
        distance, nearest = distance_transform_edt(view.patch < 0, return_indices=True)
        view.patch = np.where(distance <= REACH, view.patch[tuple(nearest)], -1)


def _corrupt_surface(
    views: list[_View], present: Int64[Array, " c"], goal: float, rng: np.random.Generator
) -> tuple[int, Int64[Array, "p 2"]]:
    """Give patches a wrong class in two thirds of their views until about `goal` pixels have changed.

    Returns:
        The number of changed pixels, and per patch the number of views that see it and that are wrong.
    """
    flat = [np.flatnonzero((view.patch.ravel() >= 0) & (view.labelled.ravel() > 0)) for view in views]
    view_idx = np.repeat(np.arange(len(views)), [len(one) for one in flat])
    tile_idx = np.concatenate([*flat, np.zeros(0, np.int64)]).astype(np.int64)
    patch = np.concatenate([view.patch.ravel()[one] for view, one in zip(views, flat, strict=True)])
    order = np.argsort(patch, kind="stable")
    starts = np.flatnonzero(np.diff(patch[order], prepend=-1))
    groups = np.split(order, starts[1:])
    changed, patches = 0, []
    for group in rng.permutation(len(groups)) if len(patch) else ():
        members = groups[group]
        seen_by = np.unique(view_idx[members])
        if len(seen_by) < MIN_VIEWS:
            continue
        counts = sum(
            views[v]
            .counts.reshape(-1, views[v].counts.shape[2])[tile_idx[members[view_idx[members] == v]]]
            .sum(axis=0, dtype=np.int64)
            for v in seen_by
        )
        wrong = _wrong_class(counts, present, rng)
        chosen = rng.permutation(seen_by)[: int(np.ceil(SHARE_OF_VIEWS * len(seen_by)))]
        gain, writes = 0, []
        for v in chosen:
            tiles = tile_idx[members[view_idx[members] == v]]
            of_view = views[v].counts.reshape(-1, views[v].counts.shape[2])[tiles]
            gain += int(views[v].labelled.ravel()[tiles].sum() - of_view[:, wrong].sum(dtype=np.int64))
            writes.append((v, tiles))
        if abs(changed + gain - goal) >= abs(changed - goal):
            continue  # it would overshoot by more than the remaining deficit
        for v, tiles in writes:
            views[v].tiles.reshape(-1)[tiles] = wrong
        changed += gain
        patches.append((len(seen_by), len(chosen)))
    return changed, np.array(patches, np.int64).reshape(-1, 2)


def _corrupt_blocks(view: _View, present: Int64[Array, " c"], goal: float, rng: np.random.Generator) -> int:
    """Give blocks of a view a wrong class until about the share `goal` of its pixels has changed; returns their number."""
    wanted, changed = goal * int(view.labelled.sum(dtype=np.int64)), 0
    if wanted == 0:
        return 0
    rows, columns = view.tiles.shape
    side = BLOCK // TILE
    corners = [(r, c) for r in range(0, rows, side) for c in range(0, columns, side)]
    for number in rng.permutation(len(corners)):
        r, c = corners[number]
        block = (slice(r, r + side), slice(c, c + side))
        free = view.tiles[block] == UNTOUCHED
        counts = view.counts[block][free].sum(axis=0, dtype=np.int64)
        if not counts.any():
            continue
        wrong = _wrong_class(counts, present, rng)
        gain = int(counts.sum() - counts[wrong])
        if abs(changed + gain - wanted) < abs(changed - wanted):
            view.tiles[block] = np.where(free, wrong, view.tiles[block])
            changed += gain
    return changed


def _wrong_class(counts: Int64[Array, " c"], present: Int64[Array, " p"], rng: np.random.Generator) -> int:
    """A random class of the scene other than the most frequent one here."""
    others = present[present != int(counts.argmax())]
    return int(others[rng.integers(len(others))])
