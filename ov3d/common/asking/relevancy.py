"""From scores to answers: relevancy against negatives, and points grouped into found objects.

Symbols: n points, k prompts; s raw cosines; T the presence threshold; b the background, a low percentile of the scene's
scores; p the peak of an object, the mean of its top decile. Only NumPy is used, because this runs in every query.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ov3d.common.asking.voxel_components import VoxelGrid, grow, label_components, voxelise
from ov3d.common.base.shapes import Array, Float, Float32, Float64, Int32, Int64

NEGATIVE_PROMPTS = ("object", "things", "stuff", "texture")
"""The canonical phrases that LERF compares a prompt with."""
BACKGROUND_PERCENTILE = 10.0
TOP_SHARE = 0.1
"""An object's score is the mean over this share of its points, the best ones."""
EXTENT_PERCENTILES = (2.0, 98.0)
EXTENT_FRACTION = 0.5
"""Where an object ends between background and peak: a blurred step edge is at one half."""
GROWTH_STEPS = 16
"""Number of voxels that a faint object may grow beyond its points above the threshold."""
VOXELS_PER_SPACING = 3.0
"""Voxel edge in point spacings: points up to this far apart are always neighbours."""
SPACING_SAMPLES = 128
SWEEP_DIRECTION = (0.48, 0.6, 0.64)
"""A unit direction oblique to the axes, because all points of an axis-aligned wall have one coordinate along an axis."""


def relevancy(positive: Float[Array, " n"], negatives: Float[Array, "n k"], logit_scale: float) -> Float32[Array, " n"]:
    """Relevancy of a prompt in [0, 1]: the minimum of its pairwise softmaxes against each negative.

    min_i exp(a s) / (exp(a s) + exp(a s_i)), with a the logit scale and s_i the cosine of the i-th negative (Kerr et al.,
    *LERF: Language Embedded Radiance Fields*, ICCV 2023, "Querying LERF"). The minimum is at the largest s_i, so it is one
    logistic function of s - max_i s_i.

    Args:
        positive: raw cosines of the prompt.
        negatives: raw cosines of the negatives, see `NEGATIVE_PROMPTS`.
        logit_scale: factor on the cosine.

    Returns:
        1 without negatives, 0.5 if the prompt ties with its strongest negative.
    """
    if negatives.shape[1] == 0:
        return np.ones(len(positive), np.float32)
    margin = np.float32(logit_scale) * (positive - negatives.max(axis=1)).astype(np.float32)
    return np.float32(0.5) * (np.float32(1) + np.tanh(np.float32(0.5) * margin))  # a logistic that cannot overflow


@dataclass(frozen=True, slots=True, eq=False)
class FoundObject:
    """An object that matches a prompt: a group of connected points, or a stored instance.

    Attributes:
        score: mean of the top decile of its points; in a group, of its points above the threshold.
        centre: mean position, weighted in a group by each point's score above the background; scene units, relative to the
            world's origin.
        low, high: corners of its box, 2nd and 98th percentile along each axis.
        point_idx: its points, ascending.
    """

    score: float
    centre: Float64[Array, " 3"]
    low: Float64[Array, " 3"]
    high: Float64[Array, " 3"]
    point_idx: Int64[Array, " m"]

    @property
    def size(self) -> Float64[Array, " 3"]:
        """Edges of the box along the axes, scene units."""
        return self.high - self.low

    @property
    def num_points(self) -> int:
        """Number of points."""
        return len(self.point_idx)


def find_objects(
    xyz: Float32[Array, "n 3"],
    scores: Float[Array, " n"],
    *,
    threshold: float,
    voxel_size: float,
    min_points: int = 10,
    extent_fraction: float = EXTENT_FRACTION,
    background: float | None = None,
) -> list[FoundObject]:
    """Group the points that match a prompt into objects.

    Presence and extent are separate questions. An object is present where at least `min_points` points of score >= T are
    connected (in voxels that share a face, an edge or a corner). Its extent then follows its own peak: it ends where the
    score falls below e = b + extent_fraction (p - b). A strong object (e >= T) loses the halo that blurred features leave
    around it, and may split into several; a faint one (e < T) grows by at most `GROWTH_STEPS` voxels.

    Args:
        xyz: positions, scene units.
        scores: one score per point; a point with a position or score that is not finite belongs to no object.
        threshold: T.
        voxel_size: edge of the voxels that connect points, scene units; see `voxel_size_for`.
        min_points: least number of points above the threshold in an object.
        extent_fraction: 0 extends to the background, 1 keeps only the peak.
        background: b; None uses `background_score(scores)`. Never above T.

    Returns:
        The objects, in the order of `best_first`.
    """
    scores = np.asarray(scores, dtype=np.float32)
    floor = min(background_score(scores) if background is None else background, threshold)
    lowest = floor + extent_fraction * (threshold - floor)
    with np.errstate(invalid="ignore"):  # NaN compares false, as intended
        candidates = np.flatnonzero((scores >= lowest) & (scores < np.inf))
    candidates = candidates[np.isfinite(xyz[candidates]).all(axis=1)]
    values = scores[candidates]
    if np.count_nonzero(values >= threshold) < min_points:
        return []
    grid = voxelise(xyz[candidates], voxel_size)
    region_of, levels = _regions(grid, values, threshold, floor, extent_fraction, min_points)
    # A voxel has the score of its best point; other points in it may still be below the level of its region.
    inside = (region_of >= 0) & (grid.maximum(values) >= levels[region_of])
    pieces = label_components(grid, np.where(inside, region_of, -1))[grid.voxel_of]
    pieces[values < levels[region_of[grid.voxel_of]]] = -1
    found = [
        _describe(xyz, scores, candidates[members], threshold, floor)
        for members in groups(pieces, min_points).values()
        if np.count_nonzero(values[members] >= threshold) >= min_points
    ]
    return best_first(found)


def stored_objects(
    xyz: Float32[Array, "n 3"], scores: Float[Array, " n"], instance: Int32[Array, " n"], *, threshold: float
) -> list[FoundObject]:
    """The stored instances that match a prompt.

    The objects of a segmented index are known, so nothing is grouped or grown: an instance is present if its peak, the mean
    of the top decile of its points' scores, reaches T, and its extent is all of its points. No minimum number of
    points applies, because a segmented object is an object however small.

    Args:
        xyz: positions, scene units; a point that is not finite belongs to no object.
        scores: one per point; points with non-finite scores (unseen points) count in the extent, not in the peak.
        instance: object ids; -1 for points of no object.
        threshold: T.

    Returns:
        The objects, in the order of `best_first`.
    """
    scores = np.asarray(scores, dtype=np.float32)
    owner = np.where(np.isfinite(xyz).all(axis=1), instance, np.int64(-1))
    finite = np.isfinite(scores)
    reached = np.unique(owner[finite & (scores >= threshold)])  # a peak reaches T only if a point does
    found = []
    for members in groups(np.where(np.isin(owner, reached), owner, -1), 1).values():
        peak = peak_score(scores[members[finite[members]]])
        if peak >= threshold:
            found.append(_placed(xyz, members, np.full(len(members), 1 / len(members)), peak))
    return best_first(found)


def best_first(objects: Iterable[FoundObject]) -> list[FoundObject]:
    """Objects by descending score; ties by descending size, then by ascending centre."""
    return sorted(objects, key=lambda item: (-item.score, -item.num_points, *item.centre.tolist()))


def groups(labels: Int64[Array, " n"], min_size: int) -> dict[int, Int64[Array, " m"]]:
    """The members, ascending, of each label >= 0 with at least `min_size` members, in order of labels."""
    order = np.argsort(labels, kind="stable")
    order = order[np.searchsorted(labels[order], 0) :]
    names, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    return {
        int(name): order[start : start + size]
        for name, start, size in zip(names, starts, sizes, strict=True)
        if size >= min_size
    }


def background_score(scores: Float[Array, " n"]) -> float:
    """The background score of the scene: the 10th percentile, low enough for a prompt that matches half the scene."""
    finite = scores[np.isfinite(scores)]
    return percentile(finite, BACKGROUND_PERCENTILE) if len(finite) else 0.0


def percentile(values: Float[Array, " n"], q: float) -> float:
    """The nearest-rank percentile of at least one value; NumPy's own would import its masked arrays."""
    position = round(q / 100 * (len(values) - 1))
    return float(np.partition(values, position)[position])


def peak_score(scores: Float[Array, " n"]) -> float:
    """The mean of the top decile of at least one score."""
    count = -(-len(scores) // round(1 / TOP_SHARE))
    return float(np.partition(scores, len(scores) - count)[len(scores) - count :].mean(dtype=np.float64))


def point_spacing(xyz: Float32[Array, "n 3"]) -> float:
    """The median distance from a point to its nearest neighbour, from a sample of 128 points.

    Returns:
        Scene units; 0 if all points coincide.
    """
    points = xyz[np.isfinite(xyz).all(axis=1)].astype(np.float64)
    if len(points) < 2 or not np.ptp(points, axis=0).any():
        return 0.0
    along = points @ np.array(SWEEP_DIRECTION)
    order = np.argsort(along, kind="stable")
    points, along = points[order], along[order]
    samples = np.unique(np.linspace(0, len(points) - 1, SPACING_SAMPLES).astype(np.int64))
    return float(np.median([_nearest(points, along, int(idx)) for idx in samples]))


def voxel_size_for(xyz: Float32[Array, "n 3"], spacing: float | None = None) -> float:
    """The edge of the voxels that connect the points of a scene: three point spacings.

    Args:
        xyz: positions, scene units.
        spacing: the point spacing if known; otherwise it is estimated.
    """
    known = spacing if spacing is not None and np.isfinite(spacing) and spacing > 0 else point_spacing(xyz)
    return VOXELS_PER_SPACING * known if known > 0 else 1.0


def _regions(
    grid: VoxelGrid,
    values: Float32[Array, " c"],
    threshold: float,
    floor: float,
    extent_fraction: float,
    min_points: int,
) -> tuple[Int64[Array, " v"], Float32[Array, " v"]]:
    """The core that each voxel belongs or grows to (-1: none), and the score at which each core's extent ends."""
    best = grid.maximum(values)
    core_of = label_components(grid, np.where(best >= threshold, 0, -1))
    levels = np.full(grid.num_voxels, np.inf, np.float32)  # for cores with too few points: unreachable
    for core, members in groups(np.where(values >= threshold, core_of[grid.voxel_of], -1), min_points).items():
        levels[core] = floor + extent_fraction * (peak_score(values[members]) - floor)
    return grow(grid, core_of, best, levels, GROWTH_STEPS), levels


def _describe(
    xyz: Float32[Array, "n 3"],
    scores: Float32[Array, " n"],
    members: Int64[Array, " m"],
    threshold: float,
    floor: float,
) -> FoundObject:
    values = scores[members]
    weights = values.astype(np.float64) - floor
    weights = weights / weights.sum() if weights.sum() > 0 else np.full(len(values), 1 / len(values))
    return _placed(xyz, members, weights, peak_score(values[values >= threshold]))


def _placed(
    xyz: Float32[Array, "n 3"], members: Int64[Array, " m"], weights: Float64[Array, " m"], score: float
) -> FoundObject:
    points = xyz[members].astype(np.float64)
    low, high = (np.array([percentile(axis, q) for axis in points.T]) for q in EXTENT_PERCENTILES)
    return FoundObject(score, weights @ points, low, high, members)


def _nearest(points: Float64[Array, "n 3"], along: Float64[Array, " n"], idx: int) -> float:
    """Distance from point `idx` to the nearest point at another position; infinite if all coincide.

    The points are sorted by `along`, their coordinate in a unit direction: the window around `idx` widens until everything
    outside it is farther away than the nearest point inside.
    """
    half = 256
    while True:
        first, last = max(idx - half, 0), min(idx + half, len(points) - 1)
        squared = ((points[first : last + 1] - points[idx]) ** 2).sum(axis=1)
        distance = float(np.sqrt(squared.min(initial=np.inf, where=squared > 0)))
        below_is_done = first == 0 or along[idx] - along[first] >= distance
        above_is_done = last == len(points) - 1 or along[last] - along[idx] >= distance
        if below_is_done and above_is_done:
            return distance
        half *= 4
