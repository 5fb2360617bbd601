"""Stage `field`: the radiance field from photographs, and depth where it was measured.

A step draws rays from all training views, marches them through the occupied cells, compares colours, and moves planes, lines
and networks. At some steps the grid gets finer (resolutions are log-spaced) and the optimiser starts anew; every few steps the
occupied cells are found again: at first only cells that are exactly empty are left out, so nothing that may yet grow is
cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ov3d.common.base.errors import CorruptFileError, DataError
from ov3d.common.base.progress import Progress
from ov3d.common.learning.checkpoints import Checkpoint, adam, generator_for, write_checkpoint
from ov3d.common.learning.curves import Curves
from ov3d.common.learning.soundness import cause_of_nan, not_finite, say_threads
from ov3d.nerf.config import ADAM_BETAS, FieldConfig
from ov3d.nerf.field import RadianceField, resolution_for, voxel_schedule
from ov3d.nerf.losses import depth_loss, psnr, total_variation
from ov3d.nerf.model import Model
from ov3d.nerf.occupancy import full_occupancy
from ov3d.nerf.rays import PixelBank
from ov3d.nerf.rendering import render_colour
from ov3d.nerf.spaces import Space

CHECKPOINT_NAME = "field.safetensors"
CURVES_NAME = "field.jsonl"
STAGE = "field"
CURVE_EVERY = 20
SAY_SHARE = 0.1
"""Share of the steps after which the live PSNR is said."""
FOG_SAMPLES = 200
"""Samples a ray of a field that has learnt nothing yet, about."""
DEPTH_MARGIN = 4.0
"""The air before a measured surface ends so many steps before it."""
SHRINK_MARGIN = 0.02


class FieldTrainer:
    """Trains a model, or goes on with one.

    Args:
        bank: pixels of the training views.
        space: where the field lives.
        config: the stage's settings.
        folder: checkpoints and curves go there.
        seed: of everything random.
        progress: hears steps and live PSNR.
        device: where tensors live.
        resume: whether a checkpoint that is there is gone on from.
    """

    def __init__(
        self,
        bank: PixelBank,
        space: Space,
        config: FieldConfig,
        folder: Path,
        *,
        seed: int,
        progress: Progress,
        device: torch.device,
        resume: bool = True,
    ) -> None:
        self.bank, self.config, self.folder, self.seed = bank, config, folder, seed
        self.progress, self.device = progress, device
        self.step = 0
        self.curves = Curves(folder / CURVES_NAME, 0)
        self._recent = float("nan")
        self._samples_a_ray = float(FOG_SAMPLES)
        path = folder / CHECKPOINT_NAME
        if resume and path.is_file() and self._loaded(path):
            return
        torch.manual_seed(seed)
        field = RadianceField(
            resolution_for(config.first_voxels, torch.from_numpy(space.size)),
            density_ranks=config.density_ranks,
            appearance_ranks=config.appearance_ranks,
            width=config.colour_width,
            generator=generator_for(seed, "start", 0),
        ).to(device)
        occupancy, background = full_occupancy(field.resolution, device), float(config.white_share >= 0.5)
        self.model = Model(field, space, occupancy, config.step_ratio, background)
        self.optimiser = self._new_optimiser()

    @property
    def done(self) -> bool:
        """Whether all steps were taken."""
        return self.step >= self.config.steps

    def run(self, look: Callable[[Model, int], None] | None = None) -> Model:
        """Train to the end.

        Args:
            look: called every `view_every` steps with the model and the step.

        Raises:
            DataError: the loss is no number any more, or every cell became empty.
        """
        config = self.config
        with self.progress.task("Training the radiance field", config.steps) as task:
            task.advance(self.step)
            while not self.done:
                self._one_step()
                task.advance()
                if look is not None and config.view_every and self.step % config.view_every == 0:
                    look(self.model, self.step)
                if self.step % config.checkpoint_every == 0 or self.done:
                    self._check(self.step)
                    self.write()
        return self.model

    def write(self) -> None:
        """Write curves and a checkpoint; at the end of the stage without the optimiser, which nothing needs any more."""
        self.curves.write()
        metadata = {"stage": STAGE, "step": self.step, "model": self.model.metadata()}
        metadata["threads"] = torch.get_num_threads()
        metadata["running"] = [self._recent.hex(), self._samples_a_ray.hex()]  # every bit of them, and NaN
        optimiser = None if self.done else self.optimiser
        write_checkpoint(
            self.folder / CHECKPOINT_NAME, {"field": self.model.field}, optimiser, metadata, self.model.arrays()
        )

    # ------------------------------------------------------------------------------------------------------- a step

    def _one_step(self) -> None:
        config, step = self.config, self.step
        self._prepare(step)
        rate = config.rate_decay ** (step / config.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = group["initial"] * rate
        colour_error, loss = self._loss(step)
        if not math.isfinite(float(loss.detach())):
            raise self._failed(step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.step += 1
        before = self._recent if math.isfinite(self._recent) else colour_error
        self._recent = 0.95 * before + 0.05 * colour_error
        if self.step % CURVE_EVERY == 0 or self.done:
            self.curves.add(
                self.step, loss=float(loss.detach()), psnr=psnr(self._recent), occupied=self.model.occupancy.share
            )
        if self.step % max(1, round(SAY_SHARE * config.steps)) == 0:
            self.progress.say(f"Step {self.step} of {config.steps}: training PSNR {psnr(self._recent):.1f} dB")

    def _loss(self, step: int) -> tuple[float, Tensor]:
        config, model = self.config, self.model
        generator = generator_for(self.seed, STAGE, step)
        count = max(1, min(config.rays, int(config.samples / self._samples_a_ray)))
        pixels = self.bank.pixels(self.bank.draw(count, generator))
        jitter = torch.rand(count, generator=generator).to(self.device)
        background = float(torch.rand(1, generator=generator) < config.white_share)
        lines = model.lines(pixels.origin, pixels.direction)
        seen = model.see(lines, jitter)
        self._samples_a_ray = 0.8 * self._samples_a_ray + 0.2 * max(len(seen.samples) / count, 1.0)
        colour = render_colour(model.field, seen, pixels.direction, background)
        error = (colour - pixels.colour).square().mean()
        loss = error
        if config.depth_weight and self.bank.depth is not None and model.space.kind == "box":
            measured = pixels.depth * model.space.scale
            margin = DEPTH_MARGIN * model.delta
            loss = loss + config.depth_weight * depth_loss(seen, lines.far.clamp(min=0), measured, margin)
        if step % config.tv_every == 0:
            for weight, grid in (
                (config.tv_density, model.field.density_grid),
                (config.tv_appearance, model.field.appearance_grid),
            ):
                if weight:
                    loss = loss + weight * config.tv_every * total_variation(grid)
        return float(error.detach()), loss

    # ---------------------------------------------------------------------------------------- what happens between steps

    def _prepare(self, step: int) -> None:
        """Finer grids, a smaller box, occupied cells: whatever is due before a step."""
        config, model = self.config, self.model
        due = step % config.occupancy_every == 0
        if step in config.upsample_at:
            times = config.upsample_at.index(step)
            voxels = voxel_schedule(config.first_voxels, config.last_voxels, len(config.upsample_at))[times]
            self._resample(resolution_for(voxels, torch.from_numpy(model.space.size)), np.zeros(3), np.ones(3))
            due = True
        if step == config.shrink_at:
            self._shrink()
            due = True
        if due and step:
            self._check(step)  # a cell whose density is no number would count as empty
            model.look_for_occupied(config.occupancy_threshold if step >= config.occupancy_from else 0.0)
            if not model.occupancy.cells.any():
                raise DataError(
                    f"Nothing is left in the radiance field at step {step}: every cell of its grid is empty.",
                    "Poses and photographs may not belong together (see: ov3d doctor SCENE), or the space misses the scene: "
                    "--set space=contraction",
                )

    def _shrink(self) -> None:
        """Put the whole resolution into the box of what is occupied."""
        self.model.look_for_occupied(self.config.occupancy_threshold)
        bounds = self.model.occupancy.bounds()
        if bounds is None:
            return  # `_prepare` says so
        low, high = (bound.double().cpu().numpy() for bound in bounds)
        low, high = np.maximum(low - SHRINK_MARGIN, 0), np.minimum(high + SHRINK_MARGIN, 1)
        space = self.model.space
        smaller = space.shrunk(space.low + low * space.size, space.low + high * space.size)
        resolution = resolution_for(math.prod(self.model.field.resolution), torch.from_numpy(smaller.size))
        self.model.space = smaller
        self._resample(resolution, low, high)

    def _resample(self, resolution: tuple[int, int, int], low: np.ndarray, high: np.ndarray) -> None:
        corners = [torch.from_numpy(corner).float().to(self.device) for corner in (low, high)]
        self.model.field.resample(resolution, corners[0], corners[1])
        self.optimiser = self._new_optimiser()

    def _new_optimiser(self) -> torch.optim.Adam:
        field, config = self.model.field, self.config
        grids = [*field.density_grid.parameters(), *field.appearance_grid.parameters()]
        networks = [*field.basis.parameters(), *field.colour.parameters()]
        return adam(
            [
                {"params": grids, "lr": config.grid_rate, "initial": config.grid_rate},
                {"params": networks, "lr": config.network_rate, "initial": config.network_rate},
            ],
            betas=ADAM_BETAS,
        )

    def _check(self, step: int) -> None:
        """See that all weights are numbers: a checkpoint of others would be worth nothing."""
        if not_finite(self.model.field):
            raise self._failed(step)

    def _failed(self, step: int) -> DataError:
        cause = cause_of_nan(self.model.field) or "a ray composites to no number"
        kept = self.folder / CHECKPOINT_NAME
        last = f" The checkpoint before it is kept at {kept}." if kept.is_file() else ""
        return DataError(
            f"The loss is no number at step {step} of stage {STAGE}; {cause}.{last}",
            f"Start a new run with smaller steps: --set field.grid_rate={self.config.grid_rate / 4:g}",
        )

    # --------------------------------------------------------------------------------------------------- checkpoints

    def _loaded(self, path: Path) -> bool:
        try:
            checkpoint = Checkpoint(path)
        except CorruptFileError as error:
            self.progress.say(f"{error.message} Training from the start.")
            return False
        self.step = checkpoint.metadata["step"]
        self._recent, self._samples_a_ray = (float.fromhex(text) for text in checkpoint.metadata["running"])
        self.model = Model.from_checkpoint(checkpoint, self.device)
        self.optimiser = self._new_optimiser()
        checkpoint.load_optimiser(self.optimiser)
        self.curves = Curves(self.folder / CURVES_NAME, self.step)
        if self.step and not self.done:
            self.progress.say(f"Going on with the radiance field at step {self.step}.")
            say_threads(checkpoint, self.progress)
        return True
