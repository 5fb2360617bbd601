"""What both learning stages share: steps, a falling rate, curves, checkpoints, and going on after an interruption.

A step's random numbers come from (seed, stage, step) alone, and a checkpoint holds weights, running statistics and Adam's
moments, so that a run that was killed ends with the same bits as one that was not (on the CPU, with as many threads).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ov3d.common.base.errors import CorruptFileError, DataError
from ov3d.common.base.progress import Progress
from ov3d.common.exporters.curve_png import write_curve
from ov3d.common.learning.checkpoints import Checkpoint, adam, generator_for, write_checkpoint
from ov3d.common.learning.curves import Curves
from ov3d.points.config import GuideConfig, SpecialiseConfig

CHECKPOINT_NAME = "checkpoint.safetensors"
CURVES_NAME = "curve.jsonl"
PICTURE_NAME = "curve.png"
CURVE_EVERY = 5


class StageTrainer(ABC):
    """Trains one module for a number of steps, or goes on with it.

    Args:
        stage: its name, in messages and random numbers.
        module: what is trained, with its start values.
        steps: how many there are.
        checkpoint_every: steps between two checkpoints.
        made_from: names what it learns from; a checkpoint of other material is not gone on from.
        folder: checkpoint and curves go there.
        seed: of everything random.
        progress: hears how far it is.
        resume: whether a checkpoint that is there is gone on from.
    """

    title: str
    """What the progress bar says."""
    rate_key: str
    """Where the learning rate is configured."""

    def __init__(
        self,
        stage: str,
        module: nn.Module,
        *,
        steps: int,
        checkpoint_every: int,
        made_from: str,
        folder: Path,
        seed: int,
        progress: Progress,
        resume: bool = True,
    ) -> None:
        self.stage, self.module, self.steps, self.folder = stage, module, steps, folder
        self.checkpoint_every, self.made_from, self.seed = checkpoint_every, made_from, seed
        self.progress = progress
        self.step = 0
        self.curves = Curves(folder / CURVES_NAME, 0)
        self.optimiser = adam([{"params": list(module.parameters()), "lr": self.rate(0)}])
        if resume and self.path.is_file():
            self._load()

    @property
    def path(self) -> Path:
        """The checkpoint."""
        return self.folder / CHECKPOINT_NAME

    @property
    def done(self) -> bool:
        """Whether all steps were taken."""
        return self.step >= self.steps

    @abstractmethod
    def rate(self, step: int) -> float:
        """The learning rate of a step."""

    @abstractmethod
    def loss(self, step: int, generator: torch.Generator) -> Tensor:
        """The loss of a step; all that is random comes from the generator."""

    def metadata(self) -> Mapping[str, Any]:
        """What builds the module again, JSON-able."""
        return {}

    def restore(self, metadata: Mapping[str, Any]) -> None:
        """Take up what `metadata` kept."""
        return

    def after_step(self) -> Mapping[str, float]:
        """Called after a step was taken; what it returns goes into the curve."""
        return {}

    def run(self, look: Callable[[int], None] | None = None) -> None:
        """Train to the end.

        Args:
            look: called after every step with the number of steps taken.

        Raises:
            DataError: the loss is no number any more.
        """
        if self.done:
            return
        self.module.train()
        with self.progress.task(self.title, self.steps) as task:
            task.advance(self.step)
            for _ in range(self.step, self.steps):
                self._one_step()
                task.advance()
                if self.step % self.checkpoint_every == 0 or self.done:
                    self.write()
                if look is not None:
                    look(self.step)
        write_curve(self.folder / PICTURE_NAME, self.folder / CURVES_NAME, self.title)

    def write(self) -> None:
        """Write curves and a checkpoint; at the end of the stage without the optimiser, which nothing needs any more."""
        self.curves.write()
        metadata = {"stage": self.stage, "step": self.step, "made_from": self.made_from, **self.metadata()}
        optimiser = None if self.done else self.optimiser
        write_checkpoint(self.path, {"network": self.module}, optimiser, metadata)

    def _one_step(self) -> None:
        rate = self.rate(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss = self.loss(self.step, generator_for(self.seed, self.stage, self.step))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._failed()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.step += 1
        more = self.after_step()
        if self.step % CURVE_EVERY == 0 or more or self.done:
            self.curves.add(self.step, loss=value, rate=rate, **more)

    def _failed(self) -> DataError:
        broken = [name for name, value in self.module.named_parameters() if not bool(value.isfinite().all())]
        cause = f"; {broken[0]} is no number any more: the steps are too large" if broken else ""
        last = f" The checkpoint before it is kept at {self.path}." if self.path.is_file() else ""
        return DataError(
            f"The loss is no number at step {self.step} of stage {self.stage}{cause}.{last}",
            f"Start a new run with smaller steps: --set {self.rate_key}={self.rate(0) / 4:g}",
        )

    def _load(self) -> None:
        try:
            checkpoint = Checkpoint(self.path)
        except CorruptFileError as error:
            self.progress.say(f"{error.message} Training from the start.")
            return
        meta = checkpoint.metadata
        if meta["made_from"] != self.made_from:
            self.progress.say(f"What stage {self.stage} learns from has changed. Training from the start.")
            return
        self.step = meta["step"]
        checkpoint.load_module("network", self.module)
        checkpoint.load_optimiser(self.optimiser)
        self.curves = Curves(self.folder / CURVES_NAME, self.step)
        self.restore(meta)
        if not self.done:
            self.progress.say(f"Going on with stage {self.stage} at step {self.step}.")


def scene_order(seed: int, stage: str, epoch: int, num_scenes: int) -> list[int]:
    """The order in which an epoch sees the scenes."""
    return torch.randperm(num_scenes, generator=generator_for(seed, f"{stage}-order", epoch)).tolist()


def scenes_of_step(seed: int, stage: str, step: int, num_scenes: int, batch: int) -> list[int]:
    """The scenes of a step: an epoch's order, cut into batches; the last one of an epoch may be smaller."""
    per_epoch = steps_per_epoch(num_scenes, batch)
    epoch, place = divmod(step, per_epoch)
    return scene_order(seed, stage, epoch, num_scenes)[place * batch : (place + 1) * batch]


def num_steps(config: SpecialiseConfig | GuideConfig, num_scenes: int) -> int:
    """How many steps a stage takes: as many as it is told, or so many epochs' worth."""
    if config.epochs is None:
        return config.steps
    return config.epochs * steps_per_epoch(num_scenes, config.batch)


def steps_per_epoch(num_scenes: int, batch: int) -> int:
    """Batches that show every scene once."""
    return -(-num_scenes // batch)
