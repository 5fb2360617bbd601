"""Before it starts: what was found, what it will take, and a refusal with the fix where memory would not do.

Memory is what lives at once: the pixels, a field with gradients and two moments, a batch's samples, the rays that distillation
keeps. The estimate of time is from rays a second that were measured on one core, or that a graphics card does about.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ov3d.common.base.errors import DataError
from ov3d.common.scenes.scene import Frame, Scene
from ov3d.common.teachers.teacher import Teacher
from ov3d.nerf.config import NerfConfig
from ov3d.nerf.ray_cache import BYTES_A_PIXEL
from ov3d.nerf.rays import working_camera

RAYS_A_SECOND = {"cpu": 15_000, "cuda": 400_000}
BYTES_A_SAMPLE = 2_000
"""Of a batch: codes, activations of the colour network and their gradients."""
USABLE = 0.9
"""Share of the free memory that may be planned with."""
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will take.

    Attributes:
        num_bytes: memory at once.
        seconds: of training; features not included.
        free_bytes: memory that is there; 0 where nobody knows.
    """

    num_bytes: int
    seconds: float
    free_bytes: int


def split_views(scene: Scene, config: NerfConfig) -> tuple[tuple[Frame, ...], tuple[Frame, ...]]:
    """Training and held-out frames.

    Raises:
        DataError: a name to hold out is not there, or fewer than two views are left to train on.
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
            f"Scene {scene.name} has {len(scene.frames)} posed photographs, of which {len(train)} would be trained on.",
            "A radiance field needs at least two views: --set held_out_every=0 keeps none out.",
        )
    return train, tuple(frame for frame in scene.frames if frame.name in names)


def estimate(train: Sequence[Frame], config: NerfConfig, device: torch.device) -> Estimate:
    """Memory and time of a run."""
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
    return Estimate(int(num_bytes), seconds, _free_bytes(device))


def estimate_scene(scene: Scene, teacher: Teacher | None, config: NerfConfig, device: torch.device) -> dict[str, Any]:
    """The same for a user who only wants to know, with the features that are missing; see `Backend.estimate`."""
    train, _ = split_views(scene, config)
    found = estimate(train, config, device)
    plan = teacher.plan(scene) if teacher is not None and teacher.needs_images(scene) else None
    encoding = teacher.estimate(plan) if teacher is not None and plan is not None else {}
    return {
        "scene": scene.name,
        "images": 0 if plan is None else plan.missing,
        "points": 0 if scene.cloud is None else len(scene.cloud),
        "bytes": int(encoding.get("bytes", 0)) + _field_bytes(config),
        "peak_bytes": max(int(encoding.get("peak_bytes", 0)), found.num_bytes),
        "seconds": round(float(encoding.get("seconds", 0.0)) + found.seconds, 1),
    }


def check_memory(found: Estimate) -> None:
    """Refuse what would not fit.

    Raises:
        DataError: more memory is needed than there is.
    """
    if found.free_bytes and found.num_bytes > USABLE * found.free_bytes:
        raise DataError(
            f"This run needs about {found.num_bytes / GIB:.1f} GiB of memory; {found.free_bytes / GIB:.1f} GiB are free.",
            "Reduce the photographs (--set field.long_side=320), the grid (--set field.last_voxels=1000000) or "
            "a step (--set field.samples=80000).",
        )


def described(scene: Scene, train: Sequence[Frame], held_out: Sequence[Frame], found: Estimate) -> str:
    """One line for the user."""
    kept = ", ".join(frame.name for frame in held_out[:4]) + (", …" if len(held_out) > 4 else "")
    return (
        f"{scene.name}: {len(scene.frames)} posed photographs; {len(train)} to learn from, {len(held_out)} kept out"
        f"{f' ({kept})' if kept else ''}; about {found.num_bytes / GIB:.1f} GiB and {found.seconds / 60:.0f} min"
    )


def _field_bytes(config: NerfConfig) -> int:
    """Of the tables alone: in memory with gradients and two moments four times as many."""
    ranks = sum(config.field.density_ranks) + sum(config.field.appearance_ranks)
    return int(ranks * config.field.last_voxels ** (2 / 3) * 4)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not a system that says so
        return 0
