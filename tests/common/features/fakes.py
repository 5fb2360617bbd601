"""Tiny encoders and frames: a linear map of small crops stands in for a network, so that tests are exact and fast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ov3d.common.features.crops import CropPlan
from ov3d.common.features.store import FeatureStore
from ov3d.common.language.cards import EncoderCard, Identity
from ov3d.common.scenes.cameras import Camera
from ov3d.common.scenes.scene import Frame

DIM = 24


class KilledError(Exception):
    """Stands in for a process that ends in the middle."""


class FakeEncoder:
    """Mean colours of a 4x4 raster of the crop, through a fixed random map; each row by itself, whatever the batch."""

    def __init__(self, dim: int = DIM, *, die_after: int | None = None) -> None:
        identity = Identity("fake", f"seed:{dim}", "4x4 means", "float32")
        self.card = EncoderCard("fake", identity, identity, dim, 10.0, 0.2, True)
        self._map = np.random.default_rng(dim).normal(size=(48, dim))
        self.batches: list[tuple[int, ...]] = []
        self._die_after = die_after

    def encode_crops(self, crops: torch.Tensor) -> torch.Tensor:
        if self._die_after is not None and len(self.batches) >= self._die_after:
            raise KilledError
        self.batches.append(tuple(crops.shape))
        side = crops.shape[-1] // 4
        cells = crops.numpy()[:, :, : 4 * side, : 4 * side].reshape(-1, 3, 4, side, 4, side)
        raster = cells.mean((3, 5)).reshape(len(crops), -1) / 255 - 0.4
        rows = (raster[:, :, None] * self._map).sum(1)
        return torch.from_numpy((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))

    def encode_text(self, prompts: object) -> np.ndarray:
        raise NotImplementedError

    def num_tokens_lost(self, prompt: str) -> int:
        return 0


class FakePatches:
    """Unit tokens from the mean colour of each cell."""

    identity = Identity("fake-patches", "none", "cell means", "float32")
    dim = 4

    def encode_patches(self, image: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        means = torch.nn.functional.adaptive_avg_pool2d(image.to(torch.float32) / 255 - 0.5, grid).permute(1, 2, 0)
        tokens = torch.cat([means, torch.full((*grid, 1), 0.1)], dim=-1)
        return tokens / tokens.norm(dim=-1, keepdim=True)


class Listener:
    """A `Progress` that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.totals: dict[str, float] = {}
        self.advanced: dict[str, float] = {}

    @contextmanager
    def task(self, description: str, total: float) -> Iterator[Listener]:
        self._current = description
        self.totals[description] = total
        self.advanced[description] = 0
        yield self

    def advance(self, amount: float = 1) -> None:
        self.advanced[self._current] += amount

    def say(self, line: str) -> None:
        self.lines.append(line)


def picture(seed: int, width: int, height: int) -> np.ndarray:
    """Smooth colour blobs with some noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((width, height))
    noise = rng.integers(-10, 10, (height, width, 3))
    return np.clip(np.asarray(coarse).astype(int) + noise, 0, 255).astype(np.uint8)


def make_frame(folder: Path, name: str, *, seed: int | None = None, width: int = 96, height: int = 72) -> Frame:
    """A frame with its picture written as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    Image.fromarray(picture(sum(name.encode()) if seed is None else seed, width, height)).save(path)
    camera = Camera(width, height, 80.0, 80.0, width / 2, height / 2)
    return Frame(name, path, camera, np.eye(4))


PLAN = CropPlan(fractions=(0.25, 0.42))
"""24 px and 40 px crops at 96x72."""


def make_store(root: Path, encoder: FakeEncoder | None = None, plan: CropPlan = PLAN) -> FeatureStore:
    return FeatureStore(root, (encoder or FakeEncoder()).card, plan)
