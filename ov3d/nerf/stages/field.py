"""Stage `field` of a scene: its radiance field, and its PSNR on held-out views."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ov3d.common.learning.run import OpenRun
from ov3d.common.learning.trainer import Trainer
from ov3d.nerf.config import NerfConfig
from ov3d.nerf.looking import Looker, held_out_psnr
from ov3d.nerf.preflight import Capture
from ov3d.nerf.rays import PixelBank
from ov3d.nerf.train_field import FieldStage


def learn_field(run: OpenRun[NerfConfig], capture: Capture, folder: Path) -> tuple[FieldStage, dict[str, Any]]:
    """Train the field of a scene.

    Args:
        run: the run.
        capture: from `look_over`.
        folder: where the scene's files go.

    Returns:
        The trained stage with its model, and facts for the manifest.

    Raises:
        DataError: training failed.
    """
    config, progress, train = run.config.field, run.progress, capture.train
    with_depth = config.depth_weight > 0 and any(frame.depth is not None for frame in train)
    bank = PixelBank(train, long_side=config.long_side, device=run.device, progress=progress, with_depth=with_depth)
    look = Looker((capture.held_out or train)[0], config.long_side, folder, progress)
    stage = FieldStage(bank, capture.space, config, seed=run.config.seed, device=run.device, look=look)
    Trainer(stage, run.trainer_context(folder)).run()
    model = stage.model
    decibels = held_out_psnr(model, capture.held_out, config.long_side, progress)
    facts = {
        "held_out": [frame.name for frame in capture.held_out],
        "space": model.space.kind,
        "resolution": list(model.field.resolution),
        "classes": list(capture.classes),
        "psnr": None if decibels is None else round(decibels, 2),
    }
    return stage, facts
