"""Checks before training: what was found, what it will take, and an error with a fix if memory is insufficient.

Memory counts what is held at once: the pixels, a field with gradients and two moments, a batch's samples, the rays cached for
distillation. Time is estimated from rays per second, measured on one core, or typical of a graphics card.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ov3d.common.base.errors import DataError
from ov3d.common.learning.estimate import Estimate, estimate_features
from ov3d.common.learning.run import OpenRun
from ov3d.common.scenes.scene import Frame, Scene
from ov3d.common.teachers.teacher import Teacher
from ov3d.nerf.config import NerfConfig
from ov3d.nerf.ray_cache import BYTES_A_PIXEL
from ov3d.nerf.rays import working_camera
from ov3d.nerf.scene_type import choose_space
from ov3d.nerf.spaces import Space

RAYS_A_SECOND = {"cpu": 15_000, "cuda": 400_000}
BYTES_A_SAMPLE = 2_000
"""Of a batch, per sample: codes, activations of the colour network and their gradients."""
USABLE = 0.9
"""Share of the free memory that may be used."""
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Needs:
    """What training on a scene will take.

    Attributes:
        num_bytes: memory at once.
        seconds: of training; features not included.
        free_bytes: memory that is free; 0 if unknown.
    """

    num_bytes: int
    seconds: float
    free_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Capture:
    """A scene that can be trained on.

    Attributes:
        scene: the scene.
        train: the training views.
        held_out: the views that are kept out of every loss.
        with_features: the training views that the teacher has features of.
        classes: names to align with; empty if only the field is trained.
        space: the field's space.
    """

    scene: Scene
    train: tuple[Frame, ...]
    held_out: tuple[Frame, ...]
    with_features: tuple[Frame, ...]
    classes: tuple[str, ...]
    space: Space


def look_over(run: OpenRun[NerfConfig], scene: Scene) -> Capture:
    """Inspect a scene, report what it has, and fail early if it cannot be trained on.

    Raises:
        DataError: too few views, too little memory, no or faulty class names, or missing features that must not be extracted.
    """
    config, progress = run.config, run.progress
    train, held_out = split_views(scene, config)
    needs = estimate(train, config, run.device)
    progress.say(described(scene, train, held_out, needs))
    check_memory(needs)
    classes = class_names(scene, config) if config.needs_teacher else ()
    chosen = choose_space(scene, None if config.space == "auto" else config.space)
    progress.say(chosen.why)
    with_features = train
    if run.teacher is not None:
        found = run.teacher.features_of(scene, extract=run.options.extract, progress=progress)
        names = {frame.name for frame in found}
        with_features = tuple(frame for frame in train if frame.name in names)
    return Capture(scene, train, held_out, with_features, classes, chosen.space)


def split_views(scene: Scene, config: NerfConfig) -> tuple[tuple[Frame, ...], tuple[Frame, ...]]:
    """Training and held-out frames.

    Raises:
        DataError: a name to hold out does not exist, or fewer than two views are left to train on.
    """
    known = {frame.name for frame in scene.frames}
    for name in config.held_out:
        if name not in known:
            raise DataError(f"Scene {scene.name} has no view {name!r} to hold out.", "See: ov3d doctor SCENE")
    if config.held_out:
        names = set(config.held_out)
    elif config.held_out_every:
        names = {frame.name for idx, frame in enumerate(scene.frames) if idx % config.held_out_every == 0}
    else:
        names = set()
    train = tuple(frame for frame in scene.frames if frame.name not in names)
    if len(train) < 2:
        raise DataError(
            f"Scene {scene.name} has {len(scene.frames)} posed photographs, of which {len(train)} would be used for training.",
            "A radiance field needs at least two views: --set held_out_every=0 keeps none out.",
        )
    return train, tuple(frame for frame in scene.frames if frame.name in names)


def estimate(train: Sequence[Frame], config: NerfConfig, device: torch.device) -> Needs:
    """Memory and time of training on a scene."""
    field, distil = config.field, config.distil
    cameras = [working_camera(frame.camera, field.long_side) for frame in train]
    num_pixels = sum(camera.width * camera.height for camera in cameras)
    batch = min(field.samples, field.rays * 64) * BYTES_A_SAMPLE
    num_bytes = num_pixels * 7 + 4 * _field_bytes(config) + batch
    rate = RAYS_A_SECOND.get(device.type, RAYS_A_SECOND["cpu"])
    seconds = field.steps * field.rays / rate
    if "distil" in config.stages:
        num_bytes += num_pixels * BYTES_A_PIXEL
        seconds += (num_pixels + distil.steps * (distil.rays + distil.patches * distil.patch_side**2)) / rate
    return Needs(int(num_bytes), seconds, _free_bytes(device))


def estimate_scene(scene: Scene, teacher: Teacher | None, config: NerfConfig, device: torch.device) -> Estimate:
    """The same plus the missing features, for a dry run; see `Backend.estimate`."""
    train, _ = split_views(scene, config)
    needs, features = estimate(train, config, device), estimate_features(scene, teacher)
    return replace(
        features,
        bytes=features.bytes + _field_bytes(config),
        peak_bytes=max(features.peak_bytes, needs.num_bytes),
        seconds=round(features.seconds + needs.seconds, 1),
    )


def class_names(scene: Scene, config: NerfConfig) -> tuple[str, ...]:
    """The classes to align with: the configuration's, else the scene's own.

    Raises:
        DataError: no class is named, or one is empty or duplicate.
    """
    names = tuple(name.strip() for name in (config.classes or scene.classes))
    if not names:
        raise DataError(
            f"Scene {scene.name} names no classes to learn.", "Name its contents: --set 'classes=[a chair, a table]'"
        )
    if "" in names:
        raise DataError(f"A class of {scene.name} has no name.", "Remove the empty line.")
    folded = [name.casefold() for name in names]
    twice = [name for name, key in zip(names, folded, strict=True) if folded.count(key) > 1]
    if twice:
        raise DataError(f"Class {twice[0]!r} of {scene.name} is named twice.", "Name every class once.")
    return names


def check_memory(found: Needs) -> None:
    """Refuse training that would not fit into memory.

    Raises:
        DataError: more memory is needed than is free.
    """
    if found.free_bytes and found.num_bytes > USABLE * found.free_bytes:
        raise DataError(
            f"This run needs about {found.num_bytes / GIB:.1f} GiB of memory; {found.free_bytes / GIB:.1f} GiB are free.",
            "Use smaller photographs (--set field.long_side=320), a smaller grid (--set field.last_voxels=1000000) or "
            "fewer samples per step (--set field.samples=80000).",
        )


def described(scene: Scene, train: Sequence[Frame], held_out: Sequence[Frame], found: Needs) -> str:
    """One line for the user."""
    kept = ", ".join(frame.name for frame in held_out[:4]) + (", …" if len(held_out) > 4 else "")
    return (
        f"{scene.name}: {len(scene.frames)} posed photographs; {len(train)} to learn from, {len(held_out)} kept out"
        f"{f' ({kept})' if kept else ''}; about {found.num_bytes / GIB:.1f} GiB and {found.seconds / 60:.0f} min"
    )


def _field_bytes(config: NerfConfig) -> int:
    """Size of the tables alone; gradients and two moments make it four times as much in memory."""
    ranks = sum(config.field.density_ranks) + sum(config.field.appearance_ranks)
    return int(ranks * config.field.last_voxels ** (2 / 3) * 4)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not available on every system
        return 0
