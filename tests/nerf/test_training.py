"""Training on the tiny scene: it learns, it resumes to the same bits, and it says why it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ov3d.common.base.errors import DataError
from ov3d.common.base.progress import Silent
from ov3d.common.base.shapes import Array, Bool, Float, Float32
from ov3d.common.language.cards import Identity
from ov3d.common.learning.trainer import Trainer, TrainerContext
from ov3d.nerf.losses import total_variation
from ov3d.nerf.model import Model
from ov3d.nerf.rays import PixelBank
from ov3d.nerf.targets import PatchFeatures, Targets
from ov3d.nerf.train_distil import DistilStage
from ov3d.nerf.train_field import CHECKPOINT_NAME, FieldStage
from tests.common.small_scenes import box_scene
from tests.nerf.scenes import CPU, Listener, field_trainer, tiny_config
from tests.nerf.twins import small_field


class _TwoScales:
    """A teacher of two scales that knows colours; nothing in the first pixel row."""

    def key(self, frame: object) -> str:
        return "two-scales"

    def has(self, frame: object) -> bool:
        return True

    def features_at(self, frame: object, uv: Float[Array, "n 2"]) -> Float32[Array, "n s d"]:
        image = frame.load_image()[uv[:, 1].astype(int), uv[:, 0].astype(int)] / 255.0  # type: ignore[attr-defined]
        one = np.column_stack([image, np.ones(len(uv))])
        both = np.stack([one, one[:, ::-1]], 1)
        both[uv[:, 1] < 1] = 0
        return (both / np.maximum(np.linalg.norm(both, axis=2, keepdims=True), 1e-9)).astype(np.float32)

    def pixel_features(self, frame: object, uv: Float[Array, "n 2"]) -> Float32[Array, "n d"]:
        return self.features_at(frame, uv)[:, 0]

    def known(self, frame: object, uv: Float[Array, "n 2"]) -> Bool[Array, " n"]:
        return uv[:, 1] >= 1

    def relevancy(self, frame: object, text: Float32[Array, " d"], step: int) -> Float32[Array, "rows columns"]:
        raise NotImplementedError


class _Patches:
    """Patch features that are the mean colours of patches."""

    identity = Identity("mean colours", "none", "none", "float32")
    dim = 3

    def encode_patches(self, image: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        small = F.interpolate(image[None].float(), grid, mode="area")[0].permute(1, 2, 0) + 1
        return F.normalize(small, dim=2)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _model(trainer: Trainer) -> Model:
    assert isinstance(trainer.stage, FieldStage | DistilStage)
    return trainer.stage.model


def test_a_field_learns(tmp_path: Path) -> None:
    trainer = field_trainer(box_scene(tmp_path / "s", 4), tmp_path / "run", tiny_config())
    trainer.run()
    lines = [json.loads(line) for line in (tmp_path / "run" / "field.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [20, 30]
    assert lines[-1]["psnr"] > 11
    assert lines[-1]["occupied"] < 1
    untrained = field_trainer(box_scene(tmp_path / "s", 4), tmp_path / "new", tiny_config())
    assert _model(trainer).field.resolution != _model(untrained).field.resolution


@pytest.mark.parametrize("stops", [(3, 16), (14,)])
def test_a_field_that_was_killed_ends_with_the_same_bits(tmp_path: Path, stops: tuple[int, ...]) -> None:
    scene, config = box_scene(tmp_path / "s", 4), tiny_config("field.checkpoint_every=1")
    field_trainer(scene, tmp_path / "whole", config).run()
    for stop in stops:
        trainer = field_trainer(scene, tmp_path / "broken", config)
        while trainer.step < stop:
            trainer.take_step()
        trainer.write()
        for _ in range(2):  # what came after the checkpoint is lost
            trainer.take_step()
    resumed = field_trainer(scene, tmp_path / "broken", config)
    assert resumed.step == stops[-1]
    resumed.run()
    assert _files(tmp_path / "broken") == _files(tmp_path / "whole")


def _distiller(tmp_path: Path, folder: Path, *settings: str) -> Trainer:
    scene, config = box_scene(tmp_path / "s", 4), tiny_config(*settings)
    field = field_trainer(scene, tmp_path / "field", config)
    field.run()
    bank = PixelBank(scene.frames, long_side=64, device=CPU, progress=Silent())
    text = np.eye(4, dtype=np.float32)[[0, 3]]
    targets = Targets(bank, _TwoScales(), text, logit_scale=100.0, device=CPU, progress=Silent())
    patches = PatchFeatures(bank, _Patches(), progress=Silent())
    stage = DistilStage(
        _model(field), bank, targets, patches, config.distil, field_key="key", seed=0, progress=Silent()
    )
    return Trainer(stage, TrainerContext(folder, 0, CPU, Listener()))


def test_distillation_that_was_killed_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Once in the frozen phase, once in the joint one; with two scales, a Selection Volume and patches."""
    _distiller(tmp_path, tmp_path / "whole").run()
    for stop in (4, 13):
        trainer = _distiller(tmp_path, tmp_path / "broken")
        while trainer.step < stop:
            trainer.take_step()
        trainer.write()
        trainer.take_step()
    _distiller(tmp_path, tmp_path / "broken").run()
    assert _files(tmp_path / "broken") == _files(tmp_path / "whole")


def test_distillation_learns_and_touches_density_never(tmp_path: Path) -> None:
    trainer = _distiller(tmp_path, tmp_path / "run")
    before = {name: value.clone() for name, value in _model(trainer).field.state_dict().items()}
    trainer.run()
    after = _model(trainer).field.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("density"))
    assert not torch.equal(after["appearance_grid.planes.0"], before["appearance_grid.planes.0"])
    last = json.loads((tmp_path / "run" / "distil.jsonl").read_text().splitlines()[-1])
    assert last["feature"] < 0.35
    assert {"relevancy", "attract", "repel", "psnr"} <= set(last)


def test_the_joint_phase_may_begin_at_once(tmp_path: Path) -> None:
    trainer = _distiller(tmp_path, tmp_path / "run", "distil.joint_from=0")
    before = _model(trainer).field.appearance_grid.planes[0].clone()
    trainer.take_step()
    assert not torch.equal(_model(trainer).field.appearance_grid.planes[0], before)


@pytest.mark.parametrize(
    ("stage", "broken", "hint"),
    [
        ("field", "field.basis.weight", "field.grid_rate=0.005"),
        ("distil", "head.weight", "distil.head_rate=0.00125"),
    ],
)
def test_nan_stops_a_stage_and_keeps_its_checkpoint(tmp_path: Path, stage: str, broken: str, hint: str) -> None:
    if stage == "field":
        trainer = field_trainer(box_scene(tmp_path / "s", 4), tmp_path / "run", tiny_config())
    else:
        trainer = _distiller(tmp_path, tmp_path / "run")
    trainer.take_step()
    trainer.write()
    kept = trainer.path.read_bytes()
    prefix, _, name = broken.partition(".")
    with torch.no_grad():
        trainer.stage.state().modules[prefix].get_parameter(name)[0, 0] = float("nan")
    with pytest.raises(DataError, match=f"Loss became NaN or infinite at step 1 of stage {stage}; {broken}") as info:
        trainer.run()
    assert info.value.hint.endswith(f"--set {hint}")
    assert trainer.path.read_bytes() == kept


def test_cells_are_not_looked_for_with_nan_weights(tmp_path: Path) -> None:
    """A cell whose density is NaN would count as empty."""
    trainer = field_trainer(box_scene(tmp_path / "s", 4), tmp_path / "run", tiny_config())
    while trainer.step < 5:
        trainer.take_step()
    with torch.no_grad():
        _model(trainer).field.density_grid.lines[0].fill_(float("nan"))
    with pytest.raises(DataError, match=r"Weights became NaN or infinite at step 5 of stage field; field.density_grid"):
        trainer.take_step()


def test_other_photographs_are_noticed(tmp_path: Path) -> None:
    scene, config = box_scene(tmp_path / "s", 4), tiny_config()
    trainer = field_trainer(scene, tmp_path / "run", config)
    trainer.take_step()
    trainer.write()
    assert field_trainer(scene, tmp_path / "run", config).step == 1
    Image.new("RGB", (64, 48)).save(scene.frames[0].image_path)
    again = field_trainer(scene, tmp_path / "run", config)
    assert again.step == 0
    assert "inputs of stage field have changed" in again.context.progress.lines[0]  # type: ignore[attr-defined]


def test_an_empty_grid_is_said(tmp_path: Path) -> None:
    trainer = field_trainer(box_scene(tmp_path / "s", 4), tmp_path / "run", tiny_config())
    while trainer.step < 5:
        trainer.take_step()
    with torch.no_grad():
        for table in _model(trainer).field.density_grid.planes:
            table.zero_()
    with pytest.raises(DataError, match="has no occupied cell"):
        trainer.run()


def test_shrinking_keeps_what_is_seen(tmp_path: Path) -> None:
    config = tiny_config("field.shrink_at=20", "field.occupancy_from=10")
    trainer = field_trainer(box_scene(tmp_path / "s", 4), tmp_path / "run", config)
    size = _model(trainer).space.size.copy()
    trainer.run()
    assert (_model(trainer).space.size <= size + 1e-9).all()


def test_a_damaged_checkpoint_starts_anew(tmp_path: Path) -> None:
    scene, config = box_scene(tmp_path / "s", 4), tiny_config()
    (tmp_path / "run").mkdir()
    trainer = field_trainer(scene, tmp_path / "run", config)
    trainer.write()
    path = tmp_path / "run" / CHECKPOINT_NAME
    path.write_bytes(path.read_bytes()[:-100])
    again = field_trainer(scene, tmp_path / "run", config)
    assert again.step == 0
    assert any("Training from the start" in line for line in again.context.progress.lines)  # type: ignore[attr-defined]


def test_total_variation_is_its_definition() -> None:
    grid = small_field().density_grid
    expected = 0.0
    for k, (a, b) in enumerate(((0, 1), (0, 2), (1, 2))):
        plane = grid.planes[k].detach().double().view(grid.resolution[a], grid.resolution[b], -1).numpy()
        expected += 2 * (np.square(np.diff(plane, axis=0)).mean() + np.square(np.diff(plane, axis=1)).mean())
    assert float(total_variation(grid).detach()) == pytest.approx(expected, rel=1e-5)
