"""Stage `distil`: the teacher's features on top of a radiance field whose density is frozen.

First the head and the Selection Volume learn on codes that are kept from one look along every ray (`ray_cache.py`). From
`joint_from` on the appearance is tuned along, held back by the photographs, with learning rates that start anew: the weights
of samples stay what they are, only the appearance is asked again.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from ov3d.common.base.errors import CorruptFileError, DataError
from ov3d.common.base.progress import Progress
from ov3d.common.base.shapes import Float, Int64
from ov3d.common.learning.checkpoints import Checkpoint, adam, generator_for, write_checkpoint
from ov3d.common.learning.curves import Curves
from ov3d.common.learning.soundness import cause_of_nan, not_finite, say_threads
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
CURVES_NAME = "distil.jsonl"
STAGE = "distil"
CURVE_EVERY = 20
SAY_SHARE = 0.2
FIT_PIXELS = 16384
"""Pixels that the head is fitted to in closed form before the first step."""
CLIP_SCALE = 100.0
"""Logit scale of the encoder that the reference's temperature is for."""


class DistilTrainer:
    """Trains language onto a model, or goes on with it.

    Args:
        model: the trained radiance field; its appearance is changed in the joint phase.
        bank: pixels of the training views.
        targets: the teacher at them.
        patches: DINO at them, or none: then feature distributions are not aligned.
        config: the stage's settings.
        folder: checkpoints and curves go there.
        seed: of everything random.
        progress: hears steps.
        resume: whether a checkpoint that is there is gone on from.
    """

    def __init__(
        self,
        model: Model,
        bank: PixelBank,
        targets: Targets,
        patches: PatchFeatures | None,
        config: DistilConfig,
        folder: Path,
        *,
        seed: int,
        progress: Progress,
        resume: bool = True,
    ) -> None:
        self.model, self.bank, self.targets, self.patches = model, bank, targets, patches
        self.config, self.folder, self.seed, self.progress = config, folder, seed, progress
        self.step = 0
        self.curves = Curves(folder / CURVES_NAME, 0)
        # The codes are those of the field before it was tuned, also where a run goes on in the joint phase.
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
        path = folder / CHECKPOINT_NAME
        if not (resume and path.is_file() and self._loaded(path)):
            self._fit()
            self.optimiser = self._new_optimiser(joint=False)

    @property
    def done(self) -> bool:
        """Whether all steps were taken."""
        return self.step >= self.config.steps

    def run(self) -> FeatureHead:
        """Train to the end.

        Raises:
            DataError: the loss is no number any more.
        """
        config = self.config
        with self.progress.task("Distilling", config.steps) as task:
            task.advance(self.step)
            while not self.done:
                self._one_step()
                task.advance()
                if self.step % config.checkpoint_every == 0 or self.done:
                    # A checkpoint of weights that are no numbers would be worth nothing.
                    if any(map(not_finite, (self.head, self.selection, self.model.field))):
                        raise self._failed(self.step, {})
                    self.write()
        return self.head

    def write(self) -> None:
        """Write curves and a checkpoint; at the end of the stage without the optimiser, which nothing needs any more."""
        self.curves.write()
        metadata = {
            "stage": STAGE,
            "step": self.step,
            "model": self.model.metadata(),
            "dim": len(self.head.weight),
            "num_scales": self.targets.num_scales,
            "threads": torch.get_num_threads(),
        }
        modules = {"field": self.model.field, "head": self.head, "selection": self.selection}
        optimiser = None if self.done else self.optimiser
        write_checkpoint(self.folder / CHECKPOINT_NAME, modules, optimiser, metadata, self.model.arrays())

    # ------------------------------------------------------------------------------------------------------- a step

    def _one_step(self) -> None:
        config, step = self.config, self.step
        joint = step >= config.joint_from
        if step == config.joint_from and step:
            self.optimiser = self._new_optimiser(joint=True)
        generator = generator_for(self.seed, STAGE, step)
        patches = config.patches if self.patches is not None and len(self.targets.text) > 1 else 0
        pixels, patch_starts = draw_pixels(
            self.bank, generator, rays=config.rays, patches=patches, side=config.patch_side
        )
        target = self.targets.at(pixels)
        z, colour_error = self._look(pixels, joint=joint)
        parts = self._losses(z, pixels, patch_starts, target)
        loss = sum((weight * part for weight, part in parts.values()), config.colour_weight * colour_error)
        assert isinstance(loss, Tensor)
        if not math.isfinite(float(loss.detach())):
            raise self._failed(step, parts)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.step += 1
        if self.step % CURVE_EVERY == 0 or self.done:
            values = {name: float(part.detach()) for name, (_, part) in parts.items()}
            if joint:
                values["psnr"] = psnr(float(colour_error.detach()))
            self.curves.add(self.step, loss=float(loss.detach()), **values)
        if self.step % max(1, round(SAY_SHARE * config.steps)) == 0:
            cosine = 1 - float(parts["feature"][1].detach())
            self.progress.say(f"Step {self.step} of {config.steps}: cosine with the teacher {cosine:.3f}")

    def _look(self, pixels: Int64[Tensor, " n"], *, joint: bool) -> tuple[Float[Tensor, "n z"], Float[Tensor, ""]]:
        """The codes of rays, and how far their colours are off (0 in the frozen phase, where nobody looks)."""
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
        # Where an encoder spreads cosines wide, the reference's temperature would make every pair a matter of certainty,
        # and its weights, which are for CLIP, would draw all rays into one class.
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

    # ---------------------------------------------------------------------------------------------- start and restart

    def _fit(self) -> None:
        """The head in closed form, to the mean of the teacher's scales: a better start than any random one."""
        generator = generator_for(self.seed, "fit", 0)
        pixels = self.bank.draw(min(FIT_PIXELS, len(self.bank)), generator)
        pixels = pixels.sort().values
        target = self.targets.at(pixels)
        mean = torch.nn.functional.normalize(target.features.mean(1), dim=1)
        known = target.known.nonzero()[:, 0]
        if len(known):
            trust = self._trust(pixels, target)[known]
            self.head.fit(self.rays.z.index_select(0, pixels[known]).float(), mean[known], trust)

    def _new_optimiser(self, *, joint: bool) -> torch.optim.Adam:
        config, field = self.config, self.model.field
        for parameter in field.parameters():
            parameter.requires_grad_(False)
        groups = [
            {"params": list(self.head.parameters()) + list(self.selection.basis.parameters()), "lr": config.head_rate},
            {"params": list(self.selection.grid.parameters()), "lr": config.selection_rate},
        ]
        if joint:
            networks = [*field.basis.parameters(), *field.colour.parameters()]
            groups.append({"params": list(field.appearance_grid.parameters()), "lr": config.joint_grid_rate})
            groups.append({"params": networks, "lr": config.joint_network_rate})
        for group in groups[2:]:
            for parameter in group["params"]:  # type: ignore[attr-defined]
                parameter.requires_grad_(True)
        return adam(groups, betas=ADAM_BETAS)

    def _failed(self, step: int, parts: dict[str, tuple[float, Tensor]]) -> DataError:
        lost = [name for name, (_, part) in parts.items() if not math.isfinite(float(part.detach()))]
        causes = [cause_of_nan(module) for module in (self.head, self.selection, self.model.field)]
        cause = next(filter(None, causes), f"the cause is its part {', '.join(lost) or 'colour'}")
        kept = self.folder / CHECKPOINT_NAME
        last = f" The checkpoint before it is kept at {kept}." if kept.is_file() else ""
        return DataError(
            f"The loss is no number at step {step} of stage {STAGE}; {cause}.{last}",
            f"Start a new run with smaller steps: --set distil.head_rate={self.config.head_rate / 4:g}",
        )

    def _loaded(self, path: Path) -> bool:
        try:
            checkpoint = Checkpoint(path)
        except CorruptFileError as error:
            self.progress.say(f"{error.message} Distilling from the start.")
            return False
        self.step = checkpoint.metadata["step"]
        for name, module in (("field", self.model.field), ("head", self.head), ("selection", self.selection)):
            checkpoint.load_module(name, module)
        self.optimiser = self._new_optimiser(joint=self.step > self.config.joint_from)
        checkpoint.load_optimiser(self.optimiser)
        self.curves = Curves(self.folder / CURVES_NAME, self.step)
        self.progress.say(f"Going on with distillation at step {self.step}.")
        say_threads(checkpoint, self.progress)
        return True
