"""Points as stored in a file, and how they become a cloud: shared by all cloud readers.

In every format, non-finite points are left out and counted, labels without names are left out, and coordinates too large for
fp32's precision get an fp64 origin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Bool, Float32, Float64, Int32, Shaped, UInt8
from ov3d.common.readers.layout import choose_origin
from ov3d.common.scenes.scene import IGNORE, PointCloud, World

NUM_INSTANCES = 2**31 - 1

FARTHEST = 1e12
"""Coordinates from this value up are damage or a sentinel."""


@dataclass(frozen=True, slots=True, eq=False)
class RawPoints:
    """Columns of a cloud's file.

    Attributes:
        xyz: positions; not necessarily finite.
        rgb: 8-bit colours, or None.
        labels: class ids, or None.
        instances: object ids, or None.
        intensity: strength of the laser's return in the file's units, or None.
        notes: the reader's remarks.
    """

    xyz: Float64[Array, "n 3"]
    rgb: UInt8[Array, "n 3"] | None = None
    labels: Shaped[Array, " n"] | None = None
    instances: Shaped[Array, " n"] | None = None
    intensity: Shaped[Array, " n"] | None = None
    notes: Sequence[str] = ()


def finished(raw: RawPoints, path: Path, *, num_classes: int) -> tuple[PointCloud, World, list[str]]:
    """Turn a file's points into a cloud.

    Args:
        raw: the file's contents.
        path: the file, for messages.
        num_classes: labels from this value up have no name and become `IGNORE`; with 0, labels are left out.

    Returns:
        The points relative to the world's origin (zero unless coordinates are so large that fp32 would lose millimetres),
        the world, and notes on what was left out.

    Raises:
        DataError: no point has finite coordinates.
    """
    notes = list(raw.notes)
    finite = usable(raw.xyz)
    if not finite.any():
        what = " with finite coordinates." if len(raw.xyz) else "."
        raise DataError(f"{path} has no points{what}", "Export it again.")
    labels = raw.labels
    if labels is not None and num_classes == 0:
        notes.append(f"the labels of {path.name} are left out: no classes.txt names their ids")
        labels = None
    xyz = raw.xyz
    if finite.all():  # the usual case: avoids copying a large cloud
        keep: slice | Shaped[Array, " n"] = slice(None)
    else:
        notes.append(f"{int((~finite).sum())} of {len(xyz)} points in {path.name} are not finite and are left out")
        keep, xyz = finite, xyz[finite]
    world = World(origin=choose_origin(xyz))
    cloud = PointCloud(
        xyz=(xyz - np.asarray(world.origin) if any(world.origin) else xyz).astype(np.float32),
        rgb=None if raw.rgb is None else raw.rgb[keep],
        labels=None if labels is None else known_ids(labels[keep], num_classes),
        instances=None if raw.instances is None else known_ids(raw.instances[keep], NUM_INSTANCES),
        intensity=None if raw.intensity is None else _as_fp32(raw.intensity[keep]),
    )
    return cloud, world, notes


def usable(xyz: Float64[Array, "n 3"]) -> Bool[Array, " n"]:
    """Which points have finite coordinates below `FARTHEST`."""
    return (np.abs(xyz) < FARTHEST).all(axis=1)  # false for NaN


def as_fp64(values: Shaped[Array, "*shape"]) -> Float64[Array, "*shape"]:
    """Numbers in fp64; damaged values raise no warning here, and `usable` drops them later."""
    with np.errstate(invalid="ignore", over="ignore"):
        return values.astype(np.float64)


def _as_fp32(values: Shaped[Array, " n"]) -> Float32[Array, " n"]:
    """A copy of the numbers in fp32; damaged values raise no warning."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.array(values, np.float32)


def known_ids(values: Shaped[Array, " n"], count: int) -> Int32[Array, " n"]:
    """Ids below `count`; all others, non-finite ones included, become unknown."""
    known = (values >= 0) & (values < count)  # false for NaN
    out = np.full(len(values), IGNORE, np.int32)
    out[known] = values[known]
    return out


def colours_8bit(values: Shaped[Array, "n c"]) -> UInt8[Array, "n c"]:
    """Colours as 8 bits: the upper 8 of 16 bits (unless all fit into the lower 8), or 255 times floating point in [0, 1].

    If any floating-point colour exceeds 1, the range is taken to be [0, 255].
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "f":
        values = np.nan_to_num(as_fp64(values))
        whole = values if values.size and values.max() > 1 else values * 255
        return (whole.clip(0, 255) + 0.5).astype(np.uint8)
    if values.size and values.max() > 255:
        values = values.astype(np.int64) >> 8
    return values.clip(0, 255).astype(np.uint8)
