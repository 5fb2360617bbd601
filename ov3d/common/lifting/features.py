"""Lifted features as a value and a file: the training data of points and LiDAR, which no longer need image features.

Only seen points have rows; each is a unit feature, or its code in a basis stored in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.files import hash_text
from ov3d.common.base.shapes import Array, Float, Float16, Float32, Int32, Int64
from ov3d.common.base.tensor_files import read_header, read_tensors, write_tensors
from ov3d.common.lifting.basis import Coder

KIND = "lifted-features"
VERSION = 2
SOURCE_KEY = "source_key"
"""The key of the fact that identifies the features regardless of their coding, from `lifted_key`."""

BASIS_KEY = "basis_key"
"""The key of the fact that identifies the shared basis of codes."""

BLOCK_ROWS = 1 << 12


@dataclass(frozen=True, slots=True, eq=False)
class LiftedFeatures:
    """Features of the points that some frame sees.

    Attributes:
        code: unit features, or their coordinates in `basis`.
        point_row: the point of each row, ascending.
        norms: length of the mean before normalising, in [0, 1]: a confidence, 1 if all views agree.
        num_views: number of frames that saw the point.
        num_points: size of the cloud.
        key: identifies cloud, features and settings; equal keys mean equal numbers.
        basis: rows of a low-rank basis, or None if the code is the feature.
        facts: other information (encoder, frames).
    """

    code: Float16[Array, "v r"]
    point_row: Int32[Array, " v"]
    norms: Float32[Array, " v"]
    num_views: Int32[Array, " v"]
    num_points: int
    key: str
    basis: Float32[Array, "r d"] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {len(self.code), len(self.point_row), len(self.norms), len(self.num_views)}
        if len(lengths) != 1 or (self.basis is not None and self.code.shape[1] != len(self.basis)):
            raise DataError(f"Lifted features with codes {self.code.shape} and {sorted(lengths)} rows do not fit.")

    def __len__(self) -> int:
        return len(self.point_row)

    @property
    def dim(self) -> int:
        """Width of the features."""
        return self.code.shape[1] if self.basis is None else self.basis.shape[1]

    @property
    def share_seen(self) -> float:
        """Share of the cloud's points that have a feature."""
        return len(self) / max(self.num_points, 1)

    def row_of_point(self) -> Int32[Array, " n"]:
        """The row of each point of the cloud, -1 where no frame saw it."""
        rows = np.full(self.num_points, -1, np.int32)
        rows[self.point_row] = np.arange(len(self), dtype=np.int32)
        return rows

    def features(self, rows: slice | Int64[Array, " m"] | None = None) -> Float32[Array, "m d"]:
        """Unit features of some rows, or of all."""
        code = (self.code if rows is None else self.code[rows]).astype(np.float32)
        return code if self.basis is None else code @ self.basis

    def scores(self, text: Float[Array, "k d"], *, block_rows: int = 1 << 14) -> Float32[Array, "v k"]:
        """Raw cosine of every row with unit text vectors."""
        queries = np.asarray(text, np.float32).T
        scores = np.empty((len(self), queries.shape[1]), np.float32)
        for start in range(0, len(self), block_rows):
            rows = slice(start, start + block_rows)
            scores[rows] = self.features(rows) @ queries
        return scores


def encoded(lifted: LiftedFeatures, coder: Coder | None) -> LiftedFeatures:
    """Full-rank features as codes, as `lift` with that coder computes them; for features already in memory."""
    if coder is None:
        return lifted
    code = np.empty((len(lifted), len(coder.basis)), np.float16)
    for start in range(0, len(lifted), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        code[rows] = coder.encode(lifted.features(rows))
    key, facts = named(lifted.key, coder, None)
    return replace(lifted, code=code, basis=coder.basis, key=key, facts={**lifted.facts, **facts})


def thinned(lifted: LiftedFeatures, sample_rows: int) -> LiftedFeatures:
    """An even sample of the rows, as `lift` with `sample_rows` computes it; for features already in memory."""
    rows = even_rows(np.arange(len(lifted)), sample_rows)
    key, facts = named(lifted.key, None, sample_rows)
    return replace(
        lifted,
        code=lifted.code[rows],
        point_row=lifted.point_row[rows],
        norms=lifted.norms[rows],
        num_views=lifted.num_views[rows],
        key=key,
        facts={**lifted.facts, **facts},
    )


def even_rows(values: Array, most: int) -> Array:
    """An even sample of at most that many of them."""
    return values[:: max(-(-len(values) // most), 1)]


def named(source_key: str, coder: Coder | None, sample_rows: int | None) -> tuple[str, dict[str, Any]]:
    """The key of features derived from those of `source_key`, and the facts stored with them."""
    parts = [*(() if coder is None else (coder.key,)), *(() if sample_rows is None else (f"sample {sample_rows}",))]
    facts: dict[str, Any] = {SOURCE_KEY: source_key} | (
        {} if coder is None else {BASIS_KEY: coder.shared_key, "basis": coder.facts}
    )
    return hash_text(source_key, *parts) if parts else source_key, facts


def write_lifted(path: str | Path, lifted: LiftedFeatures) -> Path:
    """Write lifted features; see docs/formats.md for the layout."""
    tensors: dict[str, Array] = {"code": lifted.code, "norms": lifted.norms, "num_views": lifted.num_views}
    if lifted.num_views.max(initial=0) <= np.iinfo(np.uint16).max:
        tensors["num_views"] = lifted.num_views.astype(np.uint16)
    if 32 * len(lifted) > lifted.num_points:  # one bit per point is less than one index per row
        seen = np.zeros(lifted.num_points, np.bool_)
        seen[lifted.point_row] = True
        tensors["seen"] = np.packbits(seen)
    else:
        tensors["point_row"] = lifted.point_row
    if lifted.basis is not None:
        tensors["basis"] = lifted.basis
    metadata = {"num_points": lifted.num_points, "key": lifted.key, "facts": dict(lifted.facts)}
    return write_tensors(path, tensors, kind=KIND, version=VERSION, metadata=metadata)


def lifted_facts(path: str | Path) -> Mapping[str, Any] | None:
    """The facts of a file of lifted features, from its header only; None if the file is missing or damaged."""
    header = read_header(path, kind=KIND, version=VERSION)
    return None if header is None else header["facts"]


def read_lifted(path: str | Path) -> LiftedFeatures:
    """Read and verify lifted features; raises as `tensor_files.read_tensors` does."""
    file = read_tensors(path, kind=KIND, version=VERSION)
    tensors, meta = file.tensors, file.metadata
    if "seen" in tensors:
        point_row = np.flatnonzero(np.unpackbits(tensors["seen"], count=meta["num_points"])).astype(np.int32)
    else:
        point_row = tensors["point_row"]
    return LiftedFeatures(
        tensors["code"],
        point_row,
        tensors["norms"],
        tensors["num_views"].astype(np.int32),
        meta["num_points"],
        meta["key"],
        tensors.get("basis"),
        meta["facts"],
    )
