"""The labels that each stage of a run gives a scene's points, from the stage's files, and their scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ov3d.common.asking.index import INDEX_NAME, read_index
from ov3d.common.base.errors import DataError
from ov3d.common.base.files import write_json
from ov3d.common.base.progress import Progress
from ov3d.common.base.shapes import Array, Float32, Int32
from ov3d.common.learning.run_lifting import LIFTED_NAME
from ov3d.common.lifting.lift import LiftedFeatures, read_lifted
from ov3d.common.scenes.scene import IGNORE
from ov3d.common.scenes.upright import upright
from ov3d.points import stage_metrics
from ov3d.points.adapter import Affine
from ov3d.points.guide import Score
from ov3d.points.material import read_features
from ov3d.points.network import PointNetwork
from ov3d.points.pseudo_labels import PSEUDO_NAME, read_pseudo_labels
from ov3d.points.stage_metrics import Truth, best_class, measure


class StageAnswers:
    """Answers of the stages, in the numbers of the scenes' true classes, `IGNORE` for points without one.

    Args:
        folders: of the scenes in the run, by name.
        training: names of the training scenes; the others are for validation.
        truth: of the scenes, where known.
        text: unit vectors of its classes.
        progress: receives the scores.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        training: Sequence[str],
        truth: Truth,
        text: Float32[Array, "k d"],
        progress: Progress,
    ) -> None:
        self.folders, self.truth, self.text, self.progress = folders, truth, text, progress
        validation = tuple(name for name in folders if name not in training)
        self.splits = {"train": tuple(training), "validation": validation}
        self.metrics: dict[str, dict[str, Any]] = {}

    def measure(self, stage: str, answers: Callable[[str], Int32[Array, " n"]]) -> None:
        """Score a stage on the scenes whose truth is known, and report it; only training scenes have pseudo labels."""
        found = {
            split: measure(self.truth, names, answers)
            for split, names in self.splits.items()
            if split == "train" or stage != "pseudo-label"
        }
        known = {split: one.to_json() for split, one in found.items() if one is not None}
        if known:
            self.metrics[stage] = known
            parts = [f"mIoU {100 * one['mean_iou_present']:.1f} on {split} scenes" for split, one in known.items()]
            self.progress.say(f"Stage {stage}: {', '.join(parts)}")

    def write(self, run: Path) -> None:
        """Write metrics.json, if any scene has truth."""
        if self.metrics:
            data = {"classes": list(self.truth.classes), "stages": self.metrics}
            path = run / stage_metrics.METRICS_NAME
            write_json(path, data, kind=stage_metrics.METRICS_KIND, version=stage_metrics.METRICS_VERSION)

    def validation_score(self, *, needed: bool) -> Score | None:
        """mIoU over present classes on the validation scenes that have truth.

        Raises:
            DataError: no validation scene has truth.
        """
        names = tuple(name for name in self.splits["validation"] if name in self.truth.labels)
        if not names:
            if needed:
                raise DataError(
                    "guide.select=best needs a validation scene with true labels.",
                    "Use guide.select=last, or validation scenes with labelled points.",
                )
            return None

        def score(network: PointNetwork) -> float:
            def answers(name: str) -> Int32[Array, " n"]:
                index = read_index(self.folders[name] / INDEX_NAME)
                codes, voxel = network.codes(upright(index.xyz, index.world.up), index.rgb)
                return best_class(codes @ (network.basis @ self.text.T))[voxel]

            found = measure(self.truth, names, answers)
            assert found is not None
            return found.mean_iou_present

        return score

    # -------------------------------------------------------------------------------------------------------- answers

    def fused(self, name: str) -> Int32[Array, " n"]:
        """Stage `fuse`."""
        lifted = read_lifted(self.folders[name] / LIFTED_NAME)
        return _on_points(best_class(lifted.scores(self.text)), lifted)

    def pseudo(self, name: str) -> Int32[Array, " n"]:
        """Stage `pseudo-label`, as the labels were stored."""
        pseudo, lifted = read_pseudo_labels(self.folders[name] / PSEUDO_NAME), read_features(self.folders[name])
        known = {one: idx for idx, one in enumerate(self.truth.classes)}
        number = np.array([*(known.get(one, IGNORE) for one in pseudo.vocabulary), IGNORE], np.int32)
        return _on_points(number[pseudo.labels], lifted)

    def specialised(self, name: str, affine: Affine) -> Int32[Array, " n"]:
        """Stage `specialise`."""
        lifted = read_features(self.folders[name])
        queries = affine.on_codes(lifted.basis) @ self.text.T
        scores: Float32[Array, "v k"] = lifted.code.astype(np.float32) @ queries[:-1] + queries[-1]
        return _on_points(best_class(scores), lifted)

    def index(self, path: Path) -> Int32[Array, " n"]:
        """The answers of an index."""
        index = read_index(path)
        return np.where(index.seen, best_class(index.scores(self.text)), np.int32(IGNORE))


def _on_points(values: Int32[Array, " v"], lifted: LiftedFeatures) -> Int32[Array, " n"]:
    """Values of rows as values of points, `IGNORE` for points without a row."""
    whole = np.full(lifted.num_points, IGNORE, np.int32)
    whole[lifted.point_row] = values
    return whole
