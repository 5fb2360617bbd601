"""The nerf backend: photographs and class names into a radiance field, and from it a LanguageIndex."""

from __future__ import annotations

import importlib.metadata
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ov3d.common.asking.ask import index_path
from ov3d.common.base.config import dump_config, load_config
from ov3d.common.base.device import seed_everything
from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.progress import Progress, Silent
from ov3d.common.base.runs import CONFIG_NAME, Run, claim_run, read_run, scene_folders, write_manifest
from ov3d.common.base.shapes import Array, Float, Float32
from ov3d.common.lifting.lift import read_lifted
from ov3d.common.metrics.run_report import RunReport
from ov3d.common.scenes.scene import Scene, SceneSource
from ov3d.common.teachers import open_teacher
from ov3d.common.teachers.teacher import Teacher
from ov3d.nerf.config import STAGES, NerfConfig
from ov3d.nerf.evaluate import ScoredScene, evaluate_views
from ov3d.nerf.preflight import estimate_scene
from ov3d.nerf.protocols import evaluate_masks
from ov3d.nerf.train import LIFTED_NAME, Trained, load_trained, train_scene


class NerfBackend:
    """A radiance field from photographs, with language on its surfaces."""

    name = "nerf"
    stages = STAGES
    config_type = NerfConfig
    protocols = ("held-out", "3d-ovs", "langsplat")
    can_ensemble = False

    def train(
        self,
        source: SceneSource,
        config: NerfConfig,
        *,
        run: Path,
        device: torch.device,
        progress: Progress | None = None,
        extract: bool = True,
        resume: bool = True,
    ) -> Run:
        """Train every scene of the source; see `Backend.train`.

        Raises:
            UsageError: the folder holds a run of other settings.
            DataError: a scene cannot be trained on, or there is none.
        """
        listener: Progress = progress or Silent()
        if not len(source):
            raise DataError("There is no scene to train on.", "Check the path and the split.")
        claim_run(run, dump_config(config))
        seed_everything(config.seed)
        teacher = None
        if "distil" in config.stages:
            teacher = open_teacher(config.encoder, refine=config.refine, device=device)
        start = time.perf_counter()
        trained: dict[str, Trained] = {}
        for idx, folder in enumerate(scene_folders(run, tuple(source.ids))):
            scene = source[idx]
            trained[scene.name] = train_scene(
                scene,
                teacher,
                config,
                folder,
                device=device,
                progress=listener,
                extract=extract,
                resume=resume,
            )
        seconds = {"train": round(time.perf_counter() - start, 3)}
        write_manifest(run, _manifest(config, teacher, run, trained, seconds))
        return read_run(run)

    def estimate(self, source: SceneSource, config: NerfConfig, *, device: torch.device) -> list[dict[str, Any]]:
        """About what `train` would take; see `Backend.estimate`."""
        teacher = None
        if "distil" in config.stages:
            teacher = open_teacher(config.encoder, refine=config.refine, device=device)
        return [estimate_scene(source[idx], teacher, config, device) for idx in range(len(source))]

    def scores(self, run: Run, scene: str, text: Float[Array, "k d"]) -> Float32[Array, "n k"]:
        """Raw scores of all points for unit text vectors; 0 for points that no view sees."""
        lifted = read_lifted(index_path(run, scene).with_name(LIFTED_NAME))
        scores = np.zeros((lifted.num_points, len(text)), np.float32)
        scores[lifted.point_row] = lifted.scores(text)
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
    ) -> RunReport:
        """Compare the run's answers in views with their truth; see `evaluate_views` and, for masks, `evaluate_masks`.

        Raises:
            UsageError: the protocol has no use for a threshold or for a choice of classes.
        """
        protocol = protocol or self.protocols[0]
        if protocol != "held-out" and threshold is not None:
            raise UsageError(
                f"--threshold does not apply to protocol {protocol}, which has its own way.", "Leave it out."
            )
        if protocol == "3d-ovs" and classes:
            raise UsageError(
                "Protocol 3d-ovs scores all classes of the scene: --classes does not apply.", "Leave it out."
            )
        listener: Progress = progress or Silent()
        config = load_config(NerfConfig, run.path / CONFIG_NAME)
        teacher = open_teacher(config.encoder, refine=config.refine, device=device)
        held_out = tuple(run.manifest["facts"][scene.name]["held_out"])
        model, head = load_trained(index_path(run, scene.name).parent, device)
        teacher.features_of(scene, extract=True, progress=listener)
        scored = ScoredScene(model, head, scene, teacher, held_out, config.field.long_side)
        if protocol != "held-out":
            return evaluate_masks(scored, protocol, classes=classes, progress=listener)
        return evaluate_views(scored, classes=classes, threshold=threshold, progress=listener)


def _manifest(
    config: NerfConfig, teacher: Teacher | None, run: Path, trained: dict[str, Trained], seconds: dict[str, float]
) -> dict[str, Any]:
    return {
        "scenes": list(trained),
        "backend": NerfBackend.name,
        "stages": list(config.stages),
        "encoder": teacher.card.to_json() if teacher is not None else None,
        "teacher": teacher.describe() if teacher is not None else None,
        "prompts": [],
        "seed": config.seed,
        "versions": {name: importlib.metadata.version(name) for name in ("ov3d", "torch", "numpy")},
        "indexes": {
            scene: one.index.relative_to(run).as_posix() for scene, one in trained.items() if one.index is not None
        },
        "facts": {scene: one.facts for scene, one in trained.items()},
        "seconds": seconds,
    }
