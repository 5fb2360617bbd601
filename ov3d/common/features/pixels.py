"""Features at image coordinates of a frame, computed once per pixel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Float, Float32, Int64
from ov3d.common.scenes.scene import Frame


def frame_pixels(frame: Frame, uv: Float[Array, "n 2"]) -> Int64[Array, "n 2"]:
    """(column, row) of the pixels containing image coordinates; the far border belongs to the last pixel."""
    size = np.array([frame.camera.width, frame.camera.height])
    inside = (uv >= 0) & (uv <= size)  # false for NaN as well
    if not inside.all():
        u, v = uv[~inside.all(axis=1)][0]
        raise DataError(
            f"Pixel ({u}, {v}) is outside image {frame.name} ({size[0]}x{size[1]}).",
            "Keep only points that project into the image.",
        )
    return np.minimum(uv.astype(np.int64), size - 1)


def of_distinct_pixels(
    features_of: Callable[[Int64[Array, "m 2"]], Float32[Array, "m ..."]], frame: Frame, uv: Float[Array, "n 2"]
) -> Float32[Array, "n ..."]:
    """A function's values at the pixels of image coordinates; if many share a pixel, it is computed once.

    Args:
        features_of: features of pixels (column, row), one row each.
        frame: the frame of the pixels.
        uv: image coordinates in the frame's camera.

    Raises:
        DataError: a pixel is outside the image.
    """
    pixels, width = frame_pixels(frame, uv), frame.camera.width
    flat = pixels[:, 1] * width + pixels[:, 0]
    distinct, inverse = np.unique(flat, return_inverse=True)
    if len(distinct) > 0.8 * len(flat):  # copying the rows out again would cost more than it saves
        return features_of(pixels)
    return features_of(np.column_stack([distinct % width, distinct // width]))[inverse]
