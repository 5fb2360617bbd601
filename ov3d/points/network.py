"""The 3D network: points and their colours into vectors of the image-text space, without photographs.

A sparse U-Net of MinkUNet18A's shape on voxels, whose head gives as many numbers as the encoder has. Its input is the colour
in [-1, 1] and a constant; all points of a voxel get the voxel's vector. With z the output of the U-Net's last block for a
voxel and W the head, that vector is

    f = W z / |W z|                                                                                            (1)

and with W = Q R (Q orthonormal [d, r], R upper triangular), r numbers suffice, exact up to rounding:

    f = Q c,    c = R z / |R z|,    f . t = c . (Q^t t)                                                         (2)

Sources: Xu et al., *3D Weakly Supervised Semantic Segmentation with 2D Vision-Language Guidance* (3DSS-VLG), ECCV 2024,
section 3.4; Choy et al. 2019 (arXiv 1904.08755).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.shapes import Array, Float, Float32, Int64, UInt8
from ov3d.common.language.cards import EncoderCard
from ov3d.common.learning.augment import Turn
from ov3d.common.learning.checkpoints import Checkpoint
from ov3d.common.sparse.unet import Level, UNet, UNetSpec
from ov3d.common.sparse.voxels import SparseTensor, average_by_voxel, voxelise
from ov3d.points.config import GuideConfig
from ov3d.points.statistics import own_statistics

GUIDE_FOLDER = "guide"
CHECKPOINT_NAME = "checkpoint.safetensors"
INPUT_DIM = 4
"""Red, green and blue in [-1, 1], and 1; a cloud without colours is grey: zeros."""

ROOM_VOXELS = 16_000
"""Voxels of 8 cm of a generated room: the default if the size of the training scenes is unknown."""


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """What decides a network's shape.

    Attributes:
        dim: width of its vectors, the encoder's.
        voxel_size: scene units.
        stem_dim, stem_size, down, up, blocks: as in `GuideConfig`.
        turn: angles about the vertical used in training, and so usable for prediction.
        statistics: statistics used for prediction, as in `GuideConfig`.
    """

    dim: int
    voxel_size: float
    stem_dim: int
    stem_size: int
    down: tuple[int, ...]
    up: tuple[int, ...]
    blocks: int
    turn: Turn = "any"
    statistics: Literal["scan", "training"] = "training"

    @classmethod
    def of(cls, config: GuideConfig, dim: int) -> NetworkSpec:
        """The shape of the network of a configuration."""
        return cls(
            dim,
            config.voxel_size,
            config.stem_dim,
            config.stem_size,
            tuple(config.down),
            tuple(config.up),
            config.blocks,
            config.augment.turn,
            config.statistics,
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form, read back by `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> NetworkSpec:
        """The spec that `to_json` wrote."""
        return cls(**{**data, "down": tuple(data["down"]), "up": tuple(data["up"])})

    def unet(self) -> UNetSpec:
        """The U-Net's levels."""
        levels = tuple(Level(down, up) for down, up in zip(self.down, self.up, strict=True))
        return UNetSpec(
            INPUT_DIM, self.dim, stem_dim=self.stem_dim, levels=levels, stem_size=self.stem_size, num_blocks=self.blocks
        )


class PointNetwork(nn.Module):
    """A network that gives every point a vector.

    Args:
        spec: its shape.
        card: the encoder whose space its vectors are in, with a threshold that fits them.
        vocabulary: the classes it was trained with.
        scene_voxels: voxels of a scene that it was trained with.

    Attributes:
        spec, card, vocabulary, scene_voxels: as given.
    """

    def __init__(
        self, spec: NetworkSpec, card: EncoderCard, vocabulary: tuple[str, ...] = (), *, scene_voxels: int = ROOM_VOXELS
    ) -> None:
        super().__init__()
        self.spec, self.card, self.vocabulary, self.scene_voxels = spec, card, vocabulary, scene_voxels
        self.unet = UNet(spec.unet())

    @property
    def voxel_size(self) -> float:
        """Side of its voxels, scene units."""
        return self.spec.voxel_size

    @property
    def threshold(self) -> float:
        """Raw cosine from which a class counts as present."""
        return self.card.presence_threshold

    @property
    def device(self) -> torch.device:
        """Where its weights live."""
        return next(self.parameters()).device

    def forward(self, x: SparseTensor) -> Float[Tensor, "v z"]:
        """z of equation (1) for voxels."""
        return self.unet.body(x).feats

    @property
    def head(self) -> Float[Tensor, "d z"]:
        """W of equation (1)."""
        return self.unet.head.weight

    def factors(self) -> tuple[Float[Tensor, "d r"], Float[Tensor, "r z"]]:
        """Q and R of equation (2); signs are fixed, so that files do not depend on the library."""
        q, r = torch.linalg.qr(self.head.detach().cpu().double())
        signs = torch.where(torch.diagonal(r) < 0, -1.0, 1.0).double()
        return q * signs, r * signs[:, None]

    @property
    def basis(self) -> Float32[Array, "r d"]:
        """Orthonormal rows in which `codes` are coordinates: Q^t."""
        return np.ascontiguousarray(self.factors()[0].float().numpy().T)

    @torch.no_grad()
    def codes(
        self, xyz: Float32[Array, "n 3"], rgb: UInt8[Array, "n 3"] | None
    ) -> tuple[Float32[Array, "v r"], Int64[Array, " n"]]:
        """Unit codes of the voxels that points fall into, in evaluation mode, and the voxel of each point.

        A score is code . (basis @ text): equation (2). One pass over the whole cloud; for large ones, see tiles.

        Args:
            xyz: positions, scene units.
            rgb: colours, or None.

        Raises:
            DataError: the cloud is empty, or a point is not finite.
        """
        x, inverse = self.voxels(xyz, rgb)
        triangle = self.factors()[1].float().to(self.device)
        with self.ready_for(x.grid.num_voxels):
            return normalize(self(x).float() @ triangle.T, dim=1).cpu().numpy(), inverse.cpu().numpy()

    def ready_for(self, num_voxels: int) -> AbstractContextManager[None]:
        """Context in which the network is in evaluation mode and normalises as needed for a scan of this many voxels."""
        self.eval()
        own = self.spec.statistics == "scan"
        return own_statistics(self, num_voxels, self.scene_voxels) if own else nullcontext()

    def voxels(
        self, xyz: Float32[Array, "n 3"], rgb: UInt8[Array, "n 3"] | None
    ) -> tuple[SparseTensor, Int64[Tensor, " n"]]:
        """The network's input for a cloud, and the voxel of each point; raises as `codes` does."""
        if not len(xyz):
            raise DataError("The cloud has no points to embed.", "Give a cloud with points.")
        points = torch.from_numpy(np.ascontiguousarray(xyz)).to(self.device)
        # Many scans have their floor at z = 0: exactly on a voxel border, noise would scatter it over two layers.
        grid, inverse = voxelise(points + self.voxel_size / 2, self.voxel_size)
        colours = None if rgb is None else torch.from_numpy(np.ascontiguousarray(rgb)).to(self.device)
        values = average_by_voxel(inputs(colours, len(points), self.device), inverse, grid.num_voxels)
        return SparseTensor(grid, values), inverse

    def embed(self, xyz: Float32[Array, "n 3"], rgb: UInt8[Array, "n 3"] | None) -> Float32[Array, "n d"]:
        """Unit vectors of points, in evaluation mode; `codes` gives the same in less memory.

        Args:
            xyz: positions, scene units, z upwards.
            rgb: colours, or None.
        """
        codes, voxel = self.codes(xyz, rgb)
        return codes[voxel] @ self.basis


def inputs(colours: Tensor | None, num_points: int, device: torch.device) -> Float[Tensor, "n 4"]:
    """The network's input per point; `colours` are UInt8 [n, 3], or Float in [-1, 1] that were augmented."""
    values = torch.zeros(num_points, INPUT_DIM, device=device)
    values[:, 3] = 1
    if colours is not None:
        values[:, :3] = colours if colours.is_floating_point() else colours.float() * (2 / 255) - 1
    return values


def load_network(run_path: Path, device: torch.device) -> PointNetwork:
    """The network of a run's guide stage, in evaluation mode.

    Raises:
        UsageError: the run has no network, or its training was not finished.
        CorruptFileError: its file is damaged.
    """
    path = run_path / GUIDE_FOLDER / CHECKPOINT_NAME
    if not path.is_file():
        raise UsageError(
            f"Run {run_path} has no 3D network (looked for {path.name} of stage guide).",
            "Train one: ov3d train points SCENES --preset cpu",
        )
    checkpoint = Checkpoint(path)
    meta = checkpoint.metadata
    if "card" not in meta:
        raise UsageError(
            f"The network of run {run_path} has not finished training.", "Resume it: ov3d train --resume RUN"
        )
    card = EncoderCard.from_json(meta["card"])
    spec, vocabulary = NetworkSpec.from_json(meta["network"]), tuple(meta["vocabulary"])
    network = PointNetwork(spec, card, vocabulary, scene_voxels=int(meta.get("scene_voxels", ROOM_VOXELS)))
    checkpoint.load_module("network", network)
    return network.to(device).eval()
