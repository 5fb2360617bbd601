"""The points backend: scans and posed photographs into a LanguageIndex. Its one stage so far is `fuse`."""

from __future__ import annotations

import importlib.metadata
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ov3d.common.config import dump_config, load_config
from ov3d.common.device import seed_everything
from ov3d.common.errors import DataError
from ov3d.common.lifting import read_lifted
from ov3d.common.progress import Progress, Silent
from ov3d.common.querying import index_path
from ov3d.common.run_estimate import estimate_scene
from ov3d.common.runs import CONFIG_NAME, Run, claim_run, read_run, scene_folders, write_manifest
from ov3d.common.scene import Scene, SceneSource
from ov3d.common.scene_lifting import LIFTED_NAME, SceneLifting
from ov3d.common.shapes import Array, Float, Float32
from ov3d.common.teacher import Teacher
from ov3d.common.teachers import open_teacher
from ov3d.points.config import STAGES, PointsConfig
from ov3d.points.evaluate import EvaluationReport, evaluate_run
from ov3d.points.fuse import Fused, fuse_scene, prepared, probe_texts


class PointsBackend:
    """Fuses 2D features onto points."""

    name = "points"
    stages = STAGES
    config_type = PointsConfig

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
        """Fuse every scene of the source; see `Backend.train`.

        Raises:
            UsageError: the folder holds a run of other settings.
            DataError: a scene cannot be fused, or there is none.
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
        _take_over(lifting, config.lifted)
        if config.basis.energy < 1:
            lifting.choose(folders, scene_of, probe_texts(teacher, scene_of(0).classes))
        fused: dict[str, Fused] = {}
        for idx, folder in enumerate(folders):
            scene = scene_of(idx)
            fused[scene.name] = fuse_scene(scene, lifting, config, folder)
        seconds = {"fuse": round(time.perf_counter() - start, 3)}
        write_manifest(run, _manifest(config, teacher, run, fused, seconds))
        return read_run(run)

    def estimate(self, source: SceneSource, config: PointsConfig, *, device: torch.device) -> list[dict[str, Any]]:
        """About what `train` would take; see `Backend.estimate`."""
        teacher = open_teacher(config.encoder, refine=config.refine, device=device)
        return [estimate_scene(source[idx], teacher, config.lift, config.basis) for idx in range(len(source))]

    def scores(self, run: Run, scene: str, text: Float[Array, "k d"]) -> Float32[Array, "n k"]:
        """Raw scores of all points for unit text vectors, from the lifted features; 0 for points that no camera saw."""
        config = load_config(PointsConfig, run.path / CONFIG_NAME)
        lifted = read_lifted(index_path(run, scene).with_name(LIFTED_NAME))
        scores = np.zeros((lifted.num_points, len(text)), np.float32)
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
    ) -> EvaluationReport:
        """Compare a run's answers on a scene with its truth; see `evaluate_run`."""
        config = load_config(PointsConfig, run.path / CONFIG_NAME)
        teacher = open_teacher(config.encoder, refine=config.refine, device=device)
        path = index_path(run, scene.name)
        return evaluate_run(path, scene, teacher, config, classes=classes, threshold=threshold, progress=progress)


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


def _take_over(lifting: SceneLifting, lifted_from: Path | None) -> None:
    """Let a run use another one's lifted features and basis."""
    if lifted_from is None:
        return
    other = read_run(lifted_from)
    lifting.taken_from = {scene: path.with_name(LIFTED_NAME) for scene, path in other.indexes.items()}
    if lifting.basis_config.energy < 1:
        lifting.use_basis_of(other.path)


def _manifest(
    config: PointsConfig, teacher: Teacher, run: Path, fused: dict[str, Fused], seconds: dict[str, float]
) -> dict[str, Any]:
    return {
        "scenes": list(fused),
        "backend": PointsBackend.name,
        "stages": list(config.stages),
        "encoder": teacher.card.to_json(),
        "teacher": teacher.describe(),
        "prompts": [],
        "seed": config.seed,
        "versions": {name: importlib.metadata.version(name) for name in ("ov3d", "torch", "numpy")},
        "indexes": {scene: one.index.relative_to(run).as_posix() for scene, one in fused.items()},
        "facts": {scene: one.facts for scene, one in fused.items()},
        "seconds": seconds,
    }
