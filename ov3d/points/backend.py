"""The points backend: scans and posed photographs into a LanguageIndex, and a 3D network that needs no photographs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ov3d.common.asking.ask import index_path
from ov3d.common.asking.index import read_index
from ov3d.common.base.errors import DataError, UsageError, did_you_mean
from ov3d.common.base.progress import Progress, Silent
from ov3d.common.base.runs import Run
from ov3d.common.base.shapes import Array, Float, Float32
from ov3d.common.learning.backend import Backend, RunOptions
from ov3d.common.learning.estimate import Estimate, estimate_fusing
from ov3d.common.learning.prediction_request import PredictRequest
from ov3d.common.learning.run import Learnt, begin_run, config_of, finish_run, teacher_of
from ov3d.common.learning.run_lifting import LIFTED_NAME
from ov3d.common.lifting.lift import read_lifted
from ov3d.common.metrics.run_report import RunReport
from ov3d.common.scenes.scene import Scene, SceneSource
from ov3d.points.adapter import Affine
from ov3d.points.bake import GUIDED_NAME, SPECIALISED_NAME, network_scores, specialised_features
from ov3d.points.config import STAGES, PointsConfig
from ov3d.points.estimate import learning_seconds
from ov3d.points.evaluate import evaluate_points, scored_scene
from ov3d.points.lesson import Lesson
from ov3d.points.material import read_features
from ov3d.points.network import load_network
from ov3d.points.predict import predict_scan
from ov3d.points.stages.fuse import fuse
from ov3d.points.stages.guide import guide
from ov3d.points.stages.pseudo_label import label_scenes
from ov3d.points.stages.specialise import bake_scenes, load_affine, specialise


class PointsBackend(Backend):
    """Fuses 2D features onto points, and trains a 3D network on them."""

    name = "points"
    stages = STAGES
    config_type = PointsConfig
    protocols = ("semantic",)
    can_ensemble = True

    def train(
        self,
        source: SceneSource,
        config: PointsConfig,
        *,
        run: Path,
        device: torch.device,
        progress: Progress | None = None,
        options: RunOptions = RunOptions(),
    ) -> Run:
        """Fuse every scene of the source, then learn from all of them together; see `Backend.train`.

        Raises:
            UsageError: the folder holds a run with other settings, or class names to learn are missing.
            DataError: the source is empty, or a scene cannot be fused or lacks scene-level labels.
        """
        begun = begin_run(self.name, source, config, run=run, device=device, progress=progress, options=options)
        _check_validation(config.validation, tuple(source.ids))
        learnt = Learnt()
        with learnt.timed("fuse"):
            labels, truth = fuse(begun, learnt)
        if len(config.stages) > 1:
            _learn(Lesson.of(begun, labels, truth, learnt))
        learnt.prompts = labels.vocabulary
        specialised = "specialise" in config.stages and config.specialise.enabled
        learnt.more = {"specialised": specialised, "validation": list(config.validation)}
        return finish_run(begun, learnt)

    def estimate(self, source: SceneSource, config: PointsConfig, *, device: torch.device) -> list[Estimate]:
        """Estimate what `train` would take; see `Backend.estimate`."""
        teacher = teacher_of(config, device)
        found, num_training = [], max(len(source) - len(config.validation), 1)
        for idx in range(len(source)):
            scene = source[idx]
            one = estimate_fusing(scene, teacher, config.lift, config.basis)
            if scene.name not in config.validation:
                learning = round(learning_seconds(scene, one.points, config, num_training), 1)
                one = replace(one, seconds=one.seconds + learning)
            found.append(one)
        return found

    def scores(self, run: Run, scene: str, text: Float[Array, "k d"]) -> Float32[Array, "n k"]:
        """Raw scores of all points for unit text vectors: of the 3D network, if the run has one, else of the lifted features,
        which are 0 for points that no camera saw."""
        config = config_of(run, PointsConfig)
        index_file = index_path(run, scene)
        if index_file.name == GUIDED_NAME:
            network = load_network(run.path, torch.device("cpu"))
            return network_scores(network, read_index(index_file), text)
        lifted = read_lifted(index_file.with_name(LIFTED_NAME))
        scores = np.zeros((lifted.num_points, len(text)), np.float32)
        if index_file.name == SPECIALISED_NAME:
            lifted = read_features(index_file.parent)
            features = specialised_features(lifted, load_affine(run.path, config, lifted.dim))
            scores[lifted.point_row] = features @ np.asarray(text, np.float32).T
            return scores
        scores[lifted.point_row] = lifted.scores(text)
        if config.score == "mean":
            scores[lifted.point_row] *= lifted.norms[:, None]
        return scores

    def evaluate(
        self,
        run: Run,
        scene: Scene,
        *,
        device: torch.device,
        classes: tuple[str, ...] = (),
        threshold: float | None = None,
        progress: Progress | None = None,
        protocol: str | None = None,
        ensemble: bool = False,
    ) -> RunReport:
        """Compare a run's answers on a scene with its truth, by the only protocol; see `evaluate_points`."""
        listener: Progress = progress or Silent()
        config = config_of(run, PointsConfig)
        teacher = teacher_of(config, device)
        scored = scored_scene(index_path(run, scene.name), scene, config, progress=listener)
        return evaluate_points(
            scored, teacher, classes=classes, threshold=threshold, ensemble=ensemble, progress=listener
        )

    def predict(
        self,
        run: Run,
        scan: Path,
        output: Path,
        request: PredictRequest,
        *,
        device: torch.device,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Label a scan with the run's 3D network; see `predict_scan`."""
        return predict_scan(run, scan, output, request, device=device, progress=progress)


def _learn(lesson: Lesson) -> None:
    """Run the stages after `fuse` that the configuration names, and measure each."""
    config, answers, timed = lesson.run.config, lesson.answers, lesson.learnt.timed
    answers.measure("fuse", answers.fused)
    if "pseudo-label" in config.stages:
        with timed("pseudo-label"):
            label_scenes(lesson)
        answers.measure("pseudo-label", answers.pseudo)
    if "specialise" in config.stages:
        with timed("specialise"):
            affine = specialise(lesson)
        if config.specialise.enabled:
            answers.measure("specialise", lambda name: answers.specialised(name, affine))
        _finish_learning(lesson, affine)
    answers.write(lesson.run.path)


def _finish_learning(lesson: Lesson, affine: Affine) -> None:
    """The last stages: those that write an index of what was learnt."""
    config, answers, learnt = lesson.run.config, lesson.answers, lesson.learnt
    if "guide" in config.stages:
        with learnt.timed("guide"):
            guide(lesson, affine)
        answers.measure("guide", lambda name: answers.index(learnt.indexes[name]))
    elif config.specialise.enabled:
        bake_scenes(lesson, affine)


def _check_validation(validation: tuple[str, ...], ids: tuple[str, ...]) -> None:
    for name in validation:
        if name not in ids:
            raise UsageError(f"Validation scene {name!r} does not exist.", did_you_mean(name, ids))
    if not set(ids) - set(validation):
        raise DataError("All scenes are validation scenes, so none are left to train on.", "List fewer in validation.")
