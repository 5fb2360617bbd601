"""The points backend: scans and posed photographs into a LanguageIndex. Its one stage so far is `fuse`."""

from __future__ import annotations

import importlib.metadata
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ov3d.common.config import dump_config, load_config
from ov3d.common.device import seed_everything
from ov3d.common.errors import DataError, UsageError
from ov3d.common.files import write_text
from ov3d.common.lifting import read_lifted
from ov3d.common.progress import Progress, Silent
from ov3d.common.querying import index_path
from ov3d.common.runs import Run, read_run, write_manifest
from ov3d.common.scene import Scene, SceneSource
from ov3d.common.shapes import Array, Float, Float32
from ov3d.common.teacher import Teacher
from ov3d.common.teachers import open_teacher
from ov3d.points.config import STAGES, PointsConfig
from ov3d.points.evaluate import EvaluationReport, evaluate_run
from ov3d.points.fuse import LIFTED_NAME, Fused, fuse_scene

CONFIG_NAME = "config.yaml"


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
        _claim(run, config)
        seed_everything(config.seed)
        teacher = open_teacher(config.encoder, refine=config.refine, device=device)
        start = time.perf_counter()
        fused: dict[str, Fused] = {}
        for idx in range(len(source)):
            scene = source[idx]
            folder = run / _folder_name(scene.name, fused)
            fused[scene.name] = fuse_scene(
                scene, teacher, config, folder, progress=listener, extract=extract, resume=resume
            )
        seconds = {"fuse": round(time.perf_counter() - start, 3)}
        write_manifest(run, _manifest(config, teacher, run, fused, seconds))
        return read_run(run)

    def scores(self, run: Run, scene: str, text: Float[Array, "k d"]) -> Float32[Array, "n k"]:
        """Raw scores of all points for unit text vectors, at full rank; 0 for points that no camera saw."""
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


def _claim(run: Path, config: PointsConfig) -> None:
    """Write the configuration into the run's folder, or see that the one there is the same."""
    path, text = run / CONFIG_NAME, dump_config(config)
    if path.is_file():
        if path.read_text(encoding="utf-8") != text:
            raise UsageError(f"Run {run} was started with other settings.", "Start a new run, or take its config.yaml.")
        return
    write_text(path, text)


def _folder_name(scene: str, taken: dict[str, Fused]) -> str:
    """A folder for a scene; the number keeps names apart that differ in odd characters only."""
    if scene in taken:
        raise DataError(f"Two scenes are named {scene}.", "Scene names in one run must differ.")
    safe = re.sub(r"[^\w.+-]+", "-", scene).strip("-.") or "scene"
    return f"scenes/{len(taken):04d}-{safe}"


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
