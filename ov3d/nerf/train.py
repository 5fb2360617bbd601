"""One scene from photographs to an index: field, distillation, baking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ov3d.common.base.errors import DataError, MissingModelError
from ov3d.common.base.progress import Progress
from ov3d.common.encoders import create_patch_encoder
from ov3d.common.learning.checkpoints import Checkpoint
from ov3d.common.lifting.lift import write_lifted
from ov3d.common.scenes.scene import Frame, Scene
from ov3d.common.teachers.teacher import Teacher
from ov3d.nerf.bake import INDEX_NAME, bake
from ov3d.nerf.config import NerfConfig
from ov3d.nerf.language import FeatureHead
from ov3d.nerf.looking import Looker, held_out_psnr
from ov3d.nerf.model import Model
from ov3d.nerf.preflight import check_memory, described, estimate, split_views
from ov3d.nerf.rays import PixelBank
from ov3d.nerf.scene_type import choose_space
from ov3d.nerf.targets import PatchFeatures, Targets
from ov3d.nerf.train_distil import CHECKPOINT_NAME as DISTIL_NAME
from ov3d.nerf.train_distil import DistilTrainer
from ov3d.nerf.train_field import FieldTrainer

LIFTED_NAME = "lifted.safetensors"


@dataclass(frozen=True, slots=True)
class Trained:
    """What training a scene gave.

    Attributes:
        index: its LanguageIndex, or none where only the field was trained.
        facts: what a manifest should know.
    """

    index: Path | None
    facts: dict[str, Any]


def train_scene(
    scene: Scene,
    teacher: Teacher | None,
    config: NerfConfig,
    folder: Path,
    *,
    device: torch.device,
    progress: Progress,
    extract: bool = True,
    resume: bool = True,
) -> Trained:
    """Run the stages on one scene.

    Args:
        scene: posed photographs, depth and cloud where there are some.
        teacher: knows what photographs show; may be none where only the field is trained.
        config: of the backend.
        folder: where the scene's files go.
        device: where tensors live.
        progress: hears how far it is.
        extract: whether missing features are extracted.
        resume: whether checkpoints that are there are gone on from.

    Raises:
        DataError: the scene cannot be trained on, memory would not do, or training failed.
    """
    train, held_out = split_views(scene, config)
    found = estimate(train, config, device)
    progress.say(described(scene, train, held_out, found))
    check_memory(found)
    classes = class_names(scene, config) if "distil" in config.stages else ()
    chosen = choose_space(scene, None if config.space == "auto" else config.space)
    progress.say(chosen.why)
    frames: Sequence[Frame] = train
    if teacher is not None:  # before hours of training: what is missing is found out now
        with_features = {frame.name for frame in teacher.features_of(scene, extract=extract, progress=progress)}
        frames = [frame for frame in train if frame.name in with_features]
    with_depth = config.field.depth_weight > 0 and any(frame.depth is not None for frame in train)
    bank = PixelBank(train, long_side=config.field.long_side, device=device, progress=progress, with_depth=with_depth)
    trainer = FieldTrainer(
        bank, chosen.space, config.field, folder, seed=config.seed, progress=progress, device=device, resume=resume
    )
    long_side = config.field.long_side
    model = trainer.run(Looker((held_out or train)[0], long_side, folder, progress))
    decibels = held_out_psnr(model, held_out, long_side, progress)
    facts: dict[str, Any] = {
        "held_out": [frame.name for frame in held_out],
        "space": model.space.kind,
        "resolution": list(model.field.resolution),
        "classes": list(classes),
        "psnr": None if decibels is None else round(decibels, 2),
    }
    if teacher is None:
        return Trained(None, facts)
    if len(frames) < len(train):
        bank = PixelBank(frames, long_side=config.field.long_side, device=device, progress=progress)
    text = teacher.text(classes)
    targets = Targets(
        bank, teacher.source, text, logit_scale=teacher.card.logit_scale, device=device, progress=progress
    )
    patches = _patches(bank, config, device, progress)
    distiller = DistilTrainer(
        model, bank, targets, patches, config.distil, folder, seed=config.seed, progress=progress, resume=resume
    )
    head = distiller.run()
    lifted = bake(
        model,
        head,
        scene,
        teacher.card,
        folder,
        vocabulary=classes,
        config=config,
        progress=progress,
    )
    write_lifted(folder / LIFTED_NAME, lifted)
    return Trained(folder / INDEX_NAME, {**facts, "points": lifted.num_points, "share_seen": lifted.share_seen})


def class_names(scene: Scene, config: NerfConfig) -> tuple[str, ...]:
    """The classes to align with: the configuration's, else the scene's own.

    Raises:
        DataError: none, an empty one, or one twice.
    """
    names = tuple(name.strip() for name in (config.classes or scene.classes))
    if not names:
        raise DataError(
            f"Scene {scene.name} names no classes to learn.", "Name what is in it: --set 'classes=[a chair, a table]'"
        )
    if "" in names:
        raise DataError(f"A class of {scene.name} has no name.", "Take the empty line out.")
    folded = [name.casefold() for name in names]
    twice = [name for name, key in zip(names, folded, strict=True) if folded.count(key) > 1]
    if twice:
        raise DataError(f"Class {twice[0]!r} of {scene.name} is named twice.", "Name every class once.")
    return names


def load_trained(folder: Path, device: torch.device) -> tuple[Model, FeatureHead]:
    """The model and feature head of a scene whose distillation has ended."""
    checkpoint = Checkpoint(folder / DISTIL_NAME)
    model = Model.from_checkpoint(checkpoint, device)
    head = FeatureHead(checkpoint.metadata["dim"])
    checkpoint.load_module("head", head)
    return model, head.to(device)


def _patches(bank: PixelBank, config: NerfConfig, device: torch.device, progress: Progress) -> PatchFeatures | None:
    if not config.distil.patches:
        return None
    try:
        encoder = create_patch_encoder(device=device)
    except MissingModelError as error:
        progress.say(f"{error.message} Feature distributions are not aligned (FDA).")
        return None
    return PatchFeatures(bank, encoder, progress=progress)
