"""Stage `distil` of a scene: the teacher's features on top of its field, and an index of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ov3d.common.base.errors import MissingModelError
from ov3d.common.base.progress import Progress
from ov3d.common.encoders import create_patch_encoder
from ov3d.common.learning.checkpoints import Checkpoint
from ov3d.common.learning.run import OpenRun
from ov3d.common.learning.run_lifting import LIFTED_NAME
from ov3d.common.learning.trainer import Trainer
from ov3d.common.lifting.lift import write_lifted
from ov3d.nerf.bake import bake
from ov3d.nerf.config import NerfConfig
from ov3d.nerf.language import FeatureHead
from ov3d.nerf.model import Model
from ov3d.nerf.preflight import Capture
from ov3d.nerf.rays import PixelBank
from ov3d.nerf.targets import PatchFeatures, Targets
from ov3d.nerf.train_distil import CHECKPOINT_NAME, DistilStage
from ov3d.nerf.train_field import FieldStage


def distil(run: OpenRun[NerfConfig], capture: Capture, folder: Path, field: FieldStage) -> dict[str, Any]:
    """Distil the teacher into the field of a scene, and write the scene's index and lifted features.

    Args:
        run: the run.
        capture: from `look_over`.
        folder: where the scene's files go.
        field: the trained stage; the appearance of its model changes.

    Returns:
        Facts for the manifest.

    Raises:
        DataError: training failed, or no view sees a surface.
    """
    assert run.teacher is not None
    config, progress, bank = run.config, run.progress, field.bank
    if len(capture.with_features) < len(capture.train):
        long_side = config.field.long_side
        bank = PixelBank(capture.with_features, long_side=long_side, device=run.device, progress=progress)
    stage = _stage(run, capture, field, bank)
    Trainer(stage, run.trainer_context(folder)).run()
    lifted = bake(
        stage.model,
        stage.head,
        capture.scene,
        run.teacher.card,
        folder,
        vocabulary=capture.classes,
        config=config,
        progress=progress,
    )
    write_lifted(folder / LIFTED_NAME, lifted)
    return {"points": lifted.num_points, "share_seen": lifted.share_seen}


def load_trained(folder: Path, device: torch.device) -> tuple[Model, FeatureHead]:
    """The model and feature head of a scene whose distillation has ended."""
    checkpoint = Checkpoint(folder / CHECKPOINT_NAME)
    model = Model.from_checkpoint(checkpoint, device)
    head = FeatureHead(checkpoint.metadata["dim"])
    checkpoint.load_module("head", head)
    return model, head.to(device)


def _stage(run: OpenRun[NerfConfig], capture: Capture, field: FieldStage, bank: PixelBank) -> DistilStage:
    assert run.teacher is not None
    teacher, config, progress = run.teacher, run.config.distil, run.progress
    text, scale = teacher.text(capture.classes), teacher.card.logit_scale
    targets = Targets(bank, teacher.source, text, logit_scale=scale, device=run.device, progress=progress)
    patches = _patches(bank, run.device, progress) if config.patches else None
    return DistilStage(
        field.model,
        bank,
        targets,
        patches,
        config,
        field_key=field.made_from,
        seed=run.config.seed,
        progress=progress,
    )


def _patches(bank: PixelBank, device: torch.device, progress: Progress) -> PatchFeatures | None:
    try:
        encoder = create_patch_encoder(device=device)
    except MissingModelError as error:
        progress.say(f"{error.message} Feature distributions are not aligned (FDA).")
        return None
    return PatchFeatures(bank, encoder, progress=progress)
