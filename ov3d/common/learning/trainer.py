"""One training loop for every learning stage of every backend.

A `Stage` is the method: what is trained, its loss, and what happens between steps. The `Trainer` does everything else, in the
same way for all stages: learning rates, checkpoints, resuming, checks for NaN, curves, progress.

The random numbers of a step come from (seed, stage, step) alone, and a checkpoint holds weights, Adam's moments and the
stage's own state. So a killed and resumed run ends with the same bits as an uninterrupted one (on the CPU, with the same
number of threads).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ov3d.common.base.errors import CorruptFileError, DataError
from ov3d.common.base.progress import Progress
from ov3d.common.base.shapes import Array, Shaped
from ov3d.common.exporters.curve_png import write_curve
from ov3d.common.learning.checkpoints import Checkpoint, generator_for, write_checkpoint
from ov3d.common.learning.curves import Curves

TOO_LARGE = 1e4
"""Healthy weights stay far below this."""

Values = Mapping[str, Tensor | float]
"""Named numbers of a step, for its line in the curves: floats, or tensors of one element."""


@dataclass(frozen=True, slots=True)
class TrainerContext:
    """Where and how a stage is trained.

    Attributes:
        folder: where the checkpoint and the curves go.
        seed: of all random numbers.
        device: where tensors live.
        progress: receives progress.
        resume: whether to resume from a checkpoint in the folder.
    """

    folder: Path
    seed: int
    device: torch.device
    progress: Progress
    resume: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What a checkpoint keeps of a stage.

    Attributes:
        modules: by their prefix in the checkpoint.
        metadata: JSON-able.
        arrays: in addition to the modules' tensors.
    """

    modules: Mapping[str, nn.Module]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Shaped[Array, ...]] = field(default_factory=dict)


class Stage(ABC):
    """A learning stage: everything specific to a method.

    Attributes:
        name: in messages, checkpoints and random numbers.
        title: of the progress bar and the plot of the curve.
        rate_key: where the learning rate of the first parameter group is configured.
        checkpoint_name, curves_name: files in the trainer's folder.
        curve_every: steps between lines of the curves.
        note_share: fraction of the steps between progress notes.
        steps: length of the stage.
        checkpoint_every: steps between checkpoints.
        made_from: hash of everything that the stage learns from; a checkpoint with a different hash is not resumed.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    rate_key: ClassVar[str]
    checkpoint_name: ClassVar[str] = "checkpoint.safetensors"
    curves_name: ClassVar[str] = "curve.jsonl"
    curve_every: ClassVar[int] = 20
    note_share: ClassVar[float] = 0.2
    steps: int
    checkpoint_every: int
    made_from: str

    @abstractmethod
    def state(self) -> State:
        """Modules to train, and what else a checkpoint must keep."""

    @abstractmethod
    def optimiser(self, step: int) -> torch.optim.Optimizer:
        """A new optimiser with the learning rates of the first step, for a stage at `step`."""

    @abstractmethod
    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, Values]:
        """The loss of a step, and its parts or other values for the curves.

        Args:
            step: counted from 0.
            generator: the only source of random numbers.
        """

    def start(self) -> None:  # noqa: B027 - most stages need no preparation
        """Called before the first step of training, unless resuming."""

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take the state from a checkpoint."""
        for prefix, module in self.state().modules.items():
            checkpoint.load_module(prefix, module)

    def decay(self, step: int) -> float:
        """Factor on all learning rates."""
        return 1.0

    def before_step(self, trainer: Trainer) -> None:  # noqa: B027 - optional
        """Called before step `trainer.step`; may check weights and restart the optimiser."""

    def after_step(self, trainer: Trainer) -> Values:
        """Called after `trainer.step` steps; values that it returns go into the curves immediately."""
        return {}

    def note(self, values: Mapping[str, float]) -> str:
        """The text of a progress note, given the values of the curves."""
        return f"loss {values['loss']:.3g}"


class Trainer:
    """Trains a stage, or resumes its training.

    Args:
        stage: what to train.
        context: where to train it, and who receives progress.
    """

    def __init__(self, stage: Stage, context: TrainerContext) -> None:
        self.stage, self.context = stage, context
        self.path = context.folder / stage.checkpoint_name
        self.step = 0
        if not (context.resume and self.path.is_file() and self._resumed()):
            stage.start()
            self.restart_optimiser()
        self.curves = Curves(context.folder / stage.curves_name, self.step)

    @property
    def done(self) -> bool:
        """Whether all steps were taken."""
        return self.step >= self.stage.steps

    def run(self) -> None:
        """Train to the end.

        Raises:
            DataError: the loss or a weight became NaN or infinite.
        """
        if self.done:
            return
        stage = self.stage
        for module in stage.state().modules.values():
            module.train()
        with self.context.progress.task(stage.title, stage.steps) as task:
            task.advance(self.step)
            while not self.done:
                self.take_step()
                task.advance()
                if self.step % stage.checkpoint_every == 0 or self.done:
                    self.write()

    def take_step(self) -> None:
        """Take one step; raises as `run` does."""
        stage = self.stage
        stage.before_step(self)
        decay = stage.decay(self.step)
        for group, rate in zip(self.optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * decay
        loss, parts = stage.loss(self.step, generator_for(self.context.seed, stage.name, self.step))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._failure("Loss", parts)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.step += 1
        further = stage.after_step(self)
        self._record({"loss": value, "rate": self._rates[0] * decay, **parts, **further}, now=bool(further))

    def restart_optimiser(self) -> None:
        """Continue with a new optimiser."""
        self.optimiser = self.stage.optimiser(self.step)
        self._rates: list[float] = [group["lr"] for group in self.optimiser.param_groups]

    def check_weights(self) -> None:
        """Raise a `DataError` if a weight is NaN or infinite."""
        if _not_finite(self.stage.state().modules):
            raise self._failure("Weights", {})

    def write(self) -> None:
        """Write curves and a checkpoint; the one at the end holds no optimiser. Raises as `check_weights` does."""
        self.check_weights()
        self.curves.write()
        write_curve(self.curves.path.with_suffix(".png"), self.curves.path, self.stage.title)
        state = self.stage.state()
        write_checkpoint(self.path, state.modules, None if self.done else self.optimiser, self.metadata(), state.arrays)

    def metadata(self) -> dict[str, Any]:
        """The metadata of a checkpoint written now."""
        facts = {"stage": self.stage.name, "step": self.step, "made_from": self.stage.made_from}
        # These determine the last digits of sums; `begin_run` tells the user when they change.
        machine = {"threads": torch.get_num_threads(), "device": self.context.device.type}
        return {**facts, **machine, **self.stage.state().metadata}

    # ----------------------------------------------------------------------------------------------------- internals

    def _record(self, values: Values, *, now: bool) -> None:
        """Add a line to the curves and report progress when due; add the line in any case if `now`."""
        stage = self.stage
        listed = now or self.done or self.step % stage.curve_every == 0
        noted = self.step % max(1, round(stage.note_share * stage.steps)) == 0
        numbers = {name: float(value) for name, value in values.items()} if listed or noted else {}
        if listed:
            self.curves.add(self.step, **numbers)
        if noted:
            self.context.progress.say(f"Step {self.step} of {stage.steps}: {stage.note(numbers)}")

    def _resumed(self) -> bool:
        """Whether there is a checkpoint to resume from; if so, restore it."""
        stage, say = self.stage, self.context.progress.say
        try:
            checkpoint = Checkpoint(self.path)
        except CorruptFileError as error:
            say(f"{error.message} Training from the start.")
            return False
        before = checkpoint.metadata
        if before.get("made_from", stage.made_from) != stage.made_from:  # older nerf checkpoints lack it
            say(f"The inputs of stage {stage.name} have changed. Training from the start.")
            return False
        self.step = before["step"]
        stage.restore(checkpoint)
        self.restart_optimiser()
        checkpoint.load_optimiser(self.optimiser)
        if not self.done:
            say(f"Resuming stage {stage.name} at step {self.step} of {stage.steps}.")
        return True

    def _failure(self, what: str, parts: Values) -> DataError:
        cause = _likely_cause(self.stage.state().modules, parts)
        kept = f" The last checkpoint is kept at {self.path}." if self.path.is_file() else ""
        return DataError(
            f"{what} became NaN or infinite at step {self.step} of stage {self.stage.name}; {cause}.{kept}",
            f"Start a new run with a smaller learning rate: --set {self.stage.rate_key}={self._rates[0] / 4:g}",
        )


def _not_finite(modules: Mapping[str, nn.Module]) -> str:
    """The first tensor with a NaN or infinite value, by name; empty if all are finite."""
    for prefix, module in modules.items():
        for name, value in module.state_dict().items():
            if not bool(value.isfinite().all()):
                return f"{prefix}.{name}"
    return ""


def _likely_cause(modules: Mapping[str, nn.Module], parts: Values) -> str:
    """Why a loss may have become NaN or infinite, in words."""
    if broken := _not_finite(modules):
        return f"{broken} has NaN or infinite values: the learning rate is too large"
    for prefix, module in modules.items():
        for name, value in module.named_parameters():
            if (size := float(value.detach().abs().max())) > TOO_LARGE:
                return f"{prefix}.{name} has grown to {size:.0e}: the learning rate is too large"
    odd = [name for name, part in parts.items() if not math.isfinite(float(part))]
    return f"all weights are finite, but not {' and '.join(odd) or 'what this step learns from'}"
