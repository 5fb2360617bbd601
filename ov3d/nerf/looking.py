"""Rendering views during and after training of a field: images in the run's folder, and PSNR of held-out views."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ov3d.common.base.files import write_text
from ov3d.common.base.progress import Progress
from ov3d.common.base.shapes import Array, UInt8
from ov3d.common.exporters.drawing import save_png
from ov3d.common.features.crops import resized
from ov3d.common.scenes.scene import Frame
from ov3d.nerf.losses import psnr
from ov3d.nerf.model import Model
from ov3d.nerf.rays import working_camera
from ov3d.nerf.view_rays import view_rays

VIEWS_FOLDER = "views"
MAX_PIXELS = 600_000
"""Held-out views are rendered up to this many pixels: a minute or less on one core."""


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """A view compared with its photograph.

    Attributes:
        image: as rendered.
        decibels: PSNR.
    """

    image: UInt8[Array, "h w 3"]
    decibels: float


def look_at_view(model: Model, frame: Frame, long_side: int) -> Look:
    """Render a frame at a long side, and compare it with its photograph."""
    camera = working_camera(frame.camera, long_side)
    colour = model.render(*view_rays(camera, frame.world_from_camera, model.device)).colour
    found = colour.clamp(0, 1).cpu().numpy().reshape(camera.height, camera.width, 3)
    photograph = resized(frame.load_image(), (camera.width, camera.height)).astype(np.float64) / 255
    return Look((found * 255 + 0.5).astype(np.uint8), psnr(float(np.square(found - photograph).mean())))


def held_out_psnr(model: Model, frames: Sequence[Frame], long_side: int, progress: Progress) -> float | None:
    """Mean PSNR of held-out views, reported to the user; None if nothing was held out.

    Args:
        model: trained.
        frames: views kept out of all losses; the first ones up to `MAX_PIXELS` are rendered.
        long_side: of rendering.
        progress: receives it.
    """
    decibels: list[float] = []
    pixels = 0
    for frame in frames:
        if decibels and pixels > MAX_PIXELS:
            break
        camera = working_camera(frame.camera, long_side)
        decibels.append(look_at_view(model, frame, long_side).decibels)
        pixels += camera.width * camera.height
    if not decibels:
        return None
    mean = float(np.mean(decibels))
    some = f"{len(decibels)} of {len(frames)}" if len(decibels) < len(frames) else f"all {len(frames)}"
    progress.say(f"Held-out PSNR {mean:.1f} dB, mean of {some} views kept out")
    return mean


class Looker:
    """Renders a view now and then, so that a run can be judged while training.

    Args:
        frame: the view, preferably a held-out one.
        long_side: of rendering.
        folder: of the scene in its run.
        progress: receives the PSNR.
    """

    def __init__(self, frame: Frame, long_side: int, folder: Path, progress: Progress) -> None:
        self._frame, self._long_side = frame, long_side
        self._folder, self._progress = folder / VIEWS_FOLDER, progress

    def __call__(self, model: Model, step: int) -> None:
        """Render after a step."""
        from PIL import Image

        with torch.no_grad():
            look = look_at_view(model, self._frame, self._long_side)
        save_png(self._folder / f"step-{step:06d}.png", Image.fromarray(look.image))
        facts = {"step": step, "view": self._frame.name, "psnr": round(look.decibels, 3)}
        write_text(self._folder / f"step-{step:06d}.json", json.dumps(facts) + "\n")
        self._progress.say(f"Step {step}: view {self._frame.name} rendered at {look.decibels:.1f} dB")
