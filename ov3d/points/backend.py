"""The points backend: scans and posed photographs into a LanguageIndex, and a 3D network that needs no photographs."""

from __future__ import annotations

import importlib.metadata
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ov3d.common.asking.ask import index_path
from ov3d.common.asking.index import read_index
from ov3d.common.base.config import dump_config, load_config
from ov3d.common.base.device import seed_everything
from ov3d.common.base.errors import DataError, UsageError, did_you_mean
from ov3d.common.base.progress import Progress, Silent
from ov3d.common.base.runs import CONFIG_NAME, Run, claim_run, read_run, scene_folders, write_manifest
from ov3d.common.base.shapes import Array, Float, Float32
from ov3d.common.learning.estimate import estimate_scene
from ov3d.common.learning.run_lifting import LIFTED_NAME, SceneLifting
from ov3d.common.lifting.lift import read_lifted
from ov3d.common.metrics.run_report import RunReport
from ov3d.common.scenes.scene import Scene, SceneSource
from ov3d.common.teachers import open_teacher
from ov3d.common.teachers.teacher import Teacher
from ov3d.points.bake import GUIDED_NAME, SPECIALISED_NAME, network_scores, specialised_features
from ov3d.points.config import STAGES, PointsConfig
from ov3d.points.estimate import learning_seconds
from ov3d.points.evaluate import evaluate_points, scored_scene
from ov3d.points.fuse import Fused, fuse_scene, prepared, probe_texts
from ov3d.points.material import read_features
from ov3d.points.network import load_network
from ov3d.points.stage_metrics import Truth
from ov3d.points.train import Learning, Learnt, RunScene, load_affine
from ov3d.points.vocabulary import SceneLabels


class PointsBackend:
    """Fuses 2D features onto points, and teaches them to a 3D network."""

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
        extract: bool = True,
        resume: bool = True,
    ) -> Run:
        """Fuse every scene of the source, then learn from all of them together; see `Backend.train`.

        Raises:
            UsageError: the folder holds a run of other settings, or there are no class names to learn.
            DataError: a scene cannot be fused or has no scene-level labels, or there is no scene.
        """
        listener: Progress = progress or Silent()
        if not len(source):
            raise DataError("There is no scene to train on.", "Check the path and the split.")
        claim_run(run, dump_config(config))
        seed_everything(config.seed)
        teacher = open_teacher(config.encoder, refine=config.refine, device=device)
        start = time.perf_counter()
        lifting = SceneLifting(
            teacher=teacher,
            config=config.lift,
            basis_config=config.basis,
            run=run,
            progress=listener,
            extract=extract,
            resume=resume,
        )
        scene_of = _Prepared(source, teacher, config, listener)
        folders = scene_folders(run, tuple(source.ids))
        _check_validation(config.validation, tuple(source.ids))
        _take_over(lifting, config.lifted)
        if config.basis.energy < 1:
            training = [idx for idx, name in enumerate(source.ids) if name not in config.validation]
            lifting.choose(
                [folders[idx] for idx in training],
                lambda number: scene_of(training[number]),
                probe_texts(teacher, scene_of(training[0]).classes),
            )
        fused: dict[str, Fused] = {}
        labels, truth = SceneLabels(config.labels, config.classes), Truth()
        for idx, folder in enumerate(folders):
            scene = scene_of(idx)
            if len(config.stages) > 1:
                labels.add(scene, training=scene.name not in config.validation)
                truth.add(scene)
            fused[scene.name] = fuse_scene(scene, lifting, config, folder)
        learnt = Learnt({name: one.index for name, one in fused.items()})
        seconds = {"fuse": round(time.perf_counter() - start, 3)}
        if len(config.stages) > 1:
            learnt = Learning(
                [
                    RunScene(name, folder, labels.present.get(name, ()), name not in config.validation)
                    for name, folder in zip(fused, folders, strict=True)
                ],
                labels.vocabulary,
                config,
                teacher,
                truth,
                run=run,
                device=device,
                progress=listener,
                resume=resume,
            ).run()
        facts = {name: {**one.facts, **learnt.facts.get(name, {})} for name, one in fused.items()}
        manifest = _manifest(config, teacher, run, learnt, labels.vocabulary, facts, {**seconds, **learnt.seconds})
        write_manifest(run, manifest)
        return read_run(run)

    def estimate(self, source: SceneSource, config: PointsConfig, *, device: torch.device) -> list[dict[str, Any]]:
        """About what `train` would take; see `Backend.estimate`."""
        teacher = open_teacher(config.encoder, refine=config.refine, device=device)
        rows, num_training = [], max(len(source) - len(config.validation), 1)
        for idx in range(len(source)):
            scene = source[idx]
            row = estimate_scene(scene, teacher, config.lift, config.basis)
            if scene.name not in config.validation:
                row["seconds"] += round(learning_seconds(scene, row["points"], config, num_training), 1)
            rows.append(row)
        return rows

    def scores(self, run: Run, scene: str, text: Float[Array, "k d"]) -> Float32[Array, "n k"]:
        """Raw scores of all points for unit text vectors, from the lifted features or, where there is one, the 3D network; 0
        for points that no camera saw, if it needs cameras."""
        config = load_config(PointsConfig, run.path / CONFIG_NAME)
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
        """Compare a run's answers on a scene with its truth; see `evaluate_points`."""
        listener: Progress = progress or Silent()
        config = load_config(PointsConfig, run.path / CONFIG_NAME)
        teacher = open_teacher(config.encoder, refine=config.refine, device=device)
        scored = scored_scene(index_path(run, scene.name), scene, config, progress=listener)
        return evaluate_points(
            scored, teacher, classes=classes, threshold=threshold, ensemble=ensemble, progress=listener
        )


class _Prepared:
    """Scenes of a source, with clouds, by number; the last one is kept: a run of one scene prepares it once."""

    def __init__(self, source: SceneSource, teacher: Teacher, config: PointsConfig, progress: Progress) -> None:
        self._source, self._teacher, self._config, self._progress = source, teacher, config, progress
        self._last: tuple[int, Scene] | None = None

    def __call__(self, idx: int) -> Scene:
        if self._last is None or self._last[0] != idx:
            self._last = None  # two scenes need not fit into memory
            scene = prepared(self._source[idx], self._teacher, self._config, progress=self._progress)
            self._last = (idx, scene)
        return self._last[1]


def _check_validation(validation: tuple[str, ...], ids: tuple[str, ...]) -> None:
    for name in validation:
        if name not in ids:
            raise UsageError(f"There is no scene {name!r} to validate on.", did_you_mean(name, ids))
    if ids and not set(ids) - set(validation):
        raise DataError("All scenes are validation scenes: there is none to train on.", "Name fewer in validation.")


def _take_over(lifting: SceneLifting, lifted_from: Path | None) -> None:
    """Let a run use another one's lifted features and basis."""
    if lifted_from is None:
        return
    other = read_run(lifted_from)
    lifting.taken_from = {scene: path.with_name(LIFTED_NAME) for scene, path in other.indexes.items()}
    if lifting.basis_config.energy < 1:
        lifting.use_basis_of(other.path)


def _manifest(
    config: PointsConfig,
    teacher: Teacher,
    run: Path,
    learnt: Learnt,
    vocabulary: tuple[str, ...],
    facts: dict[str, dict[str, Any]],
    seconds: dict[str, float],
) -> dict[str, Any]:
    return {
        "scenes": list(facts),
        "backend": PointsBackend.name,
        "stages": list(config.stages),
        "encoder": teacher.card.to_json(),
        "teacher": teacher.describe(),
        "prompts": list(vocabulary),
        "specialised": "specialise" in config.stages and config.specialise.enabled,
        "validation": list(config.validation),
        "seed": config.seed,
        "versions": {name: importlib.metadata.version(name) for name in ("ov3d", "torch", "numpy")},
        "indexes": {scene: index.relative_to(run).as_posix() for scene, index in learnt.indexes.items()},
        "facts": facts,
        "seconds": seconds,
    }
