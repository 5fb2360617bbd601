"""Lens distortion, and undistorting a photograph to the pinhole camera that everything else uses.

Symbols: (x, y) a ray's coordinates on the plane z = 1; r^2 = x^2 + y^2; (x_d, y_d) where the lens maps it on that plane.

    opencv   x_d = x (1 + k1 r^2 + k2 r^4 + k3 r^6) / (1 + k4 r^2 + k5 r^4 + k6 r^6) + 2 p1 x y + p2 (r^2 + 2 x^2)
             y_d likewise, with p1 (r^2 + 2 y^2) + 2 p2 x y
    fisheye  theta = atan(r); theta_d = theta (1 + k1 theta^2 + k2 theta^4 + k3 theta^6 + k4 theta^8); x_d = x theta_d / r

The first is Brown's model with OpenCV's rational radial part, the second Kannala and Brandt's (2006) in OpenCV's form.
A photograph is undistorted by looking up, for each pixel of the pinhole camera, where the lens mapped its ray.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Float, Float32, Float64, Int32, Shaped, UInt8, UInt32
from ov3d.common.scenes.cameras import Camera

NUM_COEFFICIENTS = {"opencv": 8, "fisheye": 4}
"""k1 k2 p1 p2 k3 k4 k5 k6, and k1 k2 k3 k4."""

MIN_ZOOM, MAX_ZOOM = 0.5, 4.0
"""Bounds of the pinhole camera's focal length over the photograph's: a fisheye's full view does not fit on a plane."""

_EDGE = 1e-4  # pixels; a lens without distortion keeps its focal length
_STRIP_PIXELS = 1 << 15  # fits in CPU caches
_STRIPS_KEPT = 256  # 256 KB each: the lookup of 8 megapixels stays in memory, a larger one is recomputed


@dataclass(frozen=True, slots=True)
class Distortion:
    """How the lens of a photograph differs from a pinhole.

    Attributes:
        model: which formula, see the module.
        coefficients: of the model, in the order of `NUM_COEFFICIENTS`; missing trailing ones are zero.
        camera: focal lengths, principal point and size of the original photograph.
    """

    model: Literal["opencv", "fisheye"]
    coefficients: tuple[float, ...]
    camera: Camera

    def __post_init__(self) -> None:
        if len(self.coefficients) > NUM_COEFFICIENTS[self.model] or not all(map(math.isfinite, self.coefficients)):
            raise DataError(
                f"Distortion {self.model} with coefficients {self.coefficients} is invalid.",
                f"It takes at most {NUM_COEFFICIENTS[self.model]} finite coefficients.",
            )
        filled = (*self.coefficients, *[0.0] * (NUM_COEFFICIENTS[self.model] - len(self.coefficients)))
        object.__setattr__(self, "coefficients", filled)

    def resized(self, width: int, height: int) -> Distortion:
        """The same lens for a photograph resized to `width` x `height`: coefficients do not depend on size."""
        return replace(self, camera=self.camera.resized(width, height))

    def turned(self) -> Distortion:
        """The same lens for the photograph rotated a quarter turn clockwise, where (x, y) becomes (-y, x).

        The radial part is unchanged. The tangential part is r^2 q + 2 (q . x) x with q = (p2, p1), so q rotates as a vector.
        """
        c, coefficients = self.camera, list(self.coefficients)
        if self.model == "opencv":
            coefficients[2], coefficients[3] = coefficients[3], -coefficients[2]
        camera = Camera(c.height, c.width, c.fy, c.fx, c.height - c.cy, c.cx)
        return replace(self, coefficients=tuple(coefficients), camera=camera)

    def distort(self, xy: Float[Array, "n 2"]) -> Float64[Array, "n 2"]:
        """Where the lens maps rays.

        Args:
            xy: coordinates on the plane z = 1.

        Returns:
            Coordinates on the same plane; NaN beyond the radius at which the formula folds the image back on itself.
        """
        x, y = np.ascontiguousarray(np.asarray(xy, dtype=np.float64).T)
        r2 = x * x + y * y
        out = np.empty((len(x), 2))
        if self.model == "fisheye":
            r = np.sqrt(r2)
            ratio = np.ones_like(r)
            np.divide(_fisheye_angle(np.arctan(r), self.coefficients), r, out=ratio, where=r > 1e-9)
            out[:, 0], out[:, 1] = x * ratio, y * ratio
        else:
            _, _, p1, p2, *_ = self.coefficients
            radial = _radial(r2, self.coefficients)
            along = radial + 2 * (p1 * y + p2 * x)  # 2 p1 x y + p2 (r^2 + 2 x^2) = 2 x (p1 y + p2 x) + p2 r^2
            out[:, 0], out[:, 1] = x * along + p2 * r2, y * along + p1 * r2
        beyond = r2 > _fold_radius(self.model, self.coefficients) ** 2
        if beyond.any():
            out[beyond] = np.nan
        return out

    def pinhole(self) -> Camera:
        """The pinhole camera to undistort to: same size and principal point, both focal lengths scaled by one zoom.

        The zoom is the smallest (between `MIN_ZOOM` and `MAX_ZOOM`) at which every pixel is inside the photograph: no corner
        is blank, and as little as possible of the view is cut off.

        Raises:
            DataError: the coefficients are so large that no such camera exists.
        """
        return _pinhole(self)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form."""
        c = self.camera
        values = [c.width, c.height, c.fx, c.fy, c.cx, c.cy]
        return {"model": self.model, "coefficients": list(self.coefficients), "camera": values}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Distortion:
        """The inverse of `to_json`."""
        return cls(data["model"], tuple(data["coefficients"]), Camera(*data["camera"]))


def straighten(image: UInt8[Array, "h w 3"], distortion: Distortion, camera: Camera) -> UInt8[Array, "h2 w2 3"]:
    """A photograph as a pinhole camera in the same place would have taken it, bilinearly interpolated.

    Args:
        image: of the size of `distortion.camera`.
        distortion: its lens.
        camera: the pinhole camera; usually `distortion.pinhole()`.
    """
    height, width = image.shape[:2]
    out = np.empty((camera.height, camera.width, 3), np.uint8)
    # A pixel in one 32-bit word is gathered several times faster than three bytes of a row.
    padded = np.zeros((height, width, 4), np.uint8)
    padded[:, :, :3] = image
    words = padded.view(np.uint32).reshape(-1)
    for first, last, uv in _strips(distortion, camera):
        mixed = _bilinear(words, width, height, uv)
        out[first:last] = mixed[:, :3].reshape(last - first, camera.width, 3)
    return out


def straighten_nearest(
    values: Shaped[Array, "h w"], distortion: Distortion, camera: Camera, *, outside: int | float
) -> Shaped[Array, "h2 w2"]:
    """An image of depths or ids as a pinhole camera would have taken it; each pixel gets the nearest pixel's value.

    Args:
        values: of the size of `distortion.camera`.
        distortion: its lens.
        camera: the pinhole.
        outside: the value of pixels outside the image.
    """
    out = np.full((camera.height, camera.width), outside, values.dtype)
    height, width = values.shape
    for first, last, uv in _strips(distortion, camera):
        inside = ((uv >= 0) & (uv < (width, height))).all(axis=1)  # false for NaN
        column, row = uv[inside].astype(np.int64).T
        strip = np.full(len(uv), outside, values.dtype)
        strip[inside] = values[row, column]
        out[first:last] = strip.reshape(last - first, camera.width)
    return out


# --------------------------------------------------------------------------------------------------------- internals


def _bilinear(words: UInt32[Array, " p"], width: int, height: int, uv: Float32[Array, "n 2"]) -> UInt8[Array, "n 4"]:
    """The four channels at image coordinates, from pixels packed in words; the border extends outwards."""

    def gather(idx: Int32[Array, " n"]) -> Float32[Array, "n 4"]:
        return words.take(idx).view(np.uint8).reshape(-1, 4).astype(np.float32)

    column = (uv[:, 0] - np.float32(0.5)).clip(0, width - 1)  # pixel centres are at +0.5
    row = (uv[:, 1] - np.float32(0.5)).clip(0, height - 1)
    left, top = column.astype(np.int32), row.astype(np.int32)
    rightward, downward = (column - left).astype(np.float32)[:, None], (row - top).astype(np.float32)[:, None]
    start, aside = top * width + left, (left < width - 1).astype(np.int32)
    mixed = gather(start)
    mixed += (gather(start + aside) - mixed) * rightward
    start += np.where(top < height - 1, width, 0).astype(np.int32)
    below = gather(start)
    below += (gather(start + aside) - below) * rightward
    mixed += (below - mixed) * downward
    return (mixed + np.float32(0.5)).astype(np.uint8)


def _strips(distortion: Distortion, camera: Camera) -> Iterator[tuple[int, int, Float32[Array, "n 2"]]]:
    """First row, row after the last, and (u, v) in the photograph for each pixel between; strips bound memory."""
    rows = max(1, _STRIP_PIXELS // camera.width)
    for first in range(0, camera.height, rows):
        last = min(first + rows, camera.height)
        yield first, last, _lookup(distortion, camera, first, last)


@lru_cache(maxsize=_STRIPS_KEPT)
def _lookup(distortion: Distortion, camera: Camera, first: int, last: int) -> Float32[Array, "n 2"]:
    centres = np.empty((last - first, camera.width, 2))
    centres[:, :, 0] = np.arange(camera.width) + 0.5
    centres[:, :, 1] = np.arange(first, last)[:, None] + 0.5
    uv = _source_pixels(distortion, camera, centres.reshape(-1, 2)).astype(np.float32)
    np.nan_to_num(uv, copy=False, nan=-1.0)
    uv.setflags(write=False)
    return uv


def _source_pixels(distortion: Distortion, camera: Camera, uv: Float64[Array, "n 2"]) -> Float64[Array, "n 2"]:
    """Positions in the photograph of the rays through the pinhole's pixels."""
    source = distortion.camera
    bent = distortion.distort((uv - (camera.cx, camera.cy)) / (camera.fx, camera.fy))
    return bent * (source.fx, source.fy) + (source.cx, source.cy)


@lru_cache(maxsize=1024)
def _pinhole(distortion: Distortion) -> Camera:
    source = distortion.camera
    columns, rows = np.arange(source.width) + 0.5, np.arange(source.height) + 0.5
    # Checking the outermost pixels is enough: short of the fold, a lens keeps the inside of the frame inside.
    border = np.concatenate(
        [np.column_stack([columns, np.full(len(columns), v)]) for v in (0.5, source.height - 0.5)]
        + [np.column_stack([np.full(len(rows), u), rows]) for u in (0.5, source.width - 0.5)]
    )

    def fits(zoom: float) -> bool:
        uv = _source_pixels(distortion, replace(source, fx=source.fx * zoom, fy=source.fy * zoom), border)
        least, most = 0.5 - _EDGE, np.array([source.width, source.height]) - 0.5 + _EDGE
        return bool(((uv >= least) & (uv <= most)).all())  # false for NaN

    low, high = MIN_ZOOM, MAX_ZOOM
    if not fits(high):
        shown = ", ".join(f"{value:g}" for value in distortion.coefficients)
        raise DataError(
            f"The {distortion.model} distortion ({shown}) bends the image of {source.width}x{source.height} beyond use.",
            "Calibrate again, or undistort the photographs with the capturing tool.",
        )
    if fits(low):
        high = low
    while high / low > 1 + 1e-7:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    return replace(source, fx=source.fx * high, fy=source.fy * high)


def _radial(r2: Float64[Array, " n"], coefficients: tuple[float, ...]) -> Float64[Array, " n"]:
    k1, k2, _, _, k3, k4, k5, k6 = coefficients
    upper = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    return upper / (1 + r2 * (k4 + r2 * (k5 + r2 * k6))) if k4 or k5 or k6 else upper


def _fisheye_angle(theta: Float64[Array, " n"], coefficients: tuple[float, ...]) -> Float64[Array, " n"]:
    k1, k2, k3, k4 = coefficients
    t2 = theta * theta
    return theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))


@lru_cache(maxsize=1024)
def _fold_radius(model: str, coefficients: tuple[float, ...]) -> float:
    """The radius up to which the distorted radius grows; beyond it the polynomial folds back: two rays hit one pixel."""
    theta = np.linspace(0, np.pi / 2, 4097)[:-1]
    r = np.tan(theta)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        distorted = _fisheye_angle(theta, coefficients) if model == "fisheye" else r * _radial(r * r, coefficients)
        folds = np.flatnonzero(~(np.diff(distorted) > 0))
    return float(r[folds[0]]) if len(folds) else math.inf
