"""Stage `specialise` of a run: one affine map of features for all scenes; see `ov3d.points.adapter`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ov3d.common.learning.checkpoints import Checkpoint
from ov3d.common.learning.trainer import Trainer
from ov3d.points.adapter import Adapter, AdapterStage, Affine
from ov3d.points.bake import (
    Scored,
    bake_specialised,
    calibrated,
    presence_threshold,
    scored,
    specialised_features,
)
from ov3d.points.config import PointsConfig
from ov3d.points.lesson import Lesson
from ov3d.points.material import read_features
from ov3d.points.network import CHECKPOINT_NAME
from ov3d.points.pseudo_labels import PSEUDO_NAME, read_pseudo_labels

SPECIALISE_FOLDER = "specialise"


def specialise(lesson: Lesson) -> Affine:
    """Train the map; without specialisation it is the identity."""
    run, config = lesson.run, lesson.run.config.specialise
    if not config.enabled:
        return Affine.identity(lesson.text.shape[1])
    scale = config.scale if config.scale is not None else lesson.teacher.card.logit_scale
    stage = AdapterStage(lesson.rooms(), lesson.text, config, scale, seed=run.config.seed, device=run.device)
    Trainer(stage, run.trainer_context(run.path / SPECIALISE_FOLDER)).run()
    return stage.adapter.affine()


def bake_scenes(lesson: Lesson, affine: Affine) -> None:
    """Write every scene's index of specialised features, with a threshold that fits them."""
    found: list[Scored] = []
    for scene in lesson.training:
        lifted, pseudo = read_features(scene.folder), read_pseudo_labels(scene.folder / PSEUDO_NAME)
        scores = np.zeros((lifted.num_points, len(lesson.text)), np.float32)
        scores[lifted.point_row] = specialised_features(lifted, affine) @ lesson.text.T
        found.append(scored(scores, pseudo, lifted.point_row))
    card = calibrated(lesson.teacher.card, presence_threshold(found))
    tolerance = lesson.run.config.score_tolerance
    for scene in lesson.scenes:
        path = bake_specialised(scene.folder, affine, card, lesson.vocabulary, lesson.text, tolerance=tolerance)
        lesson.learnt.indexes[scene.name] = path


def load_affine(run: Path, config: PointsConfig, dim: int) -> Affine:
    """The map of a run that has finished this stage."""
    adapter = Adapter(dim, config.specialise.residual)
    Checkpoint(run / SPECIALISE_FOLDER / CHECKPOINT_NAME).load_module("network", adapter)
    return adapter.affine()
