"""What the learning stages read of a scene: points, lifted features, pseudo labels, from its folder in the run.

This includes neither photographs nor true labels. Scenes are read when a step asks for them, and kept as long as they fit
into memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ov3d.common.asking.index import INDEX_NAME, read_index
from ov3d.common.base.files import hash_text
from ov3d.common.base.shapes import Array, Float32, Int32, UInt8
from ov3d.common.learning.run_lifting import LIFTED_NAME
from ov3d.common.learning.scene_cache import CACHE_BYTES, SceneCache
from ov3d.common.lifting.lift import LiftedFeatures, read_lifted
from ov3d.common.scenes.scene import IGNORE
from ov3d.common.scenes.upright import upright
from ov3d.points.pseudo_labels import PSEUDO_NAME, PseudoLabels, read_pseudo_labels

POOLED_NAME = "pooled.safetensors"
"""Lifted features as means over superpoints, stored beside the lifted ones if the run uses superpoints."""


@dataclass(frozen=True, slots=True, eq=False)
class Room:
    """A scene as the stages see it.

    Attributes:
        name: the scene's.
        xyz: positions, z upwards.
        rgb: colours, or None.
        lifted: codes of the points that some frame sees.
        rows: the row of `lifted` of each point, -1 for points without one.
        pseudo: a class for each row of `lifted`.
    """

    name: str
    xyz: Float32[Array, "n 3"]
    rgb: UInt8[Array, "n 3"] | None
    lifted: LiftedFeatures
    rows: Int32[Array, " n"]
    pseudo: PseudoLabels

    @property
    def num_bytes(self) -> int:
        """Approximate memory use in bytes."""
        lifted = self.lifted
        arrays = (self.xyz, self.rgb, self.rows, lifted.code, lifted.point_row, lifted.norms, lifted.num_views)
        return sum(array.nbytes for array in arrays if array is not None)


class Rooms:
    """The training scenes of a run, by number.

    Args:
        folders: of the scenes in the run.
        cache_bytes: maximum kept in memory.
    """

    def __init__(self, folders: Sequence[Path], *, cache_bytes: int = CACHE_BYTES) -> None:
        self._folders = tuple(folders)
        self._rooms = SceneCache(lambda idx: read_room(self._folders[idx]), max_bytes=cache_bytes)

    def __len__(self) -> int:
        return len(self._folders)

    def __getitem__(self, idx: int) -> Room:
        return self._rooms[idx]

    def class_weights(self, num_classes: int, power: float) -> Float32[Array, " k"]:
        """Weight of each pseudo label: (its frequency among labelled points of all rooms)^-power, 1 on average over points.
        A class without points counts as having one."""
        counts = np.ones(num_classes)
        for folder in self._folders:
            labels = read_pseudo_labels(folder / PSEUDO_NAME).labels
            counts += np.bincount(labels[labels != IGNORE], minlength=num_classes)
        shares = counts / counts.sum()
        weights = shares**-power
        return (weights / (weights * shares).sum()).astype(np.float32)

    def key(self) -> str:
        """Hash of everything that the stages learn from."""
        return hash_text("rooms-1", *(self[idx].pseudo.key for idx in range(len(self))))


def read_room(folder: Path) -> Room:
    """Read a scene's files; raises as `tensor_files.read_tensors` does."""
    index = read_index(folder / INDEX_NAME)
    lifted = read_features(folder)
    xyz = upright(index.xyz, index.world.up)
    return Room(index.scene, xyz, index.rgb, lifted, lifted.row_of_point(), read_pseudo_labels(folder / PSEUDO_NAME))


def read_features(folder: Path) -> LiftedFeatures:
    """The features that the stages learn from: pooled over superpoints if available, else as lifted."""
    path = folder / POOLED_NAME
    return read_lifted(path if path.is_file() else folder / LIFTED_NAME)
