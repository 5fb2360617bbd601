"""A low-rank basis for features, chosen to preserve scores.

The rows of B [r, d] are the leading right singular vectors of the features F [v, d], without centring, because scores are
plain dot products: f . t ~ (B f) . (B t). The error is (f - B^T B f) . (t - B^T B t), so the rank is increased until that is
small for every row and every probe, and the error finally measured, fp16 codes included, is returned with the codes.

Source: Eckart & Young, *The approximation of one matrix by another of lower rank*, Psychometrika 1936.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ov3d.common.base.shapes import Array, Float16, Float32, Float64

RANK_STEP = 16
SMALL_DIM = 64
"""Features this narrow or narrower are kept as they are."""
WORTHWHILE = 0.75
"""A basis of more than this share of the width saves next to nothing: features are then kept as they are."""
BLOCK_ROWS = 1 << 13
SAMPLE_ROWS = 1 << 15
"""The basis is computed from an even sample of at most this many rows; its error is measured on all."""


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """Compressed features.

    Attributes:
        code: coordinates of each row.
        basis: orthonormal rows; the identity if compression was not worthwhile.
        energy_kept: share of the squared length of all rows that the basis keeps.
        max_error: largest |score - score from the code| over all rows and probes.
    """

    code: Float16[Array, "v r"]
    basis: Float32[Array, "r d"]
    energy_kept: float
    max_error: float

    @property
    def rank(self) -> int:
        """Numbers per row."""
        return len(self.basis)


def compress(features: Float16[Array, "v d"], probes: Float32[Array, "k d"], *, tolerance: float = 1e-3) -> LowRank:
    """The smallest basis, in steps of `RANK_STEP`, with which no score changes by more than `tolerance`.

    Args:
        features: unit rows.
        probes: unit text vectors of typical prompts, whose scores must be preserved; more are safer.
        tolerance: largest |change| of the score of any row for any probe.

    Returns:
        Codes and basis, or the features themselves if they are narrow or no small basis is good enough.
    """
    num_rows, dim = features.shape
    if dim <= SMALL_DIM or num_rows <= RANK_STEP:
        return _identity(features)
    vectors = _singular_vectors(features)
    rank = _first_rank(features, probes, vectors, tolerance)
    while rank <= WORTHWHILE * dim:
        found = _project(features, probes, np.ascontiguousarray(vectors[:rank]))
        if found.max_error <= tolerance:
            return found
        rank += RANK_STEP * max(1, rank // 8 // RANK_STEP)  # the sample missed some rows: grow by an eighth
    return _identity(features)


def _identity(features: Float16[Array, "v d"]) -> LowRank:
    return LowRank(features, np.eye(features.shape[1], dtype=np.float32), 1.0, 0.0)


def _sample(features: Float16[Array, "v d"], most: int) -> Float16[Array, "s d"]:
    return features[:: max(-(-len(features) // most), 1)]


def _blocks(features: Float16[Array, "v d"]) -> Iterator[tuple[slice, Float32[Array, "b d"]]]:
    for start in range(0, len(features), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        yield rows, features[rows].astype(np.float32)


def _singular_vectors(features: Float16[Array, "v d"]) -> Float32[Array, "d d"]:
    """Right singular vectors as rows, strongest first, from the Gram matrix [d, d], so that F is never copied whole."""
    dim = features.shape[1]
    gram = np.zeros((dim, dim))
    for _, block in _blocks(_sample(features, SAMPLE_ROWS)):
        gram += block.T @ block
    _, vectors = np.linalg.eigh(gram)  # ascending
    vectors = vectors[:, ::-1].T
    # The sign of an eigenvector is arbitrary: the largest entry is made positive, so that files do not depend on the library.
    signs = np.sign(vectors[np.arange(dim), np.abs(vectors).argmax(axis=1)])
    return (vectors * signs[:, None]).astype(np.float32)


def _first_rank(
    features: Float16[Array, "v d"], probes: Float32[Array, "k d"], vectors: Float32[Array, "d d"], tolerance: float
) -> int:
    """The smallest rank that keeps the scores of a sample within half the tolerance; the other half is left for fp16."""
    rows = _sample(features, BLOCK_ROWS).astype(np.float32)
    codes, queries = rows @ vectors.T, vectors @ probes.T
    missing = rows @ probes.T  # error of the scores after the first `rank` numbers
    for rank in range(RANK_STEP, len(vectors), RANK_STEP):
        part = slice(rank - RANK_STEP, rank)
        missing -= codes[:, part] @ queries[part]
        if not missing.size or np.abs(missing).max() <= tolerance / 2:
            return rank
    return len(vectors)


def _project(features: Float16[Array, "v d"], probes: Float32[Array, "k d"], basis: Float32[Array, "r d"]) -> LowRank:
    code = np.empty((len(features), len(basis)), np.float16)
    queries: Float32[Array, "r k"] = basis @ probes.T
    error, kept, total = 0.0, np.float64(0), np.float64(0)
    for rows, block in _blocks(features):
        projected: Float64[Array, "b r"] = block @ basis.T
        code[rows] = projected
        change = code[rows].astype(np.float32) @ queries - block @ probes.T
        error = max(error, float(np.abs(change).max(initial=0)))
        kept += np.square(projected, dtype=np.float64).sum()
        total += np.square(block, dtype=np.float64).sum()
    return LowRank(code, basis, float(kept / max(total, 1e-300)), error)
