"""The crops of an image to encode, and how they are cut.

A plan is a few square crop sizes, each on a regular grid that covers the image. Sizes are fractions of the image's long
side, so a plan works the same at every resolution: with the default plan a 640x480 view has 24 x 17 crops of 96 px and
13 x 9 crops of 160 px, 525 in all.
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
"""Part of every plan's key: increased when the same plan would give other numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class CropGrid:
    """Crops of one size, one per column and row.

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
    """The crops of an image to encode, and how pixels average them.

    Attributes:
        fractions: side of the crops divided by the image's long side, one per scale.
        stride: distance between neighbouring crops divided by their side.
        sigma: standard deviation of a crop's Gaussian weight around its centre, divided by its side.
        working_side: larger images are reduced to this long side before cutting: with the default the smallest crop is then
            288 px, which exceeds the encoders' input size.
    """

    fractions: tuple[float, ...] = (96 / 640, 160 / 640)
    stride: float = 0.25
    sigma: float = 0.25
    working_side: int = 1920

    def __post_init__(self) -> None:
        if not self.fractions or not all(0 < fraction <= 1 for fraction in self.fractions):
            raise UsageError(
                f"Crop fractions must be within (0, 1], got {list(self.fractions)}.", "Give at least one, such as 0.15."
            )
        if not (0 < self.stride <= 1 and self.sigma > 0 and self.working_side >= 1):
            raise UsageError(
                f"Invalid crop plan: stride {self.stride}, sigma {self.sigma}, working side {self.working_side}.",
                "The stride must be within (0, 1], the others positive.",
            )

    @property
    def key(self) -> str:
        """32 hexadecimal digits that identify it in caches."""
        return hash_text(ALGORITHM, json.dumps(self.to_json(), sort_keys=True))

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form, read back by `from_json`."""
        return {**asdict(self), "fractions": list(self.fractions)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CropPlan:
        """The plan that `to_json` wrote."""
        return cls(**{**data, "fractions": tuple(data["fractions"])})

    def working_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) to which an image of that size is reduced before cutting crops."""
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
        """Number of crops of an image of that size."""
        return sum(len(grid) for grid in self.boxes(width, height))

    def estimated_bytes(self, width: int, height: int, dim: int) -> int:
        """Approximate bytes of the stored crops of an image of that size."""
        return self.num_crops(width, height) * (2 * dim + 6)


def bounded_size(width: int, height: int, long_side: int) -> tuple[int, int]:
    """(width, height) reduced in proportion so that the longer is at most `long_side`; never enlarged."""
    longest = max(width, height)
    if longest <= long_side:
        return width, height
    return max(1, _rounded(width * long_side / longest)), max(1, _rounded(height * long_side / longest))


def resized(image: UInt8[Array, "h w 3"], size: tuple[int, int]) -> UInt8[Array, "h2 w2 3"]:
    """The image at (width, height) by Pillow's antialiased bicubic filter; the same array if the size is unchanged."""
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
    """Starts of windows every `step`, the last moved back to the border so that everything is covered."""
    starts = list(range(0, length - size + 1, step))
    if starts[-1] + size < length:
        starts.append(length - size)
    return np.array(starts, dtype=np.int32)


def _rounded(value: float) -> int:
    # Python's round() goes to even: 48.5 and 49.5 would both give even numbers.
    return max(1, int(value + 0.5))
