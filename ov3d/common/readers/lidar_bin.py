"""Points from a `.bin` file: rows of fp32 without a stated number of columns.

    KITTI, SemanticKITTI   x y z intensity           intensity in [0, 1]
    nuScenes (.pcd.bin)    x y z intensity ring      intensity in [0, 255], ring a whole number below 256
    mmdetection3d          x y z red green blue      colours whole numbers up to 255

The number of columns is the one that fits the file's length and gives plausible values; a note names it. Intensity is
kept unchanged; ring is dropped.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Bool, Float32
from ov3d.common.readers.raw_points import RawPoints, as_fp64

COLUMNS = {4: "x y z intensity (KITTI)", 5: "x y z intensity ring (nuScenes)", 6: "x y z r g b (mmdetection3d)"}

FARTHEST = 1e5
"""Metres; a number beyond this is not a coordinate."""

_NUM_LOOKED_AT = 4096


def read_bin(path: Path) -> RawPoints:
    """Read a cloud.

    Raises:
        DataError: the file is missing, or no number of columns fits it.
    """
    try:
        size = path.stat().st_size
        values = np.fromfile(path, "<f4")
    except OSError as error:
        raise DataError(f"The cloud {path} cannot be read: {error.strerror}.", "Check the path.") from None
    fitting = [k for k in COLUMNS if size and size % (4 * k) == 0 and _plausible(values.reshape(-1, k))]
    if not fitting:
        raise DataError(
            f"{path} has {size} bytes, which do not form fp32 rows of {', '.join(COLUMNS.values())}.",
            "It is truncated or of another format.",
        )
    if path.name.lower().endswith(".pcd.bin") and 5 in fitting:
        num_columns = 5
    else:
        num_columns = fitting[-1]  # more columns are less likely to fit by chance
    rows = values.reshape(-1, num_columns)
    rgb, intensity = (rows[:, 3:6].astype(np.uint8), None) if num_columns == 6 else (None, rows[:, 3])
    note = f"{path.name} is read as {len(rows)} rows of {COLUMNS[num_columns]}"
    return RawPoints(as_fp64(rows[:, :3]), rgb, intensity=intensity, notes=(note,))


def _plausible(rows: Float32[Array, "n k"]) -> bool:
    """Whether the values suit the meaning of their columns."""
    sample = rows[:: max(1, len(rows) // _NUM_LOOKED_AT)]
    if not _all(np.abs(sample[:, :3]) <= FARTHEST, least=0.99):  # single points may be NaN
        return False
    if sample.shape[1] == 4:
        return _all((sample[:, 3] >= 0) & (sample[:, 3] <= 255))
    whole = sample[:, 4:] if sample.shape[1] == 5 else sample[:, 3:]
    return _all((whole == np.rint(whole)) & (whole >= 0) & (whole <= 255))


def _all(condition: Bool[Array, "*shape"], least: float = 1.0) -> bool:
    return bool(condition.mean() >= least)
