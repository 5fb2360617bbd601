"""Stage `guide`: the 3D network learns the specialised features (ESGS).

    loss = mean over voxels with a feature of 1 - cos(W z, A(x))                                               (1)

with z the U-Net's output for a voxel, W its head, and x the mean feature of the voxel's seen points. A is affine, so the mean
of A(x) is A of the mean, and with A(x) = (c, 1) N for codes c the cosine is computed without a row of the encoder's width:

    W z . A(x) = ((c, 1) (N W)) . z,    |W z|^2 = z . (W^t W) z,    |A(x)|^2 = (c, 1) (N N^t) (c, 1)^t          (2)

Wrong targets of single surfaces are outvoted by the labels of the same shapes and colours elsewhere, as long as the network
has not memorised the rooms.

Symbols: v voxels, r width of the codes, d of the encoder, z of the U-Net's last block.
Source: Xu et al. (3DSS-VLG), ECCV 2024, section 3.4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from ov3d.common.base.files import hash_text
from ov3d.common.base.shapes import Array, Float, Float32, Int32, Int64
from ov3d.common.learning.augment import augment_colours, augment_positions
from ov3d.common.learning.checkpoints import Checkpoint, adam, write_checkpoint
from ov3d.common.learning.trainer import Stage, State, Trainer, Values
from ov3d.common.scenes.scene import IGNORE
from ov3d.common.sparse.voxels import SparseTensor, average_by_voxel, voxelise
from ov3d.points.adapter import Affine
from ov3d.points.config import GuideConfig
from ov3d.points.material import Room, Rooms
from ov3d.points.network import PointNetwork, inputs
from ov3d.points.statistics import take_statistics
from ov3d.points.steps import num_steps, scenes_of_step, steps_per_epoch

BEST_NAME = "best.safetensors"
Score = Callable[[PointNetwork], float]
"""Rates a network on scenes that it is not trained on."""


class GuideStage(Stage):
    """Trains the network on the specialised features of all rooms.

    Args:
        network: freshly initialised.
        rooms: training data.
        affine: A of equation (1).
        text: unit vectors of the vocabulary.
        config: the stage's settings.
        seed: of all random numbers.
        score: rates a network on the validation scenes; needed to keep the best one.
    """

    name = "guide"
    title = "Training the 3D network"
    rate_key = "guide.rate"
    curve_every = 5

    def __init__(
        self,
        network: PointNetwork,
        rooms: Rooms,
        affine: Affine,
        text: Float32[Array, "k d"],
        config: GuideConfig,
        *,
        seed: int,
        score: Score | None = None,
    ) -> None:
        self.network, self.rooms, self.affine, self.config, self.score = network, rooms, affine, config, score
        self.seed, self.device = seed, network.device
        self.steps, self.checkpoint_every = num_steps(config, len(rooms)), config.checkpoint_every
        map_key = hash_text(affine.matrix.tobytes().hex(), affine.offset.tobytes().hex())
        self.made_from = hash_text(rooms.key(), map_key, config.model_dump_json(), str(seed))
        self.text = torch.from_numpy(np.ascontiguousarray(text)).to(self.device)
        if config.statistics == "scan":
            network.scene_voxels = usual_voxels(network, rooms)
        self.best = float("-inf")
        self._class_weights = self._weights_of_classes()

    def state(self) -> State:
        """The network, its shape, and the best score so far."""
        return State({"network": self.network}, {"network": self.network.spec.to_json(), "best": self.best.hex()})

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take the network and the best score from a checkpoint."""
        super().restore(checkpoint)
        self.best = float.fromhex(checkpoint.metadata["best"])

    def optimiser(self, step: int) -> torch.optim.Adam:
        """Adam over the network."""
        return adam([{"params": list(self.network.parameters()), "lr": self.config.rate}])

    def decay(self, step: int) -> float:
        """Falls to 0, as a power of the fraction of steps left."""
        return (1 - step / self.steps) ** self.config.power

    def after_step(self, trainer: Trainer) -> Values:
        """Score the validation scenes every `validate_every` epochs and at the end."""
        epochs, rest = divmod(trainer.step, steps_per_epoch(len(self.rooms), self.config.batch))
        due = trainer.done or (not rest and epochs % self.config.validate_every == 0)
        if self.score is None or not due:
            return {}
        value = self.score(self.network)
        self.network.train()
        if self.config.select == "best" and value > self.best:
            self.best = value
            meta = {"network": self.network.spec.to_json(), "step": trainer.step, "made_from": self.made_from}
            write_checkpoint(trainer.context.folder / BEST_NAME, {"network": self.network}, None, meta)
        return {"validation": value}

    def chosen(self, folder: Path) -> tuple[PointNetwork, int]:
        """The network to keep after training, and the step it is from.

        Args:
            folder: the trainer's.
        """
        if self.config.select == "best":
            checkpoint = Checkpoint(folder / BEST_NAME)
            checkpoint.load_module("network", self.network)
            return self.network, int(checkpoint.metadata["step"])
        settle(self.network, self.rooms, self.config.settle)
        return self.network, self.steps

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, Values]:
        """Equation (1) over the step's scenes as one batch."""
        clouds, colours, targets = [], [], []
        for idx in scenes_of_step(self.seed, self.name, step, len(self.rooms), self.config.batch):
            xyz, rgb, rows = self._seen(self.rooms[idx], generator)
            clouds.append(xyz)
            colours.append(rgb)
            targets.append((self.rooms[idx], rows))
        grid, voxel = voxelise(clouds, self.config.voxel_size)
        feats = average_by_voxel(torch.cat(colours), voxel, grid.num_voxels)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
            z = self.network(SparseTensor(grid, feats.bfloat16() if self.config.bf16 else feats)).float()
        total, weight = z.new_zeros(()), 0.0
        start = 0
        for (room, rows), cloud in zip(targets, clouds, strict=True):
            one, share = self._distance(z, voxel[start : start + len(cloud)], room, rows)
            total, weight, start = total + one, weight + share, start + len(cloud)
        return total / max(weight, 1e-9), {}

    def _seen(self, room: Room, generator: torch.Generator) -> tuple[Tensor, Tensor, Int64[Array, " m"]]:
        """A room's points as the step sees them, their inputs to the network, and their indices in the room."""
        config = self.config
        chosen = np.arange(len(room.xyz))
        if config.crop is not None:
            chosen = cropped(room.xyz, config.crop, middle_of_crop(room, config.focus, generator))
        xyz = torch.from_numpy(np.ascontiguousarray(room.xyz[chosen])).to(self.device)
        augment = config.augment
        moved = augment_positions(xyz, augment, generator)
        rgb = None
        if room.rgb is not None:
            colours = torch.from_numpy(np.ascontiguousarray(room.rgb[chosen])).to(self.device)
            rgb = augment_colours(colours, augment, generator)
        return moved, inputs(rgb, len(xyz), self.device), chosen

    def _weights_of_classes(self) -> Float32[Array, " _"]:
        """The weight of each pseudo label, 1 on average over points, and 1 for points without one."""
        num_classes = len(self.rooms[0].pseudo.vocabulary)
        if not self.config.balance:
            return np.ones(num_classes + 1, np.float32)
        return np.append(self.rooms.class_weights(num_classes, self.config.balance), np.float32(1))

    def _distance(
        self, z: Float[Tensor, "v z"], voxel: Tensor, room: Room, chosen: Int64[Array, " m"]
    ) -> tuple[Tensor, float]:
        """The sum over a room's voxels with a feature of 1 - cosine, and their weight."""
        row = room.rows[chosen]
        seen = np.flatnonzero(row >= 0)
        rows = row[seen]
        weights = confidence_of(room, rows, self.config) * self._class_weights[room.pseudo.labels[rows]]
        extended = np.empty((len(rows), room.lifted.code.shape[1] + 1), np.float32)
        np.multiply(room.lifted.code[rows], weights[:, None], out=extended[:, :-1])
        extended[:, -1] = weights
        code = torch.from_numpy(extended).to(self.device)
        cells, where = torch.unique(voxel[torch.from_numpy(seen).to(self.device)], return_inverse=True)
        sums = torch.zeros(len(cells), code.shape[1], device=self.device).index_add_(0, where, code)
        counts = torch.bincount(where, minlength=len(cells)).float()
        confidence = sums[:, -1] / counts  # the mean weight of the voxel's points
        matrix = torch.from_numpy(self.affine.on_codes(room.lifted.basis)).to(self.device)
        distance = 1 - cosines(z[cells], sums / counts[:, None], matrix, self.network.head)
        if self.config.label_weight:
            votes = self._votes(room.pseudo.labels[rows], where, len(cells))
            distance = distance + self.config.label_weight * self._label_loss(z[cells], votes)
        return (confidence * distance).sum(), float(confidence.sum())

    def _votes(self, labels: Int32[Array, " n"], where: Tensor, num_cells: int) -> Float[Tensor, "v k"]:
        """Share of each pseudo label among a voxel's labelled points; zeros if there are none."""
        known, num_classes = labels != IGNORE, len(self.text)
        picked = torch.from_numpy(labels[known].astype(np.int64)).to(self.device)
        place = where[torch.from_numpy(known).to(self.device)] * num_classes + picked
        votes = torch.bincount(place, minlength=num_cells * num_classes).view(num_cells, num_classes).float()
        return votes / votes.sum(dim=1, keepdim=True).clamp(min=1)

    def _label_loss(self, z: Float[Tensor, "v z"], votes: Float[Tensor, "v k"]) -> Float[Tensor, " v"]:
        """Cross-entropy of scaled cosines of W z with the text vectors to the votes."""
        head = self.network.head
        length = ((z @ (head.T @ head)) * z).sum(dim=1, keepdim=True).clamp(min=1e-12).sqrt()
        logits = self.network.card.logit_scale * (z @ (head.T @ self.text.T)) / length
        return -(votes * log_softmax(logits, dim=1)).sum(dim=1)


def confidence_of(
    room: Room, rows: Int64[Array, " m"] | Int32[Array, " m"], config: GuideConfig
) -> Float32[Array, " m"]:
    """Confidence in the features of some rows: high if several views see them and agree."""
    views = room.lifted.num_views[rows].astype(np.float32)
    confidence: Float32[Array, " m"] = (views / (views + 1)) ** np.float32(config.corroboration)
    return confidence * room.lifted.norms[rows] ** np.float32(config.agreement)


def cosines(
    z: Float[Tensor, "v z"], code: Float[Tensor, "v s"], matrix: Float[Tensor, "s d"], head: Float[Tensor, "d z"]
) -> Float[Tensor, " v"]:
    """cos(W z, (c, 1) N) by equation (2); `code` is (c, 1) or any multiple of it."""
    dot = ((code @ (matrix @ head)) * z).sum(dim=1)
    own = ((z @ (head.T @ head)) * z).sum(dim=1)
    other = ((code @ (matrix @ matrix.T)) * code).sum(dim=1)
    return dot / (own.clamp(min=1e-12) * other.clamp(min=1e-12)).sqrt()


def settle(network: PointNetwork, rooms: Rooms, most: int) -> None:
    """Recompute the normalisation statistics from whole rooms, as the network will see them, at most `most` of them.

    Running statistics average over the last few steps; if a step sees one corner of a room, they reflect only its walls or
    its chairs.
    """
    if most:
        take_statistics(network, (network.voxels(room.xyz, room.rgb)[0] for room in _some(rooms, most)))


def usual_voxels(network: PointNetwork, rooms: Rooms, most: int = 16) -> int:
    """Voxels per room, mean over at most `most` rooms."""
    counts = [network.voxels(room.xyz, None)[0].grid.num_voxels for room in _some(rooms, most)]
    return round(sum(counts) / len(counts))


def _some(rooms: Rooms, most: int) -> Iterator[Room]:
    """At most `most` rooms, evenly spread."""
    for idx in np.unique(np.linspace(0, len(rooms) - 1, min(most, len(rooms))).round().astype(int)).tolist():
        yield rooms[idx]


def middle_of_crop(room: Room, focus: float, generator: torch.Generator) -> int:
    """A point to crop around.

    Args:
        room: with pseudo labels.
        focus: probability of a point of a class drawn uniformly from the room's instead of any point, so that small things are
            seen more often, however good their labels are.
        generator: source of all random choices.
    """
    labels = room.pseudo.labels
    classes = np.unique(labels[labels != IGNORE])
    if len(classes) and float(torch.rand((), generator=generator)) < focus:
        rows = np.flatnonzero(labels == classes[_drawn(len(classes), generator)])
        return int(room.lifted.point_row[rows[_drawn(len(rows), generator)]])
    return _drawn(len(room.xyz), generator)


def cropped(xyz: Float32[Array, "n 3"], side: float, middle: int) -> Int64[Array, " m"]:
    """The points of a square column with that side around a point; never empty."""
    return np.flatnonzero((np.abs(xyz[:, :2] - xyz[middle, :2]) <= side / 2).all(axis=1))


def _drawn(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (1,), generator=generator))
