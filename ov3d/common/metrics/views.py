"""Scores of masks in views: the protocols of 3D-OVS and of LangSplat (used for LERF-OVS).

IoU of a class or query in one view = |prediction and truth| / |prediction or truth|, in pixels. The mean runs flat over all
(view, class) pairs. The two protocols differ in which pairs there are and at what size:

- `3d-ovs` (Liu et al., NeurIPS 2023): every class of the scene in every view, at an eighth of the size; a class that is absent
  from both masks scores 0. A pixel is right only if it is right for every class at once.
- `langsplat` (Qin et al., CVPR 2024): one query per class annotated in the view, at full size.

Their numbers are not comparable, so a report holds one of them. Counts are integers, and means are exactly rounded sums, so
the result is the same for any order of views.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.shapes import Array, Bool, Float

RELEVANCY_THRESHOLD = 0.4
"""LangSplat's threshold, on a relevancy that was stretched to [-1, 1] and cut at 0."""

REDUCTION = 8
"""3D-OVS is scored at one eighth of the images' width and height."""


@dataclass(frozen=True, slots=True, eq=False)
class ViewScores:
    """Scores of masks in views; fractions.

    Attributes:
        pairs: IoU by (view, class).
        mean_iou: flat mean over the pairs; NaN without any.
        by_class: mean over the views of each class, in the order in which classes were first seen in sorted views.
        accuracy: share of pixels that are right for every class; NaN if undefined.
        num_views: number of scored views.
    """

    pairs: dict[tuple[str, str], float]
    mean_iou: float
    by_class: dict[str, float]
    accuracy: float
    num_views: int


class ViewIoU:
    """IoU of masks, updated one view at a time: `update`, `merge`, `compute`."""

    def __init__(self) -> None:
        self._areas: dict[tuple[str, str], tuple[int, int]] = {}
        self._pixels: dict[str, tuple[int, int]] = {}

    def update(
        self,
        view: str,
        classes: Sequence[str],
        prediction: Bool[Array, "k h w"],
        truth: Bool[Array, "k h w"],
        *,
        count_pixels: bool = True,
    ) -> None:
        """Count one view.

        Args:
            view: its name; each view may be counted only once.
            classes: the k class names or queries.
            prediction: one mask per class.
            truth: one mask per class.
            count_pixels: whether the masks cover the whole class list, so that a pixel can be right or wrong as a whole.

        Raises:
            DataError: shapes differ, or are not those of k masks.
            UsageError: the view has already been counted.
        """
        if prediction.shape != truth.shape or len(prediction) != len(classes):
            raise DataError(
                f"View {view} has masks of shape {prediction.shape}, its truth {truth.shape}, for {len(classes)} classes.",
                "One mask per class, of the truth's size.",
            )
        if view in self._pixels:
            raise UsageError(f"View {view} has already been counted.", "Give every view a unique name.")
        for name, found, true in zip(classes, prediction, truth, strict=True):
            self._areas[view, name] = int((found & true).sum()), int((found | true).sum())
        right = (prediction == truth).all(axis=0)
        self._pixels[view] = (int(right.sum()), right.size) if count_pixels else (0, 0)

    def merge(self, other: ViewIoU) -> None:
        """Add another one's views.

        Raises:
            UsageError: both have counted the same view.
        """
        twice = self._pixels.keys() & other._pixels.keys()
        if twice:
            raise UsageError(f"View {min(twice)} was counted twice.", "Give every view a unique name.")
        self._areas |= other._areas
        self._pixels |= other._pixels

    def compute(self) -> ViewScores:
        """The scores of all views."""
        pairs = {pair: shared / union if union else 0.0 for pair, (shared, union) in sorted(self._areas.items())}
        classes: dict[str, list[float]] = {}
        for (_, name), iou in pairs.items():
            classes.setdefault(name, []).append(iou)
        right = sum(count for count, _ in self._pixels.values())
        total = sum(count for _, count in self._pixels.values())
        return ViewScores(
            pairs=pairs,
            mean_iou=exact_mean(list(pairs.values())),
            by_class={name: exact_mean(values) for name, values in classes.items()},
            accuracy=right / total if total else math.nan,
            num_views=len(self._pixels),
        )


def mask_of_relevancy(
    relevancy: Float[Array, "*levels h w"], threshold: float = RELEVANCY_THRESHOLD
) -> Bool[Array, "h w"]:
    """LangSplat's mask of a query: the level with the highest relevancy, stretched to [-1, 1], cut at 0, over the threshold.

    Args:
        relevancy: one map, or one per level.
        threshold: on the stretched relevancy, 0 to 1.

    Raises:
        DataError: more than three axes, no pixel, or values that are not finite.
    """
    if relevancy.ndim > 3 or not relevancy.size or not np.isfinite(relevancy).all():
        raise DataError(f"a relevancy of shape {relevancy.shape} must be [h, w] or [levels, h, w] and finite")
    levels = relevancy.reshape(-1, *relevancy.shape[-2:]).astype(np.float64)
    best = levels[levels.reshape(len(levels), -1).max(axis=1).argmax()]
    span = best.max() - best.min()
    stretched = (best - best.min()) / (span + 1e-9) * 2 - 1  # the small term keeps a constant map from dividing by zero
    return np.clip(stretched, 0, 1) > threshold


def resized_mask(mask: Bool[Array, "h w"], size: tuple[int, int]) -> Bool[Array, "h2 w2"]:
    """A mask resized to (height, width) by nearest neighbour."""
    from PIL import Image

    if mask.shape == size:
        return mask
    return np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))


def exact_mean(values: Sequence[float]) -> float:
    """The mean, from an exactly rounded sum: the order of values does not matter. NaN without values."""
    return math.fsum(values) / len(values) if values else math.nan
