"""Stage `field`: the radiance field from photographs and, where available, measured depth.

A step draws rays from all training views, marches them through the occupied cells, compares colours, and updates planes, lines
and networks. At some steps the grid is upsampled (resolutions are log-spaced) and the optimiser restarts; every few steps the
occupied cells are recomputed: at first only exactly empty cells are skipped, so nothing that may yet grow is cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from ov3d.common.base.errors import DataError
from ov3d.common.base.files import hash_text
from ov3d.common.learning.checkpoints import Checkpoint, adam, generator_for
from ov3d.common.learning.trainer import Stage, State, Trainer, Values
from ov3d.nerf.config import ADAM_BETAS, FieldConfig
from ov3d.nerf.field import RadianceField, Resolution, resolution_for, voxel_schedule
from ov3d.nerf.losses import depth_loss, psnr, total_variation
from ov3d.nerf.model import Model
from ov3d.nerf.occupancy import full_occupancy
from ov3d.nerf.rays import PixelBank
from ov3d.nerf.rendering import render_colour
from ov3d.nerf.spaces import Space

CHECKPOINT_NAME = "field.safetensors"
FOG_SAMPLES = 200
"""Approximate samples per ray before the field has learnt anything."""
DEPTH_MARGIN = 4.0
"""Space counts as empty up to this many steps before a measured surface."""
SHRINK_MARGIN = 0.02
"""Margin kept around the occupied cells, as a share of the box."""


class FieldStage(Stage):
    """Trains a radiance field.

    Args:
        bank: pixels of the training views.
        space: of the field.
        config: the stage's settings.
        seed: of all random numbers.
        device: where tensors live.
        look: called every `view_every` steps with the model and the step.

    Attributes:
        model: what is trained; set once a `Trainer` has the stage.
    """

    name = "field"
    title = "Training the radiance field"
    rate_key = "field.grid_rate"
    checkpoint_name = CHECKPOINT_NAME
    curves_name = "field.jsonl"
    note_share = 0.1
    model: Model

    def __init__(
        self,
        bank: PixelBank,
        space: Space,
        config: FieldConfig,
        *,
        seed: int,
        device: torch.device,
        look: Callable[[Model, int], None] | None = None,
    ) -> None:
        self.bank, self.space, self.config, self.seed = bank, space, config, seed
        self.device, self.look = device, look
        self.steps, self.checkpoint_every = config.steps, config.checkpoint_every
        self.made_from = hash_text(bank.key, space.key, config.model_dump_json(), str(seed))
        self._recent_error = float("nan")
        self._samples_per_ray = float(FOG_SAMPLES)

    def start(self) -> None:
        """A random field in which every cell is occupied."""
        config = self.config
        torch.manual_seed(self.seed)
        field = RadianceField(
            resolution_for(config.first_voxels, torch.from_numpy(self.space.size)),
            density_ranks=config.density_ranks,
            appearance_ranks=config.appearance_ranks,
            width=config.colour_width,
            generator=generator_for(self.seed, "start", 0),
        ).to(self.device)
        occupancy, background = full_occupancy(field.resolution, self.device), float(config.white_share >= 0.5)
        self.model = Model(field, self.space, occupancy, config.step_ratio, background)

    def state(self) -> State:
        """The field, its model, and the running means."""
        running = [self._recent_error.hex(), self._samples_per_ray.hex()]  # exact, including NaN
        metadata = {"model": self.model.metadata(), "running": running}
        return State({"field": self.model.field}, metadata, self.model.arrays())

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take the model and the running means from a checkpoint."""
        self._recent_error, self._samples_per_ray = map(float.fromhex, checkpoint.metadata["running"])
        self.model = Model.from_checkpoint(checkpoint, self.device)

    def optimiser(self, step: int) -> torch.optim.Adam:
        """Adam over the grids and, with a different rate, the networks."""
        field, config = self.model.field, self.config
        grids = [*field.density_grid.parameters(), *field.appearance_grid.parameters()]
        networks = [*field.basis.parameters(), *field.colour.parameters()]
        groups = [{"params": grids, "lr": config.grid_rate}, {"params": networks, "lr": config.network_rate}]
        return adam(groups, betas=ADAM_BETAS)

    def decay(self, step: int) -> float:
        """Decays exponentially to `rate_decay` at the end."""
        return self.config.rate_decay ** (step / self.steps)

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, Values]:
        """Squared error of colours, error of depths, and total variation, over random rays."""
        config, model = self.config, self.model
        count = max(1, min(config.rays, int(config.samples / self._samples_per_ray)))
        pixels = self.bank.pixels(self.bank.draw(count, generator))
        jitter = torch.rand(count, generator=generator).to(self.device)
        background = float(torch.rand(1, generator=generator) < config.white_share)
        lines = model.lines(pixels.origin, pixels.direction)
        seen = model.see(lines, jitter)
        self._samples_per_ray = 0.8 * self._samples_per_ray + 0.2 * max(len(seen.samples) / count, 1.0)
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
        return loss, {"psnr": self._recent_psnr(float(error.detach())), "occupied": model.occupancy.share}

    def before_step(self, trainer: Trainer) -> None:
        """Upsample the grid, shrink the box or update occupied cells when due."""
        config, model, step = self.config, self.model, trainer.step
        due = step % config.occupancy_every == 0
        if step in config.upsample_at:
            times = config.upsample_at.index(step)
            voxels = voxel_schedule(config.first_voxels, config.last_voxels, len(config.upsample_at))[times]
            self._resample(resolution_for(voxels, torch.from_numpy(model.space.size)), np.zeros(3), np.ones(3), trainer)
            due = True
        if step == config.shrink_at:
            self._shrink(trainer)
            due = True
        if due and step:
            trainer.check_weights()  # a cell whose density is NaN would count as empty
            model.look_for_occupied(config.occupancy_threshold if step >= config.occupancy_from else 0.0)
            if not model.occupancy.cells.any():
                raise DataError(
                    f"The radiance field is empty at step {step}: its grid has no occupied cell.",
                    "Poses may not match the photographs (see: ov3d doctor SCENE), or the space may miss the scene: "
                    "--set space=contraction",
                )

    def after_step(self, trainer: Trainer) -> Values:
        """Render a view when due."""
        if self.look is not None and self.config.view_every and trainer.step % self.config.view_every == 0:
            self.look(self.model, trainer.step)
        return {}

    def note(self, values: Mapping[str, float]) -> str:
        """PSNR of the latest training rays."""
        return f"training PSNR {values['psnr']:.1f} dB"

    def _recent_psnr(self, error: float) -> float:
        """PSNR of the running mean of the colours' error, updated with a new one."""
        before = self._recent_error if math.isfinite(self._recent_error) else error
        self._recent_error = 0.95 * before + 0.05 * error
        return psnr(self._recent_error)

    def _shrink(self, trainer: Trainer) -> None:
        """Shrink the box to the occupied cells, keeping the number of voxels."""
        self.model.look_for_occupied(self.config.occupancy_threshold)
        bounds = self.model.occupancy.bounds()
        if bounds is None:
            return  # `before_step` raises
        low, high = (bound.double().cpu().numpy() for bound in bounds)
        low, high = np.maximum(low - SHRINK_MARGIN, 0), np.minimum(high + SHRINK_MARGIN, 1)
        space = self.model.space
        smaller = space.shrunk(space.low + low * space.size, space.low + high * space.size)
        resolution = resolution_for(math.prod(self.model.field.resolution), torch.from_numpy(smaller.size))
        self.model.space = smaller
        self._resample(resolution, low, high, trainer)

    def _resample(self, resolution: Resolution, low: np.ndarray, high: np.ndarray, trainer: Trainer) -> None:
        corners = [torch.from_numpy(corner).float().to(self.device) for corner in (low, high)]
        self.model.field.resample(resolution, corners[0], corners[1])
        trainer.restart_optimiser()
