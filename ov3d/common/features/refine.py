"""Refinement `dino`: features spread between regions that a self-supervised encoder finds similar, then averaged over
superpixels.

Symbols: f_i unit patch token of grid cell i (DINOv2; 48 x 64 cells at 4:3); x_i feature of the cell, gathered from the
crops; A_ij = max(f_i . f_j, 0), zero below `affinity_floor`, to the power `affinity_power`; y = (A / rows' sums) x, the
spread features; a superpixel's feature is the mean of y, bilinear between cell centres, over its pixels, at unit length.

Features from crops are smooth and blur edges; tokens show which cells belong together, superpixels where they end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ov3d.common.base.errors import MissingModelError, UsageError
from ov3d.common.base.files import hash_text
from ov3d.common.base.shapes import Array, Float, Float16, Float64, Int64, UInt8, UInt16
from ov3d.common.features.crops import bounded_size, channels_first, resized
from ov3d.common.features.views import ViewFeatures
from ov3d.common.language.cards import Identity, PatchEncoder

ALGORITHM = "dino-1"
"""Part of every refiner's key: increased when the same parameters would give other numbers."""

_BLOCK = 1024

_TINY = 1e-12
"""Guards divisions by sums or norms that can be zero."""


@dataclass(frozen=True, slots=True)
class RefineConfig:
    """Parameters of the refinement.

    Attributes:
        grid_side: cells along the image's long side; the short side follows the aspect.
        affinity_floor: cosine of two tokens below which their cells are unrelated.
        affinity_power: exponent that sharpens the remaining affinities.
        superpixels: requested number of SLIC superpixels.
        compactness: SLIC's weight of position relative to colour.
        image_side: superpixels are computed on the image reduced to this long side.
    """

    grid_side: int = 64
    affinity_floor: float = 0.6
    affinity_power: float = 8.0
    superpixels: int = 400
    compactness: float = 20.0
    image_side: int = 640

    def __post_init__(self) -> None:
        if min(self.grid_side, self.superpixels, self.image_side) < 1 or self.superpixels > 60_000:
            raise UsageError(
                f"Invalid refinement: grid side {self.grid_side}, {self.superpixels} superpixels at {self.image_side} px.",
                "All must be positive, with at most 60000 superpixels.",
            )
        if not (0 <= self.affinity_floor < 1 and self.affinity_power > 0 and self.compactness > 0):
            raise UsageError(
                f"Invalid refinement: floor {self.affinity_floor}, power {self.affinity_power}, compactness "
                f"{self.compactness}.",
                "The floor must be within [0, 1), the others positive.",
            )

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """(rows, columns) of the token grid of an image of that size."""
        columns, rows = width, height
        longest = max(width, height)
        return max(1, round(self.grid_side * rows / longest)), max(1, round(self.grid_side * columns / longest))

    def estimated_bytes(self, width: int, height: int, dim: int) -> int:
        """About how large the stored refinement of an image of that size is."""
        segment_width, segment_height = bounded_size(width, height, self.image_side)
        return 2 * (segment_width * segment_height + self.superpixels * dim)


@dataclass(frozen=True, slots=True)
class Refiner:
    """Everything that determines a refinement: its parameters and the patch encoder."""

    config: RefineConfig
    patches: Identity

    @property
    def key(self) -> str:
        """32 hexadecimal digits that identify it in caches."""
        return hash_text(ALGORITHM, json.dumps(asdict(self.config), sort_keys=True), self.patches.key)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form, read back by `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Refiner:
        """The refiner that `to_json` wrote."""
        return cls(RefineConfig(**data["config"]), Identity(**data["patches"]))


def refine(
    view: ViewFeatures,
    image: UInt8[Array, "h w 3"],
    size: tuple[int, int],
    patch_encoder: PatchEncoder,
    config: RefineConfig,
    *,
    device: torch.device,
) -> tuple[UInt16[Array, "sh sw"], Float16[Array, "m d"]]:
    """Refine the features of one view.

    Args:
        view: its crops' features.
        image: the photograph, RGB; it may be smaller than the frame.
        size: (width, height) of the frame.
        patch_encoder: provides the tokens.
        config: the parameters.
        device: where tokens are computed and spread.

    Returns:
        The id of each pixel's superpixel, at the frame's size or at most `image_side` long; one unit vector per superpixel.

    Raises:
        MissingModelError: scikit-image is not installed.
    """
    rows, columns = config.grid(*size)
    tokens = patch_encoder.encode_patches(channels_first(image, device), (rows, columns))
    v, u = np.mgrid[0:rows, 0:columns].reshape(2, -1) + 0.5
    centres = np.column_stack([u * size[0] / columns, v * size[1] / rows]).astype(np.int64)
    features = torch.from_numpy(view.pixel_features(centres)).to(device)
    spread = propagate(features, tokens.reshape(rows * columns, -1).to(device, torch.float32), config)
    segments = superpixels(resized(image, bounded_size(*size, config.image_side)), config)
    means = torch.from_numpy(cell_shares(segments, (rows, columns)).astype(np.float32)).to(device) @ spread
    unit = means / torch.linalg.vector_norm(means, dim=1, keepdim=True).clamp_min(_TINY)
    return segments, unit.cpu().numpy().astype(np.float16)


def propagate(
    features: Float[Tensor, "g d"], tokens: Float[Tensor, "g k"], config: RefineConfig
) -> Float[Tensor, "g d"]:
    """Replace each cell's feature by the affinity-weighted mean of all; the affinity matrix exists in blocks of rows."""
    spread = torch.empty_like(features)
    for start in range(0, len(tokens), _BLOCK):
        affinity = tokens[start : start + _BLOCK] @ tokens.T
        affinity = torch.where(affinity >= config.affinity_floor, affinity.clamp_min(0), 0).pow_(config.affinity_power)
        # A token of zero length has no neighbours, not even itself.
        total = affinity.sum(1, keepdim=True).clamp_min_(_TINY)
        spread[start : start + _BLOCK] = (affinity @ features).div_(total)
    return spread


def superpixels(image: UInt8[Array, "h w 3"], config: RefineConfig) -> UInt16[Array, "h w"]:
    """SLIC superpixels (Achanta et al., TPAMI 2012), ids 0, 1, ... without gaps.

    Raises:
        MissingModelError: scikit-image is not installed.
    """
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise MissingModelError(
            "Refinement needs scikit-image, which is not installed.", "Run: pip install 'ov3d[offline]'"
        ) from error
    labels = slic(image, n_segments=config.superpixels, compactness=config.compactness, start_label=0)
    _, segments = np.unique(labels, return_inverse=True)
    return segments.reshape(labels.shape).astype(np.uint16)


def cell_shares(segments: UInt16[Array, "h w"], grid: tuple[int, int]) -> Float64[Array, "m g"]:
    """The weight of each grid cell in the mean of a bilinear map over each segment; rows sum to 1.

    The mean of an interpolated map over a segment is linear in the cells, so the map itself is never computed.
    """
    rows, columns = grid
    num_segments = int(segments.max()) + 1
    ids = segments.astype(np.int64) * (rows * columns)
    shares = np.zeros(num_segments * rows * columns)
    for row, row_weight in _neighbours(segments.shape[0], rows):
        for column, column_weight in _neighbours(segments.shape[1], columns):
            flat = ids + (row[:, None] * columns + column)
            weight = row_weight[:, None] * column_weight
            shares += np.bincount(flat.ravel(), weight.ravel(), minlength=len(shares))
    per_segment = shares.reshape(num_segments, -1)
    return per_segment / per_segment.sum(1, keepdims=True)


def _neighbours(length: int, cells: int) -> list[tuple[Int64[Array, " l"], Float64[Array, " l"]]]:
    """The two cells whose centres are around each pixel's centre along an axis, and their linear weights."""
    position = np.clip((np.arange(length) + 0.5) * (cells / length) - 0.5, 0, cells - 1)
    lower = np.minimum(position.astype(np.int64), max(cells - 2, 0))
    upper = np.minimum(lower + 1, cells - 1)
    return [(lower, 1 - (position - lower)), (upper, position - lower)]
