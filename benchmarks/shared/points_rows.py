"""Rows of the points benchmarks: generated rooms, runs that are resumed, the answers of each stage, scores.

Every stage answers the same way: the word with the highest cosine, without a threshold. Each row has one confusion matrix over
all points of all rooms; points of unknown class are left out, points without an answer are missed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ov3d.backends import get_backend
from ov3d.common.base.config import load_config
from ov3d.common.base.runs import CONFIG_NAME, MANIFEST_NAME, Run, read_run
from ov3d.common.learning.run import train_run
from ov3d.common.learning.run_lifting import LIFTED_NAME
from ov3d.common.lifting.lift import LiftedFeatures, read_lifted
from ov3d.common.metrics.semantic import SemanticConfusion
from ov3d.common.readers import load_scene
from ov3d.common.scenes.scene import IGNORE, Scene
from ov3d.common.scenes.upright import upright
from ov3d.common.teachers import open_teacher
from ov3d.common.worlds.gallery import furnished_gallery, write_gallery
from ov3d.points.bake import specialised_features
from ov3d.points.config import PointsConfig
from ov3d.points.ensemble import ensemble_scores
from ov3d.points.material import read_features
from ov3d.points.network import load_network
from ov3d.points.pseudo_labels import PSEUDO_NAME, read_pseudo_labels
from ov3d.points.stages.specialise import load_affine
from ov3d.points.turns import Pose, poses

WIDTH, HEIGHT = 320, 240


@dataclass(frozen=True)
class Row:
    """Scores of one way of answering; fractions.

    Attributes:
        miou, macc: over all classes, those without a true point as 0.
        miou_present, macc_present: over classes that have a true point.
        coverage: share of points that got an answer.
    """

    miou: float
    macc: float
    miou_present: float
    macc_present: float
    coverage: float

    def to_json(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in vars(self).items()}


@dataclass(frozen=True)
class Words:
    """What all rows are asked: unit vectors, one a class in the order of the truth's ids."""

    classes: tuple[str, ...]
    text: np.ndarray


Answer = Callable[[Scene], np.ndarray]
"""Class ids of a scene's points, `IGNORE` for none."""


def write_rooms(folder: Path, seeds: Sequence[int], num_views: int = 12) -> list[Scene]:
    """The rooms of some seeds; one that is there is read."""
    scenes = []
    for seed in seeds:
        path = folder / f"room-{seed}"
        if not (path / "credits.txt").is_file():  # written last
            write_gallery(path, replace(furnished_gallery(seed, num_views=num_views), width=WIDTH, height=HEIGHT))
        scenes.append(load_scene(path, layout="scannet"))
    return scenes


def run_of(path: Path, rooms: Path, settings: Sequence[str]) -> tuple[Run, float]:
    """A run of these settings, trained now, resumed, or finished before; and the seconds of this call."""
    start = time.perf_counter()
    config = load_config(PointsConfig, None, settings)
    if (path / MANIFEST_NAME).is_file():
        if load_config(PointsConfig, path / CONFIG_NAME) == config:
            return read_run(path), 0.0
        raise SystemExit(f"{path} holds a run of other settings: delete it, or give another --out.")
    path.mkdir(parents=True, exist_ok=True)
    run = train_run(get_backend("points"), rooms, config, run=path, device="cpu")
    return run, time.perf_counter() - start


def words_of(spec: str, prompts: Sequence[str], classes: tuple[str, ...]) -> Words:
    """The vectors of prompts, one a class, in the teacher's text space."""
    return Words(classes, open_teacher(spec, refine="none", device=torch.device("cpu")).text(tuple(prompts)))


def measure(scenes: Sequence[Scene], num_classes: int, answer: Answer) -> Row:
    """Score answers on the true labels of the scenes' clouds."""
    confusion = SemanticConfusion(num_classes, ignore_label=IGNORE, no_prediction=IGNORE)
    for scene in scenes:
        assert scene.cloud is not None and scene.cloud.labels is not None
        confusion.update(answer(scene), scene.cloud.labels)
    found = confusion.compute()
    return Row(
        found.mean_iou,
        found.mean_accuracy,
        found.mean_iou_present,
        found.mean_accuracy_present,
        found.coverage,
    )


# ----------------------------------------------------------------------------------------------------------- answers


def lifted_of(run: Run, scene: Scene) -> LiftedFeatures:
    """The fused features of a scene of a run."""
    return read_lifted(run.indexes[scene.name].with_name(LIFTED_NAME))


def fused_answer(run: Run, words: Words) -> Answer:
    """Stage `fuse`."""
    return lambda scene: _labels(*_fused_scores(run, words, scene))


def pseudo_answer(run: Run, words: Words) -> Answer:
    """Stage `pseudo-label`: argmax over the classes that the scene is said to have, as it was stored."""

    def answer(scene: Scene) -> np.ndarray:
        lifted = lifted_of(run, scene)
        pseudo = read_pseudo_labels(run.indexes[scene.name].with_name(PSEUDO_NAME))
        number = np.array([*(words.classes.index(name) for name in pseudo.vocabulary), IGNORE], np.int32)
        labels = np.full(lifted.num_points, IGNORE, np.int32)
        labels[lifted.point_row] = number[pseudo.labels]
        return labels

    return answer


def specialised_answer(run: Run, words: Words) -> Answer:
    """Stage `specialise`."""
    config = load_config(PointsConfig, run.path / CONFIG_NAME)

    def answer(scene: Scene) -> np.ndarray:
        lifted = read_features(run.indexes[scene.name].parent)
        features = specialised_features(lifted, load_affine(run.path, config, lifted.dim))
        return _labels(*_on_points(lifted, features @ words.text.T))

    return answer


class Guided:
    """A run's network, asked for rooms; what it says of a room is kept, since every row asks again.

    Args:
        run: with a finished network.
        turns: how many turned copies of a room are averaged.
    """

    def __init__(self, run: Run, turns: int = 1) -> None:
        self._network = load_network(run.path, torch.device("cpu"))
        self._turns = turns
        self._kept: dict[tuple[str, Pose], tuple[np.ndarray, np.ndarray]] = {}

    def scores(self, scene: Scene, words: Words) -> np.ndarray:
        """Cosines of all points with the words, from positions and colours."""
        assert scene.cloud is not None
        total = np.zeros((len(scene.cloud), len(words.text)), np.float32)
        queries = self._network.basis @ words.text.T
        for pose in poses(self._turns, self._network.spec.turn):
            codes, voxel = self._codes(scene, pose)
            total += (codes @ queries)[voxel]
        return total / np.float32(self._turns)

    def _codes(self, scene: Scene, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
        key = scene.name, pose
        if key not in self._kept:
            assert scene.cloud is not None
            xyz = pose.of(upright(scene.cloud.xyz, scene.world.up), self._network.voxel_size)
            self._kept[key] = self._network.codes(xyz, scene.cloud.rgb)
        return self._kept[key]


def guided_answer(guided: Guided, words: Words) -> Answer:
    """Stage `guide`: the network alone."""
    return lambda scene: guided.scores(scene, words).argmax(axis=1).astype(np.int32)


def ensemble_answer(guided: Guided, fused: Run, words: Words) -> Answer:
    """The network, or the fused features of another run where they are surer."""

    def answer(scene: Scene) -> np.ndarray:
        scores, seen = _fused_scores(fused, words, scene)
        return ensemble_scores(scores, guided.scores(scene, words), seen).argmax(axis=1).astype(np.int32)

    return answer


def _fused_scores(run: Run, words: Words, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    lifted = lifted_of(run, scene)
    return _on_points(lifted, lifted.scores(words.text))


def _on_points(lifted: LiftedFeatures, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and seen flags of all points from those of rows."""
    whole, seen = np.zeros((lifted.num_points, scores.shape[1]), np.float32), np.zeros(lifted.num_points, bool)
    whole[lifted.point_row], seen[lifted.point_row] = scores, True
    return whole, seen


def _labels(scores: np.ndarray, seen: np.ndarray) -> np.ndarray:
    return np.where(seen, scores.argmax(axis=1), IGNORE).astype(np.int32)


def spread(rows: Sequence[Row]) -> dict[str, Any]:
    """Mean and standard deviation over seeds."""
    names = list(vars(rows[0]))
    values = np.array([[getattr(row, name) for name in names] for row in rows])
    return {
        "mean": {name: round(float(value), 4) for name, value in zip(names, values.mean(axis=0), strict=True)},
        "std": {name: round(float(value), 4) for name, value in zip(names, values.std(axis=0), strict=True)},
        "seeds": len(rows),
    }
