"""LanguageIndex: the points of a scene with language codes, in one safetensors file that can be queried with only NumPy.

Symbols: n points, m codes, r rank of the basis, d width of the encoder. A point's feature is f = c B with its code c [r] and
the basis B [r, d]; its score for a unit text vector t is f . t = c . (B t), so a query costs m r products instead of n d.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ov3d.common.asking.prediction import Prediction
from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Bool, Float, Float16, Float32, Int32, UInt8
from ov3d.common.base.tensor_files import read_tensors, write_tensors
from ov3d.common.language.cards import EncoderCard
from ov3d.common.scenes.scene import PointCloud, Scene, World

if TYPE_CHECKING:
    from ov3d.common.lifting.features import LiftedFeatures

KIND = "language-index"
VERSION = 1
SPACING_FACT = "point_spacing"
"""The key of the fact that holds the median distance between neighbouring points, scene units."""
INDEX_NAME = "index.safetensors"
"""The default file name of a scene's index in a run; stages may use other names."""
SCORE_BLOCK_ROWS = 1 << 10
"""Rows of codes converted to fp32 at a time, so that a block stays in the processor's cache."""


@dataclass(frozen=True, slots=True, eq=False)
class LanguageIndex:
    """Points with language codes.

    Attributes:
        xyz: positions relative to the world's origin.
        code: one row per code.
        basis: rows of the low-rank basis; features are `code @ basis`.
        owner: the code of each point, -1 for a point without a feature; None if point i has code i.
        rgb: colours, or None.
        instance: the object of each point, -1 for points without one (stuff, or not segmented); None if no objects are stored.
            Points with the same id are reported as one object; see `ov3d.common.asking.ask`.
        scene: the scene's name.
        scene_path: where the scene was read from.
        world: units, up, origin.
        backend: what made it, for example `points/fuse`.
        encoder: the image-text encoder it was made with.
        vocabulary: class names it was trained with; empty if it was not trained with particular classes.
        facts: other information from the backend (point spacing, teacher, score error of the basis).
    """

    xyz: Float32[Array, "n 3"]
    code: Float16[Array, "m r"]
    basis: Float32[Array, "r d"]
    owner: Int32[Array, " n"] | None
    scene: str
    scene_path: str
    world: World
    backend: str
    encoder: EncoderCard
    rgb: UInt8[Array, "n 3"] | None = None
    instance: Int32[Array, " n"] | None = None
    vocabulary: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        num_points, num_codes = len(self.xyz), len(self.code)
        if self.owner is None and num_codes != num_points:
            raise DataError(f"An index of {num_points} points has {num_codes} codes and no owners.")
        if self.code.shape[1] != len(self.basis) or self.basis.shape[1] != self.encoder.dim:
            raise DataError(
                f"Codes {self.code.shape}, basis {self.basis.shape} and encoder width {self.encoder.dim} do not fit."
            )
        for name in ("owner", "rgb", "instance"):
            values = getattr(self, name)
            if values is not None and len(values) != num_points:
                raise DataError(f"An index of {num_points} points has {len(values)} values of {name}.")

    @classmethod
    def of_lifted(
        cls,
        lifted: LiftedFeatures,
        scene: Scene,
        card: EncoderCard,
        *,
        backend: str,
        vocabulary: tuple[str, ...] = (),
        facts: Mapping[str, Any] | None = None,
        probes: Float32[Array, "k d"] | None = None,
        tolerance: float = 1e-3,
    ) -> LanguageIndex:
        """An index in which every point has its own lifted feature.

        Args:
            lifted: features of the scene's points, of any length; a point's score is the dot product with its feature.
            scene: with the cloud that was lifted onto.
            card: of the encoder, with the presence threshold that fits the scores.
            backend: what made the features, for example `points/fuse`.
            vocabulary: class names that they were trained with.
            facts: other information; the point spacing is added if missing.
            probes: unit text vectors whose scores a smaller basis must preserve; None keeps the codes as they are.
            tolerance: largest change of a score due to this basis. The measured error is added to the facts.

        Raises:
            DataError: the scene has no cloud, or the features belong to another one.
        """
        cloud = scene.cloud
        if cloud is None or len(cloud) != lifted.num_points:
            raise DataError(f"Features of {lifted.num_points} points do not fit the cloud of {scene.name}.")
        code, basis, stated = lifted.code, lifted.basis, dict(facts or {})
        if SPACING_FACT not in stated:
            from ov3d.common.lifting.projection import median_spacing

            stated[SPACING_FACT] = median_spacing(cloud.xyz)
        if probes is not None:
            from ov3d.common.lifting.lowrank import compress

            low = compress(code, probes if basis is None else probes @ basis.T, tolerance=tolerance)
            code, basis = low.code, low.basis if basis is None else low.basis @ basis
            stated |= {"basis_energy": low.energy_kept, "basis_score_error": low.max_error}
        return cls(
            xyz=cloud.xyz,
            code=code,
            basis=np.eye(lifted.dim, dtype=np.float32) if basis is None else basis,
            owner=lifted.row_of_point() if len(lifted) < len(cloud) else None,
            scene=scene.name,
            scene_path=str(scene.path.resolve()),
            world=scene.world,
            backend=backend,
            encoder=card,
            rgb=cloud.rgb,
            vocabulary=vocabulary,
            facts=stated,
        )

    def to_scene(self) -> Scene:
        """The scene as stored in the index: points and colours, no frames."""
        cloud = PointCloud(self.xyz, self.rgb)
        return Scene(self.scene, Path(self.scene_path), KIND, cloud=cloud, world=self.world)

    def __len__(self) -> int:
        return len(self.xyz)

    @property
    def seen(self) -> Bool[Array, " n"]:
        """Whether a point has a code."""
        return np.ones(len(self), bool) if self.owner is None else self.owner >= 0

    def scores(self, text: Float[Array, "k d"]) -> Float32[Array, "n k"]:
        """Raw cosine of every point for unit text vectors; 0 for points without a feature."""
        queries = (self.basis @ np.asarray(text, dtype=np.float32).T).astype(np.float32)
        by_code = np.empty((len(self.code), queries.shape[1]), np.float32)
        for start in range(0, len(self.code), SCORE_BLOCK_ROWS):
            rows = slice(start, start + SCORE_BLOCK_ROWS)
            np.matmul(half_to_single(self.code[rows]), queries, out=by_code[rows])
        if self.owner is None:
            return by_code
        scores = np.zeros((len(self), queries.shape[1]), np.float32)
        seen = self.owner >= 0
        scores[seen] = by_code[self.owner[seen]]
        return scores

    def predict(self, prompts: tuple[str, ...], text: Float[Array, "k d"]) -> Prediction:
        """Scores for prompts and their unit text vectors."""
        return Prediction(prompts, self.scores(text), self.seen)


def half_to_single(values: Float16[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """Finite fp16 values as fp32, bit for bit what `astype` gives, several times faster: NumPy converts halves one by one.

    Sign, exponent and fraction are moved to their fp32 positions; the exponent's bias is then 15 instead of 127, which a
    factor of 2^112 corrects exactly, also for subnormal values (Giesen, *Half to float done quick*, 2012).
    """
    bits = np.ascontiguousarray(values).view(np.int16).astype(np.int32)
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, np.int32(~0x70001FFF), out=bits)  # clear the sign-extended upper bits
    single = bits.view(np.float32)
    np.multiply(single, np.float32(2.0**112), out=single)
    return single


def write_index(path: str | Path, index: LanguageIndex) -> Path:
    """Write an index; see docs/formats.md for the layout."""
    tensors = {"xyz": index.xyz, "code": index.code, "basis": index.basis}
    for name in ("owner", "rgb", "instance"):
        values = getattr(index, name)
        if values is not None:
            tensors[name] = values
    metadata = {
        "scene": index.scene,
        "scene_path": index.scene_path,
        "world": {"units": index.world.units, "up": list(index.world.up), "origin": list(index.world.origin)},
        "backend": index.backend,
        "encoder": index.encoder.to_json(),
        "vocabulary": list(index.vocabulary),
        "facts": dict(index.facts),
    }
    return write_tensors(path, tensors, kind=KIND, version=VERSION, metadata=metadata)


def read_index(path: str | Path) -> LanguageIndex:
    """Read and verify an index; raises as `tensor_files.read_tensors` does."""
    file = read_tensors(path, kind=KIND, version=VERSION)
    meta, tensors = file.metadata, file.tensors
    world = World(meta["world"]["units"], tuple(meta["world"]["up"]), tuple(meta["world"]["origin"]))
    return LanguageIndex(
        xyz=tensors["xyz"],
        code=tensors["code"],
        basis=tensors["basis"],
        owner=tensors.get("owner"),
        rgb=tensors.get("rgb"),
        instance=tensors.get("instance"),
        scene=meta["scene"],
        scene_path=meta["scene_path"],
        world=world,
        backend=meta["backend"],
        encoder=EncoderCard.from_json(meta["encoder"]),
        vocabulary=tuple(meta["vocabulary"]),
        facts=meta["facts"],
    )
