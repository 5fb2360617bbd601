"""The trainer on a tiny stage: it resumes to the same bits, and never writes or resumes what it should not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ov3d.common.base.errors import DataError
from ov3d.common.base.progress import Silent
from ov3d.common.learning.checkpoints import Checkpoint, adam, generator_for, write_checkpoint
from ov3d.common.learning.trainer import Stage, State, Trainer, TrainerContext, Values

NAN = float("nan")


class Listener(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """Keep a line."""
        self.lines.append(line)


class Line(Stage):
    """Fits a line to noisy points, with everything that a stage may do: a restart, an array, metadata, values."""

    name = "line"
    title = "Fitting"
    rate_key = "line.rate"
    curve_every = 4
    note_share = 0.5

    def __init__(self, *, made_from: str = "points", steps: int = 10, restart_at: int = 6) -> None:
        self.steps, self.checkpoint_every, self.made_from = steps, 3, made_from
        self.restart_at = restart_at
        self.module = nn.Linear(1, 1)
        self.seen = np.zeros(4, np.int32)
        self.best = NAN
        self.poison: Callable[[], None] | None = None

    def start(self) -> None:
        with torch.no_grad():
            self.module.weight.fill_(0.5)
            self.module.bias.fill_(-0.5)

    def state(self) -> State:
        return State({"line": self.module}, {"best": self.best.hex()}, {"seen": self.seen})

    def restore(self, checkpoint: Checkpoint) -> None:
        super().restore(checkpoint)
        self.seen, self.best = checkpoint.extra("seen").copy(), float.fromhex(checkpoint.metadata["best"])

    def optimiser(self, step: int) -> torch.optim.Adam:
        return adam([{"params": [self.module.weight], "lr": 0.1}, {"params": [self.module.bias], "lr": 0.2}])

    def decay(self, step: int) -> float:
        return 0.5**step

    def before_step(self, trainer: Trainer) -> None:
        if trainer.step == self.restart_at:
            trainer.restart_optimiser()

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, Values]:
        x = torch.rand(8, 1, generator=generator)
        error = (self.module(x) - 2 * x).square().mean()
        return error, {"error": error.detach()}

    def after_step(self, trainer: Trainer) -> Values:
        if self.poison is not None:
            self.poison()
        self.seen[trainer.step % 4] += trainer.step
        if trainer.step != 5:
            return {}
        self.best = float(self.module.weight.detach())
        return {"weight": self.best}

    def note(self, values: Mapping[str, float]) -> str:
        return f"error {values['error']:.3g}"


def _trainer(folder: Path, stage: Line | None = None, *, resume: bool = True, device: str = "cpu") -> Trainer:
    return Trainer(stage or Line(), TrainerContext(folder, 7, torch.device(device), Listener(), resume))


def _said(trainer: Trainer) -> list[str]:
    assert isinstance(trainer.context.progress, Listener)
    return trainer.context.progress.lines


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _steps(trainer: Trainer, upto: int) -> None:
    while trainer.step < upto:
        trainer.take_step()


def test_a_step_is_adam_with_random_numbers_of_its_own(tmp_path: Path) -> None:
    """Against a loop written out by hand."""
    trainer = _trainer(tmp_path)
    weight, bias = (torch.tensor(start, requires_grad=True) for start in (0.5, -0.5))
    slow = torch.optim.Adam([{"params": [weight], "lr": 0.1}, {"params": [bias], "lr": 0.2}])
    for step in range(4):
        x = torch.rand(8, 1, generator=generator_for(7, "line", step))
        slow.zero_grad()
        (weight * x + bias - 2 * x).square().mean().backward()
        slow.step()
        for group in slow.param_groups:
            group["lr"] *= 0.5
    _steps(trainer, 4)
    torch.testing.assert_close(trainer.stage.module.weight.squeeze(), weight)  # type: ignore[attr-defined]
    torch.testing.assert_close(trainer.stage.module.bias.squeeze(), bias)  # type: ignore[attr-defined]


def test_training_leaves_a_checkpoint_curves_and_a_picture(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path)
    trainer.run()
    assert sorted(_files(tmp_path)) == ["checkpoint.safetensors", "curve.jsonl", "curve.png"]
    lines = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 5, 8, 10]  # every fourth, one with a value of its own, the last
    assert list(lines[0]) == ["step", "loss", "rate", "error"]
    assert lines[0]["rate"] == pytest.approx(0.1 * 0.5**3)
    assert "weight" in lines[1]
    assert [line.split(" error")[0] for line in _said(trainer)] == ["Step 5 of 10:", "Step 10 of 10:"]
    assert Image.open(tmp_path / "curve.png").size == (720, 400)
    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors")
    expected = {"stage": "line", "step": 10, "made_from": "points", "device": "cpu", "threads": torch.get_num_threads()}
    assert expected.items() <= checkpoint.metadata.items()
    assert set(checkpoint._tensors) == {"line/weight", "line/bias", "extra/seen"}  # no optimiser at the end
    before = _files(tmp_path)
    again = _trainer(tmp_path)
    again.run()
    assert again.done and not _said(again)
    assert _files(tmp_path) == before


@pytest.mark.parametrize("stops", [(1,), (4,), (6,), (2, 5, 7, 9)])
def test_a_resumed_training_ends_with_the_same_bits(tmp_path: Path, stops: tuple[int, ...]) -> None:
    _trainer(tmp_path / "whole").run()
    for stop in stops:
        killed = _trainer(tmp_path / "killed")
        _steps(killed, stop)
        killed.write()
        _steps(killed, min(stop + 2, 10))  # steps after the last checkpoint are lost
    resumed = _trainer(tmp_path / "killed")
    assert resumed.step == stops[-1]
    assert _said(resumed) == [f"Resuming stage line at step {stops[-1]} of 10."]
    resumed.run()
    assert _files(tmp_path / "killed") == _files(tmp_path / "whole")


def test_a_training_that_must_not_resume_starts_again(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path)
    trainer.run()
    before = _files(tmp_path)
    again = _trainer(tmp_path, resume=False)
    assert again.step == 0
    again.run()
    assert _files(tmp_path) == before


def test_a_checkpoint_made_from_other_inputs_is_refused(tmp_path: Path) -> None:
    _trainer(tmp_path).run()
    other = _trainer(tmp_path, Line(made_from="other points"))
    assert other.step == 0
    assert _said(other) == ["The inputs of stage line have changed. Training from the start."]
    assert float(other.stage.module.weight.detach()) == 0.5  # type: ignore[attr-defined]
    other.run()
    assert Checkpoint(other.path).metadata["made_from"] == "other points"


def test_a_checkpoint_that_does_not_say_what_it_was_made_from_is_resumed(tmp_path: Path) -> None:
    """As the first version of the nerf backend wrote them."""
    trainer = _trainer(tmp_path)
    _steps(trainer, 3)
    state = trainer.stage.state()
    write_checkpoint(trainer.path, state.modules, trainer.optimiser, {"step": 3, **state.metadata}, state.arrays)
    resumed = _trainer(tmp_path)
    assert resumed.step == 3
    assert len(_said(resumed)) == 1


def test_a_damaged_checkpoint_is_not_resumed(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path)
    _steps(trainer, 3)
    trainer.write()
    trainer.path.write_bytes(trainer.path.read_bytes()[:-5])
    again = _trainer(tmp_path)
    assert again.step == 0
    assert "damaged" in _said(again)[0] and _said(again)[0].endswith("Training from the start.")


@pytest.mark.parametrize("value", [NAN, float("inf")])
@pytest.mark.parametrize("what", ["loss", "weights", "cause unknown", "large weights"])
def test_nan_and_infinity_stop_training_and_keep_the_last_checkpoint(tmp_path: Path, what: str, value: float) -> None:
    stage = Line()
    trainer = _trainer(tmp_path, stage)
    _steps(trainer, 3)
    trainer.write()
    kept = _files(tmp_path)

    def poison() -> None:
        if (trainer.step, what) == (6, "weights"):  # the loss of step 6 is still finite
            with torch.no_grad():
                stage.module.bias.fill_(value)
        if (trainer.step, what) == (4, "large weights"):
            with torch.no_grad():
                stage.module.weight.fill_(1e5)

    stage.poison = poison
    loss = stage.loss
    if what != "weights":
        stage.loss = lambda step, generator: (  # type: ignore[method-assign]
            loss(step, generator)[0] * (value if step == 4 else 1),
            {"error": torch.tensor(value)} if what == "loss" else {},
        )
    with pytest.raises(DataError) as info:
        trainer.run()
    message, cause = {
        "loss": ("Loss became NaN or infinite at step 4 of stage line;", "all weights are finite, but not error."),
        "weights": ("Weights became NaN or infinite at step 6 of stage line;", "line.bias has NaN or infinite values"),
        "cause unknown": ("Loss became NaN or infinite at step 4 of", "but not what this step learns from."),
        "large weights": (
            "Loss became NaN or infinite at step 4 of",
            "line.weight has grown to 1e+05: the learning rate",
        ),
    }[what]
    assert info.value.message.startswith(message)
    assert cause in info.value.message
    assert info.value.message.endswith(f"The last checkpoint is kept at {trainer.path}.")
    assert info.value.hint == "Start a new run with a smaller learning rate: --set line.rate=0.025"
    assert _files(tmp_path) == kept


def test_nan_statistics_are_not_written_either(tmp_path: Path) -> None:
    stage = Line()
    stage.module = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))  # type: ignore[assignment]
    stage.module[1].running_var.fill_(NAN)  # type: ignore[index, union-attr, operator]
    with pytest.raises(DataError, match=r"Weights became NaN .* line\.1\.running_var has NaN"):
        _bare(stage, tmp_path).write()
    assert not list(tmp_path.iterdir())


def _bare(stage: Line, folder: Path) -> Trainer:
    stage.start = lambda: None  # type: ignore[method-assign]
    stage.optimiser = lambda step: adam([{"params": list(stage.module.parameters()), "lr": 0.1}])  # type: ignore[method-assign]
    return _trainer(folder, stage)


def test_a_failed_write_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = _trainer(tmp_path)
    _steps(trainer, 3)
    trainer.write()
    kept = trainer.path.read_bytes()
    _steps(trainer, 6)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(Exception, match="disk is full"):
            trainer.write()
    assert trainer.path.read_bytes() == kept
    assert _trainer(tmp_path).step == 3
