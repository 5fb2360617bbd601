"""Points of a LiDAR sweep from a `.bin` file whose columns its data set states, and what is checked of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Float32, Int64
from ov3d.common.readers.raw_points import FARTHEST


@dataclass(frozen=True, slots=True, eq=False)
class SweepPoints:
    """The finite points of a file.

    Attributes:
        xyz: in the LiDAR's frame, metres.
        intensity: in the data set's own range.
        rows: of the file; None if all of its points are finite.
        num_rows: points of the file.
        notes: what was dropped, in words.
    """

    xyz: Float32[Array, "n 3"]
    intensity: Float32[Array, " n"]
    rows: Int64[Array, " n"] | None
    num_rows: int
    notes: tuple[str, ...] = ()

    def kept(self, values: Array) -> Array:
        """The values of the points that were kept, from one for each point of the file."""
        return values if self.rows is None else values[self.rows]


def read_sweep(path: Path, *, columns: int) -> SweepPoints:
    """Read rows of fp32: x, y, z, intensity and, with five columns, the ring.

    Args:
        path: the file.
        columns: per point.

    Raises:
        DataError: it is not there, is empty or cut short, or has no finite point.
    """
    try:
        values = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(f"The sweep {path} cannot be read: {error.strerror}.", "Check the path.") from None
    if not len(values) or len(values) % (4 * columns):
        raise DataError(
            f"The sweep {path} has {len(values):,} bytes, not a multiple of {4 * columns} ({columns} fp32 per point).",
            "It was cut short; copy it again.",
        )
    rows = values.view("<f4").reshape(-1, columns)
    finite = (np.abs(rows[:, :3]) < FARTHEST).all(axis=1) & np.isfinite(rows[:, 3])  # the first is false for NaN
    if finite.all():
        return SweepPoints(np.ascontiguousarray(rows[:, :3]), np.ascontiguousarray(rows[:, 3]), None, len(rows))
    kept = np.flatnonzero(finite)
    if not len(kept):
        raise DataError(f"The sweep {path} has no point with finite coordinates.", "Export it again.")
    note = f"{len(rows) - len(kept):,} of {len(rows):,} points of {path.name} are not finite and were dropped"
    return SweepPoints(rows[kept, :3], rows[kept, 3], kept, len(rows), (note,))
