"""Stage `specialise`: an affine map of features that separates the trained classes (ESS).

    A(x) = (1 - a) (W2 W1 x + b) + a x,    logits = s A(x) T^t                                                  (1)

with T the text vectors, which stay as they are, and a = 0.05. Without an activation, A is one affine map. Features are
codes, x = B^t c, and every product of (1) is taken in the narrower space: W1 B^t and T W2 are small matrices, so a step never
builds a row of the encoder's width.

The loss is the cross-entropy to the pseudo labels. What A gains on the trained classes it loses on other words.

Symbols: n points, r width of the codes, d of the encoder, k classes, h hidden.
Source: Xu et al. (3DSS-VLG), ECCV 2024, section 3.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ov3d.common.base.files import hash_text
from ov3d.common.base.shapes import Array, Float, Float32
from ov3d.common.learning.checkpoints import adam
from ov3d.common.learning.trainer import Stage, State, Values
from ov3d.common.scenes.scene import IGNORE
from ov3d.points.config import SpecialiseConfig
from ov3d.points.material import Rooms
from ov3d.points.steps import num_steps, scenes_of_step, steps_per_epoch

HIDDEN_SHARE = 4
"""The hidden width is the encoder's width divided by this."""


class Adapter(nn.Module):
    """A of equation (1).

    Args:
        dim: width of the encoder.
        residual: a of equation (1).
        generator: for the initial values, uniform in +-1 / sqrt(inputs).
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


class AdapterStage(Stage):
    """Trains the adapter on the pseudo labels of all rooms.

    Args:
        rooms: training data.
        text: unit vectors of the vocabulary.
        config: the stage's settings.
        logit_scale: s of equation (1).
        seed: of all random numbers.
        device: where tensors live.

    Attributes:
        adapter: what is trained.
    """

    name = "specialise"
    title = "Specialising features"
    rate_key = "specialise.rate"
    curve_every = 5

    def __init__(
        self,
        rooms: Rooms,
        text: Float32[Array, "k d"],
        config: SpecialiseConfig,
        logit_scale: float,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        self.rooms, self.config, self.seed, self.device = rooms, config, seed, device
        self.steps, self.checkpoint_every = num_steps(config, len(rooms)), config.checkpoint_every
        self.made_from = hash_text(rooms.key(), config.model_dump_json(), str(seed))
        self.scale = logit_scale
        self.text = torch.from_numpy(np.ascontiguousarray(text)).to(device)
        self.weights: Tensor | None = None
        if config.balance:
            self.weights = torch.from_numpy(rooms.class_weights(len(text), config.balance)).to(device)
        self.adapter = Adapter(text.shape[1], config.residual, torch.Generator().manual_seed(seed)).to(device)

    def state(self) -> State:
        """The adapter."""
        return State({"network": self.adapter})

    def optimiser(self, step: int) -> torch.optim.Adam:
        """Adam over the adapter."""
        return adam([{"params": list(self.adapter.parameters()), "lr": self.config.rate}])

    def decay(self, step: int) -> float:
        """Decays every `decay_every` epochs."""
        epoch = step // steps_per_epoch(len(self.rooms), self.config.batch)
        return self.config.rate_decay ** (epoch // self.config.decay_every)

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, Values]:
        """Cross-entropy over points drawn from the step's scenes."""
        scenes = scenes_of_step(self.seed, self.name, step, len(self.rooms), self.config.batch)
        logits, labels = zip(*(self._answers(idx, generator) for idx in scenes), strict=True)
        return cross_entropy(self.scale * torch.cat(logits), torch.cat(labels), self.weights), {}

    def _answers(self, idx: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        room = self.rooms[idx]
        rows = np.flatnonzero(room.pseudo.labels != IGNORE)
        drawn = rows[torch.randint(len(rows), (min(self.config.points, len(rows)),), generator=generator).numpy()]
        code = torch.from_numpy(room.lifted.code[drawn].astype(np.float32)).to(self.device)
        labels = torch.from_numpy(room.pseudo.labels[drawn].astype(np.int64)).to(self.device)
        return self.adapter.logits(code, self._basis(room.lifted.basis), self.text), labels

    def _basis(self, basis: Float32[Array, "r d"] | None) -> Float[Tensor, "r d"]:
        if basis is None:
            return torch.eye(self.text.shape[1], device=self.device)
        return torch.from_numpy(np.ascontiguousarray(basis)).to(self.device)


def _uniform(shape: tuple[int, ...], num_inputs: int, generator: torch.Generator | None) -> Tensor:
    bound = 1 / math.sqrt(num_inputs)
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
