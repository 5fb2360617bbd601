"""How many steps the learning stages take, and which scenes each step sees."""

from __future__ import annotations

import torch

from ov3d.common.learning.checkpoints import generator_for
from ov3d.points.config import GuideConfig, SpecialiseConfig


def scene_order(seed: int, stage: str, epoch: int, num_scenes: int) -> list[int]:
    """The order of scenes in an epoch."""
    return torch.randperm(num_scenes, generator=generator_for(seed, f"{stage}-order", epoch)).tolist()


def scenes_of_step(seed: int, stage: str, step: int, num_scenes: int, batch: int) -> list[int]:
    """The scenes of a step: the epoch's order cut into batches, of which the last may be smaller."""
    per_epoch = steps_per_epoch(num_scenes, batch)
    epoch, place = divmod(step, per_epoch)
    return scene_order(seed, stage, epoch, num_scenes)[place * batch : (place + 1) * batch]


def num_steps(config: SpecialiseConfig | GuideConfig, num_scenes: int) -> int:
    """How many steps a stage takes: `config.steps`, or those of `config.epochs`."""
    if config.epochs is None:
        return config.steps
    return config.epochs * steps_per_epoch(num_scenes, config.batch)


def steps_per_epoch(num_scenes: int, batch: int) -> int:
    """Number of batches that show every scene once."""
    return -(-num_scenes // batch)
