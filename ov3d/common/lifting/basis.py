"""A basis for lifted features that the scenes of a data set share, and that also works for new scenes.

A basis of a few scenes loses features that occur only in other scenes. So a scene's basis has two parts: rows shared by the
data set, in which codes of all scenes can be compared, and as many rows of its own as it takes to keep the stated share of
its energy. The share kept is therefore known for every scene, old or new.

Which directions come first is decided where it matters, in answers to text. With texts T [k, d] of unit rows and weight g, the
metric is W = I + g (d / k) T'T: a change of all scores together weighs g times as much as a change of the feature itself.
Their number is chosen by the plain energy kept, 1 - |f - f'|^2 / |f|^2 over all rows: the loss is about twice 1 - cosine.

Symbols: S = W^(1/2), symmetric; x = S f; rows of V [r, d] are leading right singular vectors of all x (shared), then of what
they leave of the scene's own x. A code is c = V S f, and f ~ c (V S^-1): the nearest point of the span in the metric W.
Only second moments [d, d] are summed, over an even sample of each scene's rows, so a data set is never held in memory.

Source: Eckart & Young, Psychometrika 1936, in a weighted norm.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from ov3d.common.base.config import Config
from ov3d.common.base.errors import DataError
from ov3d.common.base.files import hash_text
from ov3d.common.base.shapes import Array, Float, Float32, Float64
from ov3d.common.base.tensor_files import read_tensors, write_tensors

KIND = "lifted-basis"
VERSION = 1

RANK_STEP = 8
SMALL_DIM = 64
"""Features this narrow or narrower are kept as they are."""
WORTHWHILE = 0.5
"""A basis of more than this share of the width is not worth its loss: features are then kept as they are."""


class BasisConfig(Config):
    """How lifted features are compressed."""

    energy: float = Field(default=0.9995, gt=0, le=1)
    """Share of every scene's squared feature lengths that its codes keep; 1 keeps full rank."""
    shared_energy: float = Field(default=0.96, gt=0, le=1)
    """Share of energy that the shared rows keep over all scenes of the data set; a scene's own rows add the rest."""
    text_weight: float = Field(default=1.5, ge=0)
    """Weight of changes of scores relative to changes of features."""
    sample_rows: int = Field(default=16384, ge=64)
    """Rows sampled per scene to choose a basis."""


@dataclass(frozen=True, slots=True, eq=False)
class TextMetric:
    """The metric W = I + U diag(stretch^2 - 1) U'.

    Attributes:
        directions: rows of U', orthonormal.
        stretch: factor by which S stretches each of them, at least 1.
    """

    directions: Float64[Array, "m d"]
    stretch: Float64[Array, " m"]

    @classmethod
    def of(cls, texts: Float[Array, "k d"], weight: float) -> TextMetric:
        """The metric of unit text vectors; the plain metric without vectors or weight."""
        count, dim = texts.shape
        if not count or not weight:
            return cls(np.zeros((0, dim)), np.zeros(0))
        _, lengths, directions = np.linalg.svd(texts.astype(np.float64), full_matrices=False)
        kept = lengths > 1e-6 * lengths[0]
        return cls(directions[kept], np.sqrt(1 + weight * dim / count * lengths[kept] ** 2))

    def apply(self, rows: Float[Array, "n d"]) -> Float64[Array, "n d"]:
        """Map rows f to S f."""
        return rows + ((rows @ self.directions.T) * (self.stretch - 1)) @ self.directions

    def undo(self, rows: Float[Array, "n d"]) -> Float64[Array, "n d"]:
        """Map rows S f to f."""
        return rows + ((rows @ self.directions.T) * (1 / self.stretch - 1)) @ self.directions


@dataclass(frozen=True, slots=True, eq=False)
class Coder:
    """Converts features to codes and, by `codes @ basis`, back.

    Attributes:
        encoder: a code is `encoder @ feature`.
        basis: a feature is approximately `code @ basis`.
        num_shared: the first `num_shared` numbers mean the same in every scene of the data set.
        energy_kept: share of the scene's energy in the metric.
        mean_cosine: mean cosine of the scene's sampled features with their reconstructions.
        key: identifies its numbers.
        shared_key: identifies the shared basis.
    """

    encoder: Float32[Array, "r d"]
    basis: Float32[Array, "r d"]
    num_shared: int
    energy_kept: float
    mean_cosine: float
    key: str
    shared_key: str

    def encode(self, features: Float32[Array, "n d"]) -> Float32[Array, "n r"]:
        """Codes of features."""
        codes: Float32[Array, "n r"] = features @ self.encoder.T
        return codes

    @property
    def facts(self) -> dict[str, Any]:
        """The facts about the basis stored with codes."""
        return {
            "rank": len(self.basis),
            "rank_shared": self.num_shared,
            "energy_kept": round(self.energy_kept, 6),
            "mean_cosine": round(self.mean_cosine, 6),
        }


@dataclass(frozen=True, slots=True, eq=False)
class SharedBasis:
    """The shared part of the scenes' bases.

    Attributes:
        rows: V, orthonormal; empty if full rank is kept.
        texts: unit text vectors that the metric weighs.
        config: the settings it was chosen with.
        made_from: keys of the scenes it was made from, in order.
        energy_kept: share of those scenes' energy that the rows keep.
    """

    rows: Float32[Array, "s d"]
    texts: Float32[Array, "k d"]
    config: BasisConfig
    made_from: tuple[str, ...]
    energy_kept: float
    _metric: TextMetric = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_metric", TextMetric.of(self.texts, self.config.text_weight))

    @property
    def key(self) -> str:
        """Identifies its numbers."""
        return hash_text(
            KIND, str(VERSION), self.rows.tobytes().hex(), self.texts.tobytes().hex(), self.config.model_dump_json()
        )

    def coder(self, sample: Float32[Array, "n d"]) -> Coder | None:
        """The coder of one scene, from a sample of its features; None if full rank is kept.

        The shared rows come first. If they keep too little of the sample, its own leading directions follow.
        """
        dim = self.texts.shape[1]
        if not len(self.rows) or not len(sample):
            return None
        moments = (sample.T @ sample).astype(np.float64)
        rows = self.rows.astype(np.float64)
        kept = _kept(moments, rows, self._metric)
        if kept[-1] < self.config.energy:
            free = np.eye(dim) - rows.T @ rows
            moved = free @ self._metric.apply(self._metric.apply(moments).T) @ free
            rows = np.concatenate([rows, _leading(moved)[: int(WORTHWHILE * dim)]])
            kept = _kept(moments, rows, self._metric)
        rank = _first_rank(kept, self.config.energy, len(self.rows))
        if rank is None or rank > WORTHWHILE * dim:
            return None
        rows = rows[:rank]
        encoder, basis = self._metric.apply(rows).astype(np.float32), self._metric.undo(rows).astype(np.float32)
        cosine = _mean_cosine(sample, (sample @ encoder.T).astype(np.float16).astype(np.float32) @ basis)
        key = hash_text(self.key, basis.tobytes().hex())
        return Coder(encoder, basis, len(self.rows), float(kept[rank]), cosine, key, self.key)


def choose_basis(
    samples: Iterable[tuple[str, Float32[Array, "_ d"]]], texts: Float32[Array, "k d"], config: BasisConfig
) -> SharedBasis:
    """The shared rows: the fewest, in steps of `RANK_STEP`, that keep the stated energy of all scenes.

    Args:
        samples: per scene its key and an even sample of its unit features; consumed one by one, never held.
        texts: unit vectors of the prompts whose scores matter most: the classes, and everyday words for the rest.
        config: energies and the texts' weight.
    """
    dim = texts.shape[1]
    wanted = config.energy < 1 and dim > SMALL_DIM
    moments, keys = np.zeros((dim, dim)), []
    for key, sample in samples:
        keys.append(key)
        if wanted:
            moments += sample.T @ sample
    if not wanted or not moments.any():
        return SharedBasis(np.zeros((0, dim), np.float32), texts, config, tuple(keys), 0.0)
    metric = TextMetric.of(texts, config.text_weight)
    rows = _leading(metric.apply(metric.apply(moments).T))[: int(WORTHWHILE * dim)]
    kept = _kept(moments, rows, metric)
    rank = _first_rank(kept, config.shared_energy, RANK_STEP) or len(rows)
    return SharedBasis(rows[:rank].astype(np.float32), texts, config, tuple(keys), float(kept[rank]))


def write_basis(path: str | Path, basis: SharedBasis) -> Path:
    """Write a shared basis; see docs/formats.md for the layout."""
    metadata = {
        "config": basis.config.model_dump(),
        "made_from": list(basis.made_from),
        "energy_kept": basis.energy_kept,
    }
    return write_tensors(
        path, {"rows": basis.rows, "texts": basis.texts}, kind=KIND, version=VERSION, metadata=metadata
    )


def read_basis(path: str | Path) -> SharedBasis:
    """Read and verify a shared basis; raises as `tensor_files.read_tensors` does."""
    file = read_tensors(path, kind=KIND, version=VERSION)
    rows, texts, meta = file.tensors["rows"], file.tensors["texts"], file.metadata
    if rows.ndim != 2 or texts.ndim != 2 or rows.shape[1] != texts.shape[1]:
        raise DataError(
            f"{path} holds rows {rows.shape} and texts {texts.shape}, which do not match.",
            "Delete it, and run the training again.",
        )
    return SharedBasis(rows, texts, BasisConfig(**meta["config"]), tuple(meta["made_from"]), meta["energy_kept"])


def _leading(moments: Float64[Array, "d d"]) -> Float64[Array, "d d"]:
    """Eigenvectors as rows, strongest first."""
    _, vectors = np.linalg.eigh(moments)  # ascending
    rows = vectors[:, ::-1].T
    # The sign of an eigenvector is arbitrary: the largest entry is made positive, so that files do not depend on the library.
    signs = np.sign(np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1))
    return np.ascontiguousarray(rows * signs)


def _kept(moments: Float64[Array, "d d"], rows: Float64[Array, "r d"], metric: TextMetric) -> Float64[Array, " r1"]:
    """Share of the plain energy that the first 0, 1, ... r rows keep.

    With encoder E = V S, basis B = V S^-1 and moments M = sum f f', the first r rows lose
    tr M - 2 tr(E M B') + tr(E M E' B B'), whose traces are sums over leading blocks.
    """
    encoder, basis = metric.apply(rows), metric.undo(rows)
    coded = encoder @ moments
    linear = np.cumsum(2 * np.einsum("rd,rd->r", coded, basis))
    square = np.cumsum(np.cumsum((coded @ encoder.T) * (basis @ basis.T), axis=0), axis=1).diagonal()
    return np.concatenate([[0.0], (linear - square) / max(float(np.trace(moments)), 1e-300)])


def _first_rank(kept: Float64[Array, " n"], energy: float, least: int) -> int | None:
    """The first of `least`, `least` + `RANK_STEP`, ... rows that keep `energy`; None if no number does."""
    return next((rank for rank in range(least, len(kept), RANK_STEP) if kept[rank] >= energy), None)


def _mean_cosine(first: Float32[Array, "n d"], second: Float32[Array, "n d"]) -> float:
    products = np.einsum("nd,nd->n", first, second)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float((products / np.maximum(lengths, 1e-12)).mean())
