"""What distillation learns from: the teacher's features and relevancies at pixels, and DINO features, once per view.

Relevancies are stretched to [0, 1] per image, scale and class; their extremes are found beforehand on a grid of pixels of
every view.

Symbols: n pixels, s scales, k classes, d width of the encoder, e width of DINO's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ov3d.common.base.files import hash_text
from ov3d.common.base.progress import Progress
from ov3d.common.base.shapes import Array, Bool, Float, Float32, Int64
from ov3d.common.language.cards import PatchEncoder
from ov3d.common.scenes.scene import Frame
from ov3d.common.teachers.teacher import ImageFeatures
from ov3d.nerf.alignment import stretched
from ov3d.nerf.rays import PixelBank

GRID_STEP = 8
"""Pixel spacing, at the working size, of the grid on which extremes of relevancies are searched."""
DINO_LONG_SIDE = 48
"""Patches along the long side of a view for DINO."""


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """The teacher's output at pixels.

    Attributes:
        features: unit vectors per scale; zeros where unknown.
        relevancy: in [0, 1], per scale and class.
        known: whether the teacher has features there.
    """

    features: Float[Tensor, "n s d"]
    relevancy: Float[Tensor, "n s k"]
    known: Bool[Tensor, " n"]


class Targets:
    """The teacher at the pixels of a bank.

    Args:
        bank: training views.
        source: the teacher's features; one with `features_at` has several scales.
        text: unit text vectors of the classes.
        logit_scale: the encoder's factor on cosines.
        device: where targets go.
        progress: receives progress.
    """

    def __init__(
        self,
        bank: PixelBank,
        source: ImageFeatures,
        text: Float32[Array, "k d"],
        *,
        logit_scale: float,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self.bank, self.source, self.device = bank, source, device
        self.logit_scale = logit_scale
        self.text = torch.from_numpy(np.array(text)).to(device)
        lows, highs = [], []
        with progress.task("Looking for the ends of relevancies", len(bank.frames)) as task:
            for frame_idx, camera in enumerate(bank.cameras):
                pixels = bank.of_frame(frame_idx).view(camera.height, camera.width)
                grid = pixels[::GRID_STEP, ::GRID_STEP].reshape(-1)
                cosine = self._features(frame_idx, grid) @ self.text.T
                lows.append(cosine.amin(0))
                highs.append(cosine.amax(0))
                task.advance()
        self._low, self._high = torch.stack(lows), torch.stack(highs)

    @property
    def key(self) -> str:
        """Hash of everything that determines targets."""
        known = (self.source.key(frame) for frame in self.bank.frames)
        text = self.text.cpu().numpy().tobytes().hex()
        return hash_text("targets-1", self.bank.key, *known, text, repr(self.logit_scale))

    @property
    def num_scales(self) -> int:
        """s."""
        return self._low.shape[1]

    def at(self, pixels: Int64[Tensor, " n"]) -> Target:
        """The teacher at some pixels of the bank, in any order."""
        frames = self.bank.frame_idx(pixels)
        features = torch.zeros(len(pixels), self.num_scales, self.text.shape[1], device=self.device)
        for frame_idx in sorted(set(frames.tolist())):
            mine = (frames == frame_idx).nonzero()[:, 0]
            features[mine] = self._features(frame_idx, pixels[mine])
        cosine = features @ self.text.T
        relevancy = stretched(cosine, self._low[frames], self._high[frames])
        return Target(features, relevancy, (features != 0).any(2).any(1))

    def _features(self, frame_idx: int, pixels: Int64[Tensor, " n"]) -> Float[Tensor, "n s d"]:
        uv = self.bank.full_size(frame_idx, pixels)
        return torch.from_numpy(scale_features(self.source, self.bank.frames[frame_idx], uv)).to(self.device)


def scale_features(source: ImageFeatures, frame: Frame, uv: Float32[Array, "n 2"]) -> Float32[Array, "n s d"]:
    """Unit features at pixels, one per scale if the source has several scales."""
    scales: Any = getattr(source, "features_at", None)
    if scales is not None:
        return np.asarray(scales(frame, uv), np.float32)
    return np.asarray(source.pixel_features(frame, uv), np.float32)[:, None]


class PatchFeatures:
    """DINO features of every view, computed once.

    Args:
        bank: training views.
        encoder: of patches.
        progress: receives progress.

    Attributes:
        key: hash of what determines the encoder's output.
    """

    def __init__(self, bank: PixelBank, encoder: PatchEncoder, *, progress: Progress) -> None:
        self.bank, self.key = bank, encoder.identity.key
        self._tokens = []
        with progress.task("Looking at patches", len(bank.frames)) as task:
            for frame_idx, camera in enumerate(bank.cameras):
                longest = max(camera.width, camera.height)
                grid = (
                    max(1, round(DINO_LONG_SIDE * camera.height / longest)),
                    max(1, round(DINO_LONG_SIDE * camera.width / longest)),
                )
                image = torch.from_numpy(bank.image(frame_idx).transpose(2, 0, 1).copy())
                self._tokens.append(encoder.encode_patches(image, grid).cpu())
                task.advance()

    def likeness(self, frame_idx: int, pixels: Int64[Tensor, " n"], alike: float) -> Float[Tensor, "n n"]:
        """cos(d_i, d_j) - `alike` of pixels of one view."""
        features = self._features(frame_idx, pixels)
        return (features @ features.T - alike).to(pixels.device)

    def at(self, pixels: Int64[Tensor, " n"]) -> Float[Tensor, "n e"]:
        """Features of pixels of any views."""
        frames = self.bank.frame_idx(pixels).cpu()
        features = torch.zeros(len(pixels), self._tokens[0].shape[2])
        for frame_idx in sorted(set(frames.tolist())):
            mine = (frames == frame_idx).nonzero()[:, 0]
            features[mine] = self._features(frame_idx, pixels[mine])
        return features

    def principal(self, count: int) -> Float[Tensor, "e c"]:
        """The directions in which the features of all views differ most."""
        tokens = torch.cat([tokens.flatten(0, 1) for tokens in self._tokens]).double()
        away = tokens - tokens.mean(0)
        return torch.linalg.eigh(away.T @ away).eigenvectors.flip(1)[:, :count].float()

    def _features(self, frame_idx: int, pixels: Int64[Tensor, " n"]) -> Float[Tensor, "n e"]:
        camera, tokens = self.bank.cameras[frame_idx], self._tokens[frame_idx]
        inside = pixels.cpu() - int(self.bank.starts[frame_idx])
        rows = torch.div(inside, camera.width, rounding_mode="floor") * tokens.shape[0] // camera.height
        columns = (inside % camera.width) * tokens.shape[1] // camera.width
        features: Tensor = tokens[rows, columns].float()
        return features
