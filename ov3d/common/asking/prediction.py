"""What a backend or an index predicts: the only input of metrics and exporters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Bool, Float32, Int32
from ov3d.common.scenes.scene import IGNORE


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Scores of points for prompts.

    Attributes:
        prompts: the k prompts, in the order of the columns.
        scores: raw cosine per point and prompt; rows of points without a feature are 0.
        seen: whether a point has a feature.
    """

    prompts: tuple[str, ...]
    scores: Float32[Array, "n k"]
    seen: Bool[Array, " n"]

    def __post_init__(self) -> None:
        if self.scores.shape != (len(self.seen), len(self.prompts)):
            raise DataError(
                f"Scores of shape {self.scores.shape} do not fit {len(self.seen)} points x {len(self.prompts)} prompts."
            )

    def labels(self, threshold: float | None = None, *, below: int = IGNORE) -> Int32[Array, " n"]:
        """The best prompt of each point.

        Args:
            threshold: raw cosine that the best prompt must reach; None always uses the best.
            below: the label of points below the threshold and of unseen points.

        Returns:
            Column numbers into `prompts`, or `below`.
        """
        if not self.prompts:
            return np.full(len(self.seen), below, np.int32)
        best = self.scores.argmax(axis=1).astype(np.int32)
        keep = self.seen if threshold is None else self.seen & (self.scores.max(axis=1) >= threshold)
        return np.where(keep, best, np.int32(below))
