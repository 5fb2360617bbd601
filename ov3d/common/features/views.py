"""Features of one view at pixels, computed from its stored crops (or segments) without building a dense map.

Crops sit on a regular grid and their Gaussian weight is separable, so a pixel is touched by about 4 columns times 4 rows
of crops per scale, and everything about it factors into one table per column of pixels and one per row.

Symbols, for one scale: v_c unit vector of crop c; w_c(p) = exp(-|p - centre_c|^2 / 2 sigma^2) where crop c covers pixel p,
else 0; f(p) = sum_c w_c(p) v_c, normalised for the consumer. Scales are combined as the mean of their unit
vectors, normalised again: g = sum_s f_s / |f_s|.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from scipy.sparse import csr_array

from ov3d.common.base.shapes import Array, Float16, Float32, Float64, Int32, Int64, UInt16
from ov3d.common.features.crops import CropGrid

BLOCK = 1024
"""Pixels processed at once, so that their sums stay in the second-level cache until they are normalised."""

TINY = 1e-24
"""Smallest squared norm to divide by, so that a sum of zero vectors stays zero."""


@runtime_checkable
class ViewFeatures(Protocol):
    """The features of a frame in the store, refined or not."""

    @property
    def dim(self) -> int: ...

    @property
    def num_scales(self) -> int: ...

    def features_at(self, pixels: Int64[Array, "n 2"]) -> Float32[Array, "n s d"]:
        """Unit features of every scale at (column, row) pixels."""
        ...

    def pixel_features(self, pixels: Int64[Array, "n 2"]) -> Float32[Array, "n d"]:
        """Unit features of the scales' mean at (column, row) pixels."""
        ...

    def relevancy(self, text: Float32[Array, " d"], step: int) -> Float32[Array, "rows columns"]:
        """Cosine of `pixel_features` and a text vector at every `step`-th pixel of every `step`-th row."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class AxisWeights:
    """The weights of the crops along one axis at each of its pixels.

    Attributes:
        first: first column (or row) of crops that covers the pixel.
        weights: Gaussian weights of it and the next ones, 0 where a crop does not cover the pixel.
        num_starts: number of columns (or rows).
    """

    first: Int32[Array, " l"]
    weights: Float64[Array, "l k"]
    num_starts: int

    def matrix(self, step: int) -> Float64[Array, "m r"]:
        """The weights of every `step`-th pixel as rows of a dense matrix over all columns (or rows) of crops."""
        first, weights = self.first[::step], self.weights[::step]
        dense = np.zeros((len(first), self.num_starts + weights.shape[1]))
        np.put_along_axis(dense, first[:, None].astype(np.int64) + np.arange(weights.shape[1]), weights, axis=1)
        return dense[:, : self.num_starts]  # only zeros of the last pixels are beyond it


def axis_weights(starts: Int32[Array, " r"], size: int, length: int, working_length: int, sigma: float) -> AxisWeights:
    """Weights of windows `[start, start + size)` on the centres of `length` pixels.

    Args:
        starts: ascending, in pixels of the working image.
        size: side of a crop in pixels of the working image.
        length: pixels of the frame along this axis.
        working_length: pixels of the working image along it.
        sigma: standard deviation over the crop's side.
    """
    centres = (np.arange(length) + 0.5) * (working_length / length)
    first = np.searchsorted(starts + size, centres, side="right")
    count = np.searchsorted(starts, centres, side="right") - first
    candidates = first[:, None] + np.arange(count.max())
    middles = np.append(starts, np.zeros(count.max(), dtype=starts.dtype))[candidates] + size / 2
    weights = np.exp(-0.5 * ((centres[:, None] - middles) / (sigma * size)) ** 2)
    weights[candidates >= (first + count)[:, None]] = 0.0
    return AxisWeights(first.astype(np.int32), weights, len(starts))


class CropFeatures:
    """The crops of one view, and its pixels' features.

    Args:
        grids: one per scale.
        vectors: unit vectors of all crops, scale by scale, each row by row.
        size: (width, height) of the frame.
        working_size: (width, height) of the image the crops were cut from.
        sigma: standard deviation of the weights over a crop's side.
    """

    def __init__(
        self,
        grids: list[CropGrid],
        vectors: Float16[Array, "m d"],
        size: tuple[int, int],
        working_size: tuple[int, int],
        sigma: float,
    ) -> None:
        self._grids = grids
        self._vectors = vectors.astype(np.float32)
        starts = np.cumsum([0] + [len(grid) for grid in grids])
        self._rows = [slice(int(a), int(b)) for a, b in itertools.pairwise(starts)]
        self._across = [axis_weights(g.xs, g.size, size[0], working_size[0], sigma) for g in grids]
        self._down = [axis_weights(g.ys, g.size, size[1], working_size[1], sigma) for g in grids]
        self._gram: Float32[Array, "m m"] | None = None

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self._vectors.shape[1])

    @property
    def num_scales(self) -> int:
        """Number of crop sizes."""
        return len(self._grids)

    def features_at(self, pixels: Int64[Array, "n 2"]) -> Float32[Array, "n s d"]:
        """Unit features of every scale at (column, row) pixels."""
        out = np.empty((len(pixels), self.num_scales, self.dim), dtype=np.float32)

        def fill(part: slice) -> None:
            for scale in range(self.num_scales):
                sums, inverse_norms = self._sums(scale, pixels[part])
                np.multiply(sums, inverse_norms, out=out[part, scale])

        _in_blocks(fill, len(pixels))
        return out

    def pixel_features(self, pixels: Int64[Array, "n 2"]) -> Float32[Array, "n d"]:
        """Unit features of the scales' mean at (column, row) pixels."""
        out = np.empty((len(pixels), self.dim), dtype=np.float32)

        def fill(part: slice) -> None:
            total, inverse_norms = self._sums(0, pixels[part])
            if self.num_scales > 1:
                total *= inverse_norms
                for scale in range(1, self.num_scales):
                    sums, inverse_norms = self._sums(scale, pixels[part])
                    total += np.multiply(sums, inverse_norms, out=sums)
                inverse_norms = _inverse_norms(total)
            np.multiply(total, inverse_norms, out=out[part])

        _in_blocks(fill, len(pixels))
        return out

    def relevancy(self, text: Float32[Array, " d"], step: int) -> Float32[Array, "rows columns"]:
        """Cosine of `pixel_features` and a text vector at every `step`-th pixel of every `step`-th row.

        f_s . t is linear in the crops' own cosines. The norms need f_s . f_s' = sum_cc' w_c w_c' (v_c . v_c'), and since
        both weights are products of a part a column and a part a row, that sum over pairs of crops is two matrix products
        with the Gram matrix of the crops: no vector of a pixel is ever formed.
        """
        scales = range(self.num_scales)
        cosines = self._vectors @ text.astype(np.float32)
        down = [axis.matrix(step) for axis in self._down]
        across = [axis.matrix(step) for axis in self._across]
        pairs = {(s, z): self._paired_gram(s, z) for s in scales for z in range(s, self.num_scales)}
        columns = {(s, z): _row_products(across[s], across[z]).T for s, z in pairs}
        scores = np.empty((len(down[0]), len(across[0])), dtype=np.float32)
        for start in range(0, len(scores), 256):  # bounded memory for a full map of a large image
            rows = [weights[start : start + 256] for weights in down]
            dots = {(s, z): _row_products(rows[s], rows[z]) @ pairs[s, z] @ columns[s, z] for s, z in pairs}
            norms = [np.sqrt(np.maximum(dots[s, s], TINY)) for s in scales]
            score, square = np.zeros_like(norms[0]), np.zeros_like(norms[0])
            for s in scales:
                grid = cosines[self._rows[s]].reshape(len(self._grids[s].ys), -1).astype(np.float64)
                score += rows[s] @ grid @ across[s].T / norms[s]
            for (s, z), dot in dots.items():
                square += (1 if s == z else 2) * dot / (norms[s] * norms[z])
            scores[start : start + 256] = score / np.sqrt(np.maximum(square, TINY))
        return scores

    def _sums(self, scale: int, pixels: Int64[Array, "n 2"]) -> tuple[Float32[Array, "n d"], Float32[Array, "n 1"]]:
        """f of one scale and 1 / |f|: a sparse matrix, pixels by crops, times the crops' vectors."""
        across, down = self._across[scale], self._down[scale]
        columns, rows = pixels[:, 0], pixels[:, 1]
        weights = down.weights[rows][:, :, None] * across.weights[columns][:, None, :]
        crop_rows = down.first[rows][:, None] + np.arange(down.weights.shape[1], dtype=np.int32)
        crop_columns = across.first[columns][:, None] + np.arange(across.weights.shape[1], dtype=np.int32)
        crops = crop_rows[:, :, None] * np.int32(across.num_starts) + crop_columns[:, None, :]
        used = weights > 0
        ends = np.zeros(len(pixels) + 1, dtype=np.int32)
        np.cumsum(used.sum((1, 2)), out=ends[1:])
        table = self._vectors[self._rows[scale]]
        sparse = csr_array((weights[used].astype(np.float32), crops[used], ends), shape=(len(pixels), len(table)))
        sums = sparse @ table
        return sums, _inverse_norms(sums)

    def _paired_gram(self, first: int, second: int) -> Float64[Array, "rr cc"]:
        """Dot products of the crops of two scales, as (pairs of rows) x (pairs of columns)."""
        if self._gram is None:
            self._gram = self._vectors @ self._vectors.T
        block = self._gram[self._rows[first], self._rows[second]]
        r, z = len(self._grids[first].ys), len(self._grids[second].ys)
        return block.reshape(r, -1, z, block.shape[1] // z).swapaxes(1, 2).reshape(r * z, -1).astype(np.float64)


class SegmentFeatures:
    """The superpixels of one refined view, and its pixels' features.

    Args:
        segments: id of the superpixel of each pixel, at the frame's size or smaller.
        vectors: unit vector of each superpixel.
        size: (width, height) of the frame.
    """

    num_scales = 1

    def __init__(self, segments: UInt16[Array, "sh sw"], vectors: Float16[Array, "m d"], size: tuple[int, int]) -> None:
        self._segments = segments
        self._vectors = vectors.astype(np.float32)
        self._vectors *= _inverse_norms(self._vectors)
        self._columns, self._rows = (
            ((np.arange(length) + 0.5) * (own / length)).astype(np.int64)
            for length, own in zip(size, segments.shape[::-1], strict=True)
        )

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self._vectors.shape[1])

    def features_at(self, pixels: Int64[Array, "n 2"]) -> Float32[Array, "n 1 d"]:
        """Unit features at (column, row) pixels, in the one scale there is."""
        return self.pixel_features(pixels)[:, None]

    def pixel_features(self, pixels: Int64[Array, "n 2"]) -> Float32[Array, "n d"]:
        """Unit features at (column, row) pixels."""
        return self._vectors[self._segments[self._rows[pixels[:, 1]], self._columns[pixels[:, 0]]]]

    def relevancy(self, text: Float32[Array, " d"], step: int) -> Float32[Array, "rows columns"]:
        """Cosine of `pixel_features` and a text vector at every `step`-th pixel of every `step`-th row."""
        cosines = self._vectors @ text.astype(np.float32)
        return cosines[self._segments[self._rows[::step]][:, self._columns[::step]]]


def _inverse_norms(rows: Float32[Array, "n d"]) -> Float32[Array, "n 1"]:
    squares = np.einsum("nd,nd->n", rows, rows)[:, None]
    return 1 / np.sqrt(np.maximum(squares, np.float32(TINY)))


def _in_blocks(fill: Callable[[slice], None], num_pixels: int) -> None:
    """Call `fill` on blocks of pixels, on all cores if there are many.

    Each thread processes whole blocks alone: torch's and BLAS's own threads synchronise after every operation, and on a busy
    machine each synchronisation waits for the slowest thread, which was measured to be 20 times slower.
    """
    parts = [slice(start, min(start + BLOCK, num_pixels)) for start in range(0, num_pixels, BLOCK)]
    if len(parts) < 8:
        for part in parts:
            fill(part)
        return
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        for _ in pool.map(fill, parts):
            pass


def _row_products(first: Float64[Array, "m r"], second: Float64[Array, "m z"]) -> Float64[Array, "m rz"]:
    """Products of every entry of a row with every entry of the same row of the other matrix."""
    return (first[:, :, None] * second[:, None, :]).reshape(len(first), -1)
