"""Integer cells packed into one 64-bit key each: sorting and searching single integers is many times faster than rows.

With a_k the coordinates of a cell, o_k the offset and b_k the bits of axis k, the first axis in the highest bits,

    key = ((a_0 + o_0) 2^b_1 + (a_1 + o_1)) 2^b_2 + (a_2 + o_2) ...

so keys sort like rows. A layout uses only operators that NumPy arrays and torch tensors share, so it packs both without
importing torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Int64

KEY_BITS = 63


@dataclass(frozen=True, slots=True)
class KeyLayout:
    """Which bits of a key hold which axis.

    Attributes:
        bits: number of bits of each axis, the first axis highest.
        offset: added to each axis, so that the smallest allowed coordinate becomes 0.
    """

    bits: tuple[int, ...]
    offset: tuple[int, ...]

    def __post_init__(self) -> None:
        if sum(self.bits) > KEY_BITS:
            raise DataError(
                f"Cells of {' + '.join(map(str, self.bits))} bits do not fit into a key of {KEY_BITS} bits.",
                "Use larger cells, or remove far outliers from the cloud.",
            )

    @classmethod
    def covering(cls, low: Sequence[int], high: Sequence[int]) -> KeyLayout:
        """The smallest layout for cells from `low` to `high`, both inclusive.

        Raises:
            DataError: they need more than 63 bits.
        """
        bits = tuple((last - first).bit_length() for first, last in zip(low, high, strict=True))
        return cls(bits, tuple(-first for first in low))

    @classmethod
    def bounded(cls, *extent: int) -> KeyLayout:
        """The layout of a grid whose coordinates run from 0 to its extent (exclusive), such as batch, rho, phi, z."""
        return cls.covering([0] * len(extent), [size - 1 for size in extent])

    @property
    def low(self) -> tuple[int, ...]:
        """The smallest coordinate of each axis."""
        return tuple(-shift for shift in self.offset)

    @property
    def high(self) -> tuple[int, ...]:
        """The largest coordinate of each axis."""
        return tuple((1 << bits) - 1 - shift for bits, shift in zip(self.bits, self.offset, strict=True))

    @property
    def steps(self) -> tuple[int, ...]:
        """How much the key grows per cell along each axis."""
        return tuple(1 << below for below in self._below)

    def pack(self, *axes: Any) -> Any:
        """Keys of cells, which must be within `low` and `high` (not checked).

        Args:
            axes: int64 arrays or tensors [n], one per axis; an axis may be a plain int if another is not.

        Returns:
            Int64 [n] of the same kind.
        """
        key, *rest = (numbers + shift if shift else numbers for numbers, shift in zip(axes, self.offset, strict=True))
        for bits, numbers in zip(self.bits[1:], rest, strict=True):
            key = (key << bits) + numbers
        return key

    def unpack(self, keys: Any) -> tuple[Any, ...]:
        """The inverse of `pack`: coordinates along each axis, int64 arrays or tensors [n]."""
        return tuple(
            ((keys >> below) & ((1 << bits) - 1)) - shift
            for below, bits, shift in zip(self._below, self.bits, self.offset, strict=True)
        )

    @property
    def _below(self) -> tuple[int, ...]:
        """Number of bits below each axis."""
        return tuple(accumulate(self.bits[:0:-1], initial=0))[::-1]


def distinct_cells(cells: Int64[Array, "n k"]) -> tuple[Int64[Array, "v k"], Int64[Array, " n"]]:
    """Distinct rows, ascending, and the index of each row among them: `np.unique(axis=0)`, many times faster.

    Raises:
        DataError: the rows are too widely spread to be packed.
    """
    if not len(cells):
        return cells, np.zeros(0, np.int64)
    layout = KeyLayout.covering(cells.min(axis=0).tolist(), cells.max(axis=0).tolist())
    keys, place = np.unique(layout.pack(*cells.T), return_inverse=True)
    return np.column_stack(layout.unpack(keys)), place
