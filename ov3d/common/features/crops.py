"""Which crops of an image are encoded, and how they are cut.

A plan is a few square crop sizes, each on a regular grid that covers the image. Sizes are fractions of the image's long
side, so that a plan means the same for every resolution: with the default plan a 640x480 view has 24 x 17 crops of 96 px
and 13 x 9 crops of 160 px, 525 in all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ov3d.common.base.errors import UsageError
from ov3d.common.base.files import hash_text
from ov3d.common.base.shapes import Array, Int32, UInt8

ALGORITHM = "crops-1"
"""Part of every plan's key: raised when the same plan would give other numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class CropGrid:
    """Crops of one size: one at every pair of a column and a row.

    Attributes:
        xs: left edges of the columns, ascending, in pixels of the working image.
        ys: top edges of the rows, ascending.
        size: side of a crop in pixels.
    """

    xs: Int32[Array, " c"]
    ys: Int32[Array, " r"]
    size: int

    def __len__(self) -> int:
        return len(self.xs) * len(self.ys)

    def corners(self) -> Int32[Array, "m 2"]:
        """(x, y) of every crop's top left pixel, row by row."""
        x, y = np.meshgrid(self.xs, self.ys)
        return np.column_stack([x.ravel(), y.ravel()])


@dataclass(frozen=True, slots=True)
class CropPlan:
    """Which crops of an image are encoded, and how pixels average them.

    Attributes:
        fractions: side of the crops over the image's long side, one per scale.
        stride: distance between neighbouring crops over their side.
        sigma: standard deviation of the Gaussian weight of a crop around its centre, over its side.
        working_side: images with a longer side are reduced to it before cutting: with the default the smallest crop is
            then 288 px, which is more than the encoders look at.
    """

    fractions: tuple[float, ...] = (96 / 640, 160 / 640)
    stride: float = 0.25
    sigma: float = 0.25
    working_side: int = 1920

    def __post_init__(self) -> None:
        if not self.fractions or not all(0 < fraction <= 1 for fraction in self.fractions):
            raise UsageError(
                f"Crop fractions {list(self.fractions)} are not within (0, 1].", "Give at least one, like 0.15."
            )
        if not (0 < self.stride <= 1 and self.sigma > 0 and self.working_side >= 1):
            raise UsageError(
                f"A crop plan of stride {self.stride}, sigma {self.sigma} and working side {self.working_side} "
                "covers no image.",
                "The stride is within (0, 1], the others are positive.",
            )

    @property
    def key(self) -> str:
        """32 hexadecimal digits that name this plan in caches."""
        return hash_text(ALGORITHM, json.dumps(self.to_json(), sort_keys=True))

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form, read back by `from_json`."""
        return {**asdict(self), "fractions": list(self.fractions)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CropPlan:
        """The plan that `to_json` wrote."""
        return cls(**{**data, "fractions": tuple(data["fractions"])})

    def working_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) at which crops are cut from an image of that size."""
        return bounded_size(width, height, self.working_side)

    def boxes(self, width: int, height: int) -> list[CropGrid]:
        """The grids of an image of `width` x `height` pixels, one per scale, in pixels of the working image."""
        width, height = self.working_size(width, height)
        grids = []
        for fraction in self.fractions:
            size = min(_rounded(fraction * max(width, height)), width, height)
            step = max(1, _rounded(self.stride * size))
            grids.append(CropGrid(window_starts(width, size, step), window_starts(height, size, step), size))
        return grids

    def num_crops(self, width: int, height: int) -> int:
        """How many crops an image of that size has."""
        return sum(len(grid) for grid in self.boxes(width, height))

    def estimated_bytes(self, width: int, height: int, dim: int) -> int:
        """About how large the stored crops of an image of that size are."""
        return self.num_crops(width, height) * (2 * dim + 6)


def bounded_size(width: int, height: int, long_side: int) -> tuple[int, int]:
    """(width, height) reduced in proportion so that the longer is at most `long_side`; never enlarged."""
    longest = max(width, height)
    if longest <= long_side:
        return width, height
    return max(1, _rounded(width * long_side / longest)), max(1, _rounded(height * long_side / longest))


def resized(image: UInt8[Array, "h w 3"], size: tuple[int, int]) -> UInt8[Array, "h2 w2 3"]:
    """The image at (width, height) by Pillow's antialiased bicubic filter; the same array where nothing changes."""
    if (image.shape[1], image.shape[0]) == size:
        return image
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def channels_first(image: UInt8[Array, "h w 3"], device: torch.device) -> UInt8[Tensor, "3 h w"]:
    """The image as the tensor that crops are cut from."""
    return torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C")).to(device)


def cut(image: UInt8[Tensor, "3 h w"], corners: Int32[Array, "m 2"], size: int, out: UInt8[Tensor, "m 3 s s"]) -> None:
    """Copy the crops at `corners` (x, y) into `out`, on the image's device.

    Both ways index a sliding-window view, so only the crops are copied. NumPy's copy of such a view is 15 times faster than
    torch's on the CPU; on other devices the image is already there.
    """
    xs, ys = corners[:, 0], corners[:, 1]
    if image.device.type == "cpu":
        windows = np.lib.stride_tricks.sliding_window_view(image.numpy(), (size, size), axis=(1, 2))
        out.numpy()[:] = windows[:, ys, xs].swapaxes(0, 1)
    else:
        view = image.unfold(1, size, 1).unfold(2, size, 1)
        rows, columns = (torch.from_numpy(np.ascontiguousarray(at)).to(image.device).long() for at in (ys, xs))
        out.copy_(view[:, rows, columns].transpose(0, 1))


def window_starts(length: int, size: int, step: int) -> Int32[Array, " k"]:
    """Starts of windows every `step`, the last one moved back to the border so that nothing is left uncovered."""
    starts = list(range(0, length - size + 1, step))
    if starts[-1] + size < length:
        starts.append(length - size)
    return np.array(starts, dtype=np.int32)


def _rounded(value: float) -> int:
    # Python's round() goes to even: 48.5 and 49.5 would both give even numbers.
    return max(1, int(value + 0.5))
