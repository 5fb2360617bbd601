"""The nerf backend: trains a radiance field from photographs and class names, and bakes it into a LanguageIndex."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ov3d.common.asking.ask import index_path
from ov3d.common.asking.index import INDEX_NAME, LanguageIndex
from ov3d.common.base.errors import UsageError
from ov3d.common.base.progress import Progress, Silent
from ov3d.common.base.runs import Run
from ov3d.common.base.shapes import Array, Float, Float32
from ov3d.common.learning.backend import Backend, RunOptions
from ov3d.common.learning.estimate import Estimate
from ov3d.common.learning.run import Learnt, begin_run, config_of, finish_run, teacher_of
from ov3d.common.learning.run_lifting import LIFTED_NAME
from ov3d.common.lifting.lift import read_lifted
from ov3d.common.metrics.run_report import RunReport
from ov3d.common.scenes.scene import Scene, SceneSource
from ov3d.nerf.config import STAGES, NerfConfig
from ov3d.nerf.evaluate import ScoredScene, evaluate_views
from ov3d.nerf.orbit import FieldViews
from ov3d.nerf.preflight import estimate_scene, look_over
from ov3d.nerf.protocols import evaluate_masks
from ov3d.nerf.stages.distil import distil, load_trained
from ov3d.nerf.stages.field import learn_field

if TYPE_CHECKING:
    from ov3d.common.asking.answer import Answer


class NerfBackend(Backend):
    """A radiance field from photographs, with language on its surfaces."""

    name = "nerf"
    stages = STAGES
    config_type = NerfConfig
    protocols = ("held-out", "3d-ovs", "langsplat")

    def train(
        self,
        source: SceneSource,
        config: NerfConfig,
        *,
        run: Path,
        device: torch.device,
        progress: Progress | None = None,
        options: RunOptions = RunOptions(),
    ) -> Run:
        """Train every scene of the source, one after the other; see `Backend.train`.

        Raises:
            UsageError: the folder holds a run with other settings.
            DataError: the source is empty, or a scene cannot be trained on.
        """
        begun = begin_run(self.name, source, config, run=run, device=device, progress=progress, options=options)
        learnt = Learnt()
        with learnt.timed("train"):
            for idx, folder in enumerate(begun.folders):
                capture = look_over(begun, source[idx])
                field, facts = learn_field(begun, capture, folder)
                if "distil" in config.stages:
                    facts |= distil(begun, capture, folder, field)
                    learnt.indexes[capture.scene.name] = folder / INDEX_NAME
                learnt.facts[capture.scene.name] = facts
        return finish_run(begun, learnt)

    def estimate(self, source: SceneSource, config: NerfConfig, *, device: torch.device) -> list[Estimate]:
        """Estimate what `train` would take; see `Backend.estimate`."""
        teacher = teacher_of(config, device) if config.needs_teacher else None
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
            UsageError: the protocol does not support a threshold or a choice of classes.
        """
        protocol = protocol or self.protocols[0]
        _check_options(protocol, classes, threshold)
        listener: Progress = progress or Silent()
        config = config_of(run, NerfConfig)
        teacher = teacher_of(config, device)
        held_out = tuple(run.manifest["facts"][scene.name]["held_out"])
        model, head = load_trained(index_path(run, scene.name).parent, device)
        teacher.features_of(scene, extract=True, progress=listener)
        scored = ScoredScene(model, head, scene, teacher, held_out, config.field.long_side)
        if protocol != "held-out":
            return evaluate_masks(scored, protocol, classes=classes, progress=listener)
        return evaluate_views(scored, classes=classes, threshold=threshold, progress=listener)

    def renderer(self, folder: Path, index: LanguageIndex, answer: Answer, device: str) -> FieldViews:
        """The scene's field."""
        return FieldViews(folder, index, answer, device)


def _check_options(protocol: str, classes: tuple[str, ...], threshold: float | None) -> None:
    if protocol != "held-out" and threshold is not None:
        raise UsageError(f"--threshold does not apply to protocol {protocol}, which has its own criterion.", "Omit it.")
    if protocol == "3d-ovs" and classes:
        raise UsageError("Protocol 3d-ovs scores all classes of the scene: --classes does not apply.", "Omit it.")
