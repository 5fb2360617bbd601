"""Grids of vectors over an image: their windows, and the features of pixels.

Symbols: t_ij vector of cell (i, j) of a grid of gh x gw cells that covers the image. A pixel's centre lies between the centres
of at most four cells, with bilinear weights b_ij; its feature is the unit vector of sum b_ij t_ij / |t_ij|. A cell of zeros
has no feature and is ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ov3d.common.base.errors import UsageError
from ov3d.common.base.files import hash_text
from ov3d.common.base.shapes import Array, Bool, Float, Float32, Int32, Int64
from ov3d.common.features.crops import window_starts

ALGORITHM = "tokens-1"
"""Part of every plan's key: increased when the same plan would give other numbers."""

BLOCK = 4096
"""Pixels gathered at once."""

_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class TokenPlan:
    """The windows of an image to encode into patches.

    A window has the model's training size, so nothing in the model is resized or interpolated. Larger images are reduced to a
    long side of `long_side` windows; images smaller than one window are enlarged.

    Attributes:
        window: (height, width) of a window in pixels of the working image.
        patch: (height, width) of a patch.
        long_side: maximum long side of the working image, in windows.
        overlap: minimum overlap of neighbouring windows, as a share of a window.
    """

    window: tuple[int, int]
    patch: tuple[int, int]
    long_side: float = 4.0
    overlap: float = 0.5

    def __post_init__(self) -> None:
        divides = all(p >= 1 and w >= p and w % p == 0 for w, p in zip(self.window, self.patch, strict=True))
        if not (divides and self.long_side >= 1 and 0 <= self.overlap < 1):
            raise UsageError(
                f"Invalid windows: {self.window} px with patches of {self.patch} px, {self.long_side} along an image, overlap "
                f"{self.overlap}.",
                "Patches must divide a window, images must be at least one window long, the overlap within [0, 1).",
            )

    @property
    def key(self) -> str:
        """32 hexadecimal digits that identify it in caches."""
        return hash_text(ALGORITHM, json.dumps(self.to_json(), sort_keys=True))

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form, read back by `from_json`."""
        return {**asdict(self), "window": list(self.window), "patch": list(self.patch)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TokenPlan:
        """The plan that `to_json` wrote."""
        return cls(**{**data, "window": tuple(data["window"]), "patch": tuple(data["patch"])})

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """(rows, columns) of patches of an image of `width` x `height` pixels."""
        scale = min(1.0, self.long_side * max(self.window) / max(width, height))
        scale = max(scale, self.window[0] / height, self.window[1] / width)
        least = self.cells
        rows, columns = (
            int(scale * side / patch + 0.5) for side, patch in zip((height, width), self.patch, strict=True)
        )
        return max(rows, least[0]), max(columns, least[1])

    @property
    def cells(self) -> tuple[int, int]:
        """(rows, columns) of patches of a window."""
        return self.window[0] // self.patch[0], self.window[1] // self.patch[1]

    def working_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) at which windows are cut from an image of that size: whole patches."""
        rows, columns = self.grid(width, height)
        return columns * self.patch[1], rows * self.patch[0]

    def starts(self, grid: tuple[int, int]) -> tuple[Int32[Array, " r"], Int32[Array, " c"]]:
        """First rows and first columns, in patches, of the windows that cover a grid of (rows, columns) patches."""
        steps = (max(1, int(cell * (1 - self.overlap))) for cell in self.cells)
        rows, columns = (window_starts(*sizes) for sizes in zip(grid, self.cells, steps, strict=True))
        return rows, columns

    def num_crops(self, width: int, height: int) -> int:
        """How many windows an image of that size has."""
        rows, columns = self.starts(self.grid(width, height))
        return len(rows) * len(columns)

    def estimated_bytes(self, width: int, height: int, dim: int) -> int:
        """About how large the stored grid of an image of that size is."""
        rows, columns = self.grid(width, height)
        return 2 * rows * columns * dim


class TokenFeatures:
    """A grid of vectors over one view, and its pixels' features.

    Args:
        tokens: one vector per cell, of any length; zeros for cells without one. It may be mapped from a file: only the
            requested cells are read.
        size: (width, height) of the frame.
    """

    num_scales = 1

    def __init__(self, tokens: Float[Array, "gh gw d"], size: tuple[int, int]) -> None:
        self._tokens = tokens
        rows, columns = tokens.shape[:2]
        self._across = _between(columns, size[0])
        self._down = _between(rows, size[1])
        self._size = size

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self._tokens.shape[2])

    def features_at(self, pixels: Int64[Array, "n 2"]) -> Float32[Array, "n 1 d"]:
        """Unit features at (column, row) pixels, in the one scale there is."""
        return self.pixel_features(pixels)[:, None]

    def pixel_features(self, pixels: Int64[Array, "n 2"]) -> Float32[Array, "n d"]:
        """Unit features at (column, row) pixels; zeros if no surrounding cell has a vector."""
        out = np.empty((len(pixels), self.dim), np.float32)
        for start in range(0, len(pixels), BLOCK):
            out[start : start + BLOCK] = self._gather(pixels[start : start + BLOCK])
        return out

    def known(self, pixels: Int64[Array, "n 2"]) -> Bool[Array, " n"]:
        """Which pixels have a feature."""
        out = np.zeros(len(pixels), np.bool_)
        for start in range(0, len(pixels), BLOCK):
            part = slice(start, start + BLOCK)
            for weight, row, column in self._corners(pixels[part]):
                out[part] |= (weight > 0) & self._tokens[row, column].any(axis=1)
        return out

    def relevancy(self, text: Float32[Array, " d"], step: int) -> Float32[Array, "rows columns"]:
        """Cosine of `pixel_features` and a text vector at every `step`-th pixel of every `step`-th row."""
        width, height = self._size
        v, u = np.mgrid[0:height:step, 0:width:step]
        pixels = np.column_stack([u.ravel(), v.ravel()]).astype(np.int64)
        scores = np.empty(len(pixels), np.float32)
        for start in range(0, len(pixels), BLOCK):  # bounded memory for a full map of a large image
            part = slice(start, start + BLOCK)
            scores[part] = self._gather(pixels[part]) @ text.astype(np.float32)
        return scores.reshape(u.shape)

    def _gather(self, pixels: Int64[Array, "n 2"]) -> Float32[Array, "n d"]:
        sums = np.zeros((len(pixels), self.dim), np.float32)
        for weight, row, column in self._corners(pixels):
            sums += weight[:, None] * _unit(self._tokens[row, column].astype(np.float32))
        return _unit(sums)

    def _corners(
        self, pixels: Int64[Array, "n 2"]
    ) -> list[tuple[Float32[Array, " n"], Int64[Array, " n"], Int64[Array, " n"]]]:
        """Weight, row and column of the cells around pixels; unused cells are omitted."""
        corners = []
        for lower_row in (True, False):
            row, row_weight = self._down.side(pixels[:, 1], lower_row)
            for lower_column in (True, False):
                column, column_weight = self._across.side(pixels[:, 0], lower_column)
                weight = row_weight * column_weight
                if weight.any():
                    corners.append((weight, row, column))
        return corners


@dataclass(frozen=True, slots=True, eq=False)
class _Between:
    """For each pixel along an axis the cells around its centre, and the weight of the upper one."""

    lower: Int64[Array, " l"]
    upper: Int64[Array, " l"]
    share: Float32[Array, " l"]

    def side(self, pixels: Int64[Array, " n"], lower: bool) -> tuple[Int64[Array, " n"], Float32[Array, " n"]]:
        share = self.share[pixels]
        return (self.lower[pixels], 1 - share) if lower else (self.upper[pixels], share)


def _between(cells: int, length: int) -> _Between:
    position = np.clip((np.arange(length) + 0.5) * (cells / length) - 0.5, 0, cells - 1)
    lower = np.floor(position).astype(np.int64)
    return _Between(lower, np.minimum(lower + 1, cells - 1), (position - lower).astype(np.float32))


def _unit(rows: Float32[Array, "n d"]) -> Float32[Array, "n d"]:
    """Normalised rows; zeros stay zero."""
    norms = np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]
    return rows / np.maximum(norms, np.float32(_TINY))
