"""Stage `specialise`: an affine map of features that tells the trained classes apart (ESS).

    A(x) = (1 - a) (W2 W1 x + b) + a x,    logits = s A(x) T^t                                                  (1)

with T the text vectors, which stay as they are, and a = 0.05. There is no activation, so A is one affine map. Features are
codes, x = B^t c, and every product of (1) is taken in the narrower space: W1 B^t and T W2 are small matrices, so a step never
makes a row of the encoder's width.

The loss is the cross-entropy to the pseudo labels. What A gains on the trained classes it loses on other words.

Symbols: n points, r width of the codes, d of the encoder, k classes, h hidden.
Source: Xu et al. (3DSS-VLG), ECCV 2024, section 3.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ov3d.common.base.progress import Progress
from ov3d.common.base.shapes import Array, Float, Float32
from ov3d.common.scenes.scene import IGNORE
from ov3d.points.config import SpecialiseConfig
from ov3d.points.material import Rooms
from ov3d.points.steps import StageTrainer, num_steps, scenes_of_step, steps_per_epoch

STAGE = "specialise"
HIDDEN_SHARE = 4
"""The hidden width is the encoder's over this."""


class Adapter(nn.Module):
    """A of equation (1).

    Args:
        dim: width of the encoder.
        residual: a of equation (1).
        generator: of the start values, uniform in +-1 / sqrt(inputs).
    """

    def __init__(self, dim: int, residual: float, generator: torch.Generator | None = None) -> None:
        super().__init__()
        hidden = max(1, dim // HIDDEN_SHARE)
        self.residual = residual
        self.first = nn.Parameter(_uniform((hidden, dim), dim, generator))
        self.second = nn.Parameter(_uniform((dim, hidden), hidden, generator))
        self.bias = nn.Parameter(_uniform((dim,), hidden, generator))

    def logits(
        self, code: Float[Tensor, "n r"], basis: Float[Tensor, "r d"], text: Float[Tensor, "k d"]
    ) -> Float[Tensor, "n k"]:
        """A(x) T^t of points with x = B^t c."""
        own = 1 - self.residual
        through = (basis @ self.first.T) @ (self.second.T @ text.T)
        return code @ (own * through + self.residual * (basis @ text.T)) + own * (text @ self.bias)

    def affine(self) -> Affine:
        """The map as a matrix and an offset."""
        with torch.no_grad():
            matrix = (1 - self.residual) * (self.second.double() @ self.first.double())
            matrix += self.residual * torch.eye(len(matrix), dtype=torch.float64, device=matrix.device)
            offset = (1 - self.residual) * self.bias.double()
            return Affine(matrix.float().cpu().numpy(), offset.float().cpu().numpy())


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """x -> M x + b on features.

    Attributes:
        matrix: M.
        offset: b.
    """

    matrix: Float32[Array, "d d"]
    offset: Float32[Array, " d"]

    @classmethod
    def identity(cls, dim: int) -> Affine:
        """The map of a run that does not specialise."""
        return cls(np.eye(dim, dtype=np.float32), np.zeros(dim, np.float32))

    def on_codes(self, basis: Float32[Array, "r d"] | None) -> Float32[Array, "_ d"]:
        """N [r + 1, d] with A(x) = (c, 1) N for x = B^t c: the offset is its last row. Without a basis, codes are features."""
        rows = self.matrix.T if basis is None else basis @ self.matrix.T
        return np.concatenate([rows, self.offset[None]]).astype(np.float32)


class AdapterTrainer(StageTrainer):
    """Trains the adapter on the pseudo labels of all rooms.

    Args:
        rooms: what it learns from.
        text: unit vectors of the vocabulary.
        config: the stage's settings.
        logit_scale: s of equation (1).
        folder, seed, progress, resume: as in `StageTrainer`.
        device: where tensors live.
    """

    title = "Specialising features"
    rate_key = "specialise.rate"
    module: Adapter

    def __init__(
        self,
        rooms: Rooms,
        text: Float32[Array, "k d"],
        config: SpecialiseConfig,
        logit_scale: float,
        *,
        made_from: str,
        folder: Path,
        seed: int,
        progress: Progress,
        device: torch.device,
        resume: bool = True,
    ) -> None:
        self.rooms, self.config, self.device = rooms, config, device
        self.scale = logit_scale
        self.text = torch.from_numpy(np.ascontiguousarray(text)).to(device)
        self.weights: Tensor | None = None
        if config.balance:
            self.weights = torch.from_numpy(rooms.class_weights(len(text), config.balance)).to(device)
        generator = torch.Generator().manual_seed(seed)
        super().__init__(
            STAGE,
            Adapter(text.shape[1], config.residual, generator).to(device),
            steps=num_steps(config, len(rooms)),
            checkpoint_every=config.checkpoint_every,
            made_from=made_from,
            folder=folder,
            seed=seed,
            progress=progress,
            resume=resume,
        )

    def rate(self, step: int) -> float:
        """Falls every so many epochs."""
        epoch = step // steps_per_epoch(len(self.rooms), self.config.batch)
        return self.config.rate * self.config.rate_decay ** (epoch // self.config.decay_every)

    def loss(self, step: int, generator: torch.Generator) -> Tensor:
        """Cross-entropy over the drawn points of the step's scenes."""
        scenes = scenes_of_step(self.seed, self.stage, step, len(self.rooms), self.config.batch)
        logits, labels = zip(*(self._answers(idx, generator) for idx in scenes), strict=True)
        return cross_entropy(self.scale * torch.cat(logits), torch.cat(labels), self.weights)

    def _answers(self, idx: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        room = self.rooms[idx]
        rows = np.flatnonzero(room.pseudo.labels != IGNORE)
        drawn = rows[torch.randint(len(rows), (min(self.config.points, len(rows)),), generator=generator).numpy()]
        code = torch.from_numpy(room.lifted.code[drawn].astype(np.float32)).to(self.device)
        labels = torch.from_numpy(room.pseudo.labels[drawn].astype(np.int64)).to(self.device)
        return self.module.logits(code, self._basis(room.lifted.basis), self.text), labels

    def _basis(self, basis: Float32[Array, "r d"] | None) -> Float[Tensor, "r d"]:
        if basis is None:
            return torch.eye(self.text.shape[1], device=self.device)
        return torch.from_numpy(np.ascontiguousarray(basis)).to(self.device)


def _uniform(shape: tuple[int, ...], num_inputs: int, generator: torch.Generator | None) -> Tensor:
    bound = 1 / math.sqrt(num_inputs)
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
