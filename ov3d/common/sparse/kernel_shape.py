"""Shapes of kernels: they determine which voxels meet, apart from the voxels themselves."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from ov3d.common.base.errors import UsageError

Shift = tuple[int, int, int]


def triple(value: int | tuple[int, int, int]) -> tuple[int, int, int]:
    """One number for all three axes, or three."""
    return (value, value, value) if isinstance(value, int) else value


@dataclass(frozen=True)
class KernelShape:
    """What determines a kernel map, apart from the voxels; cells along x, y, z.

    Attributes:
        size: kernel size.
        stride: step between outputs; (1, 1, 1) with `submanifold` for convolutions that keep the voxels.
        dilation: step between the kernel's cells.
        padding: cells before the first one.
        submanifold: outputs are the inputs' voxels; size is odd, stride 1 and padding centred.
    """

    size: tuple[int, int, int]
    stride: tuple[int, int, int] = (1, 1, 1)
    dilation: tuple[int, int, int] = (1, 1, 1)
    padding: tuple[int, int, int] = (0, 0, 0)
    submanifold: bool = False

    def __post_init__(self) -> None:
        if min(*self.size, *self.stride, *self.dilation) < 1 or min(self.padding) < 0:
            raise UsageError(f"Kernel {self} has a size, stride or dilation below 1.", "Use whole numbers from 1.")
        if self.submanifold and (any(size % 2 == 0 for size in self.size) or self.stride != (1, 1, 1)):
            raise UsageError(
                f"A submanifold kernel of size {self.size} and stride {self.stride} has no centre.",
                "Use odd sizes and stride 1, or a strided convolution.",
            )

    @staticmethod
    def of_submanifold(size: int | tuple[int, int, int], dilation: int | tuple[int, int, int] = 1) -> KernelShape:
        """A kernel that keeps the voxels."""
        size, dilation = triple(size), triple(dilation)
        half = [(cells - 1) // 2 * step for cells, step in zip(size, dilation, strict=True)]
        return KernelShape(size, (1, 1, 1), dilation, (half[0], half[1], half[2]), submanifold=True)

    @property
    def volume(self) -> int:
        """Number of offsets."""
        return self.size[0] * self.size[1] * self.size[2]

    def offsets(self) -> list[Shift]:
        """The kernel's cells, z fastest."""
        x, y, z = map(range, self.size)
        return list(itertools.product(x, y, z))

    def strided_extent(self, extent: Shift | None) -> Shift | None:
        """Cells of the output grid, by the usual formula of convolutions; None stays None.

        Raises:
            UsageError: the kernel is larger than the padded grid.
        """
        if extent is None:
            return None
        x, y, z = (
            (cells + 2 * pad - step * (size - 1) - 1) // stride + 1
            for cells, pad, step, size, stride in zip(
                extent, self.padding, self.dilation, self.size, self.stride, strict=True
            )
        )
        if min(x, y, z) < 1:
            raise UsageError(
                f"A kernel of {self.size} does not fit into a grid of {extent} cells.", "Use fewer levels."
            )
        return (x, y, z)
