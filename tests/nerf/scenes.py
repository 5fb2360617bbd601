"""The tiny scene of the backend contract, and settings that train on it in seconds."""

from __future__ import annotations

from pathlib import Path

import torch

from ov3d.common.base.config import load_config
from ov3d.common.base.progress import Silent
from ov3d.common.learning.trainer import Trainer, TrainerContext
from ov3d.common.scenes.scene import Scene
from ov3d.nerf.config import NerfConfig
from ov3d.nerf.rays import PixelBank
from ov3d.nerf.scene_type import choose_space
from ov3d.nerf.train_field import FieldStage

CPU = torch.device("cpu")
TINY = [
    "field.steps=30",
    "field.rays=128",
    "field.samples=6000",
    "field.first_voxels=8000",
    "field.last_voxels=16000",
    "field.upsample_at=[12]",
    "field.density_ranks=[4,2,2]",
    "field.appearance_ranks=[6,2,2]",
    "field.colour_width=8",
    "field.white_share=0",
    "field.occupancy_every=5",
    "field.checkpoint_every=7",
    "field.view_every=0",
    "distil.steps=16",
    "distil.joint_from=8",
    "distil.rays=64",
    "distil.patches=1",
    "distil.patch_side=6",
    "distil.selection_ranks=[2,1,1]",
    "distil.checkpoint_every=5",
    "view_long_side=64",
]


class Listener(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """Keep a line."""
        self.lines.append(line)


def tiny_config(*settings: str) -> NerfConfig:
    """The tiny settings, with some changed."""
    return load_config(NerfConfig, None, [*TINY, *settings])


def field_trainer(scene: Scene, folder: Path, config: NerfConfig, *, resume: bool = True) -> Trainer:
    """A trainer of the field on all frames of a scene."""
    bank = PixelBank(scene.frames, long_side=64, device=CPU, progress=Silent(), with_depth=True)
    space = choose_space(scene).space
    stage = FieldStage(bank, space, config.field, seed=config.seed, device=CPU)
    return Trainer(stage, TrainerContext(folder, config.seed, CPU, Listener(), resume))
