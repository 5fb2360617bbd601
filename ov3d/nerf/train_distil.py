"""Stage `distil`: the teacher's features on top of a radiance field whose density is frozen.

First the head and the Selection Volume learn on codes cached from one march along every ray (`ray_cache.py`). From
`joint_from` on the appearance is trained too, constrained by the photographs, with restarted learning rates: the weights of
samples stay the same, only the appearance is re-evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ov3d.common.base.files import hash_text
from ov3d.common.base.progress import Progress
from ov3d.common.base.shapes import Float, Int64
from ov3d.common.learning.checkpoints import adam, generator_for
from ov3d.common.learning.trainer import Stage, State, Trainer, Values
from ov3d.nerf.alignment import distribution_loss, feature_loss, relevancy_loss
from ov3d.nerf.config import ADAM_BETAS, DistilConfig
from ov3d.nerf.draws import draw_pixels
from ov3d.nerf.language import FeatureHead, SelectionVolume
from ov3d.nerf.losses import psnr
from ov3d.nerf.model import Model, colour_and_code
from ov3d.nerf.ray_cache import RayCache, cache_rays
from ov3d.nerf.rays import PixelBank
from ov3d.nerf.rendering import Weighted
from ov3d.nerf.targets import PatchFeatures, Target, Targets
from ov3d.nerf.trust import Trust

CHECKPOINT_NAME = "distil.safetensors"
FIT_PIXELS = 16384
"""Pixels used to fit the head in closed form before the first step."""
CLIP_SCALE = 100.0
"""Logit scale of the encoder that the reference's temperature is for."""


class DistilStage(Stage):
    """Trains language onto a model.

    Args:
        model: the trained radiance field; its appearance is changed in the joint phase.
        bank: pixels of the training views.
        targets: the teacher at them.
        patches: DINO at them; None skips the alignment of feature distributions.
        config: the stage's settings.
        field_key: hash of what the model was trained from.
        seed: of all random numbers.
        progress: receives progress of marching.

    Attributes:
        head: the feature head that is trained.
    """

    name = "distil"
    title = "Distilling"
    rate_key = "distil.head_rate"
    checkpoint_name = CHECKPOINT_NAME
    curves_name = "distil.jsonl"

    def __init__(
        self,
        model: Model,
        bank: PixelBank,
        targets: Targets,
        patches: PatchFeatures | None,
        config: DistilConfig,
        *,
        field_key: str,
        seed: int,
        progress: Progress,
    ) -> None:
        self.model, self.bank, self.targets, self.patches = model, bank, targets, patches
        self.config, self.seed = config, seed
        self.steps, self.checkpoint_every = config.steps, config.checkpoint_every
        patch_key = "" if patches is None else patches.key
        self.made_from = hash_text(field_key, targets.key, patch_key, config.model_dump_json(), str(seed))
        # The codes are those of the field before it was tuned, also when the joint phase is resumed.
        self.rays: RayCache = cache_rays(model, bank, progress)
        torch.manual_seed(seed + 1)
        device = model.device
        self.head = FeatureHead(targets.text.shape[1]).to(device)
        generator = generator_for(seed, "selection", 0)
        resolution = model.field.resolution
        self.selection = SelectionVolume(resolution, config.selection_ranks, targets.num_scales, generator).to(device)
        self.trust = None
        if config.doubt and len(targets.text) > 1:
            drawn = generator_for(seed, "trust", 0)
            self.trust = Trust(bank, self.rays, targets, patches, power=config.doubt, generator=drawn)

    def start(self) -> None:
        """The head in closed form, to the mean of the teacher's scales: better than a random start."""
        generator = generator_for(self.seed, "fit", 0)
        pixels = self.bank.draw(min(FIT_PIXELS, len(self.bank)), generator)
        pixels = pixels.sort().values
        target = self.targets.at(pixels)
        mean = torch.nn.functional.normalize(target.features.mean(1), dim=1)
        known = target.known.nonzero()[:, 0]
        if len(known):
            trust = self._trust(pixels, target)[known]
            self.head.fit(self.rays.z.index_select(0, pixels[known]).float(), mean[known], trust)

    def state(self) -> State:
        """The model, the head and the Selection Volume."""
        modules = {"field": self.model.field, "head": self.head, "selection": self.selection}
        shape = {"dim": len(self.head.weight), "num_scales": self.targets.num_scales}
        return State(modules, {"model": self.model.metadata(), **shape}, self.model.arrays())

    def optimiser(self, step: int) -> torch.optim.Adam:
        """Adam over the head and the Selection Volume; in the joint phase also over the appearance."""
        config, field = self.config, self.model.field
        groups = [
            {"params": list(self.head.parameters()) + list(self.selection.basis.parameters()), "lr": config.head_rate},
            {"params": list(self.selection.grid.parameters()), "lr": config.selection_rate},
        ]
        field.requires_grad_(False)
        if self._joint(step):
            for module in (field.appearance_grid, field.basis, field.colour):
                module.requires_grad_(True)
            networks = [*field.basis.parameters(), *field.colour.parameters()]
            groups.append({"params": list(field.appearance_grid.parameters()), "lr": config.joint_grid_rate})
            groups.append({"params": networks, "lr": config.joint_network_rate})
        return adam(groups, betas=ADAM_BETAS)

    def before_step(self, trainer: Trainer) -> None:
        """Restart learning rates at the joint phase."""
        if trainer.step == self.config.joint_from:
            trainer.restart_optimiser()

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, Values]:
        """The weighted sum of `_losses` and, in the joint phase, the error of colours."""
        config = self.config
        patches = config.patches if self.patches is not None and len(self.targets.text) > 1 else 0
        pixels, patch_starts = draw_pixels(
            self.bank, generator, rays=config.rays, patches=patches, side=config.patch_side
        )
        target = self.targets.at(pixels)
        joint = self._joint(step)
        z, colour_error = self._look(pixels, joint=joint)
        parts = self._losses(z, pixels, patch_starts, target)
        loss = sum((weight * part for weight, part in parts.values()), config.colour_weight * colour_error)
        assert isinstance(loss, Tensor)
        values: dict[str, Tensor | float] = {name: part.detach() for name, (_, part) in parts.items()}
        if joint:
            values["psnr"] = psnr(float(colour_error.detach()))
        return loss, values

    def note(self, values: Mapping[str, float]) -> str:
        """How similar rendered features are to the teacher's."""
        return f"cosine with the teacher {1 - values['feature']:.3f}"

    def _joint(self, step: int) -> bool:
        return step >= self.config.joint_from

    def _look(self, pixels: Int64[Tensor, " n"], *, joint: bool) -> tuple[Float[Tensor, "n z"], Float[Tensor, ""]]:
        """The codes of rays, and the error of their colours (0 in the frozen phase, where it is not computed)."""
        if not joint:
            return self.rays.z.index_select(0, pixels).float(), torch.zeros((), device=pixels.device)
        seen = self.rays.seen(self.model, pixels)
        rays = self.bank.pixels(pixels)
        colour, z = colour_and_code(self.model.field, seen, rays.direction, self.model.background)
        return z, (colour - rays.colour).square().mean()

    def _losses(
        self, z: Float[Tensor, "n z"], pixels: Int64[Tensor, " n"], patch_starts: list[int], target: Target
    ) -> dict[str, tuple[float, Tensor]]:
        """Weights and losses by name."""
        config, text = self.config, self.targets.text
        shares = self._shares(pixels)
        wanted = (shares[:, :, None] * target.features).sum(1)
        relevancy = (shares[:, :, None] * target.relevancy).sum(1)
        found, trust = self.head(z), self._trust(pixels, target)
        parts = {"feature": (1.0, feature_loss(found, wanted, trust))}
        if config.relevancy_weight:
            parts["relevancy"] = (
                config.relevancy_weight,
                relevancy_loss(found @ text.T, relevancy, trust),
            )
        if patch_starts:
            attract, repel = self._patch_losses(found, pixels, patch_starts)
            parts["attract"] = (config.attract_weight / len(patch_starts), attract)
            parts["repel"] = (config.repel_weight / len(patch_starts), repel)
        return parts

    def _trust(self, pixels: Int64[Tensor, " n"], target: Target) -> Float[Tensor, " n"]:
        return target.known.float() if self.trust is None else self.trust.of(pixels, target)

    def _shares(self, pixels: Int64[Tensor, " n"]) -> Float[Tensor, "n s"]:
        if self.targets.num_scales == 1:  # nothing to mix
            return torch.ones(len(pixels), 1, device=pixels.device)
        shares: Tensor = self.selection(self._kept(pixels))
        return shares

    def _kept(self, pixels: Int64[Tensor, " n"]) -> Weighted:
        return self.rays.seen(self.model, pixels)

    def _patch_losses(
        self, found: Float[Tensor, "n d"], pixels: Int64[Tensor, " n"], patch_starts: list[int]
    ) -> tuple[Tensor, Tensor]:
        config = self.config
        assert self.patches is not None
        attract = repel = torch.zeros((), device=found.device)
        # Where an encoder spreads cosines wide, the reference's temperature would saturate every pair,
        # and its weights, which are meant for CLIP, would pull all rays into one class.
        temperature = config.temperature * CLIP_SCALE / self.targets.logit_scale
        for start in patch_starts:
            rows = slice(start, start + config.patch_side**2)
            unit = torch.nn.functional.normalize(found[rows], dim=1)
            p = (unit @ self.targets.text.T / temperature).softmax(1)
            frame_idx = int(self.bank.frame_idx(pixels[start : start + 1]))
            likeness = self.patches.likeness(frame_idx, pixels[rows], config.alike)
            one, other = distribution_loss(p, likeness, divergence=config.divergence, limit=config.repel_limit)
            attract, repel = attract + one, repel + other
        return attract, repel
