"""Features at pixels from arrays over photographs: bilinear between cells, zeros without a feature."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.files import hash_text
from ov3d.common.base.shapes import Array, Bool, Float, Float32, Int64
from ov3d.common.features.content_hash import ContentHasher
from ov3d.common.features.pixels import frame_pixels
from ov3d.common.features.tokens import TokenFeatures
from ov3d.common.scenes.scene import Frame
from ov3d.common.teachers.array_files import ArrayFile

ALGORITHM = "arrays-1"
"""Part of every key: increased when the same arrays would give other numbers."""


class ArraySource:
    """Features of the frames of scenes that were bound.

    Args:
        hasher: hashes files.
        keep: number of arrays kept open.
    """

    def __init__(self, hasher: ContentHasher, *, keep: int = 16) -> None:
        self._hasher = hasher
        self._keep = keep
        self._bound: dict[tuple[str, str], ArrayFile] = {}
        self._opened: OrderedDict[tuple[str, str], TokenFeatures] = OrderedDict()
        self._lock = threading.Lock()

    def bind(self, frame: Frame, file: ArrayFile) -> None:
        """Register a frame. Its array covers the photograph as stored, upright."""
        with self._lock:
            self._bound[_name(frame)] = file
            self._opened.pop(_name(frame), None)

    def has(self, frame: Frame) -> bool:
        """Whether the frame was bound."""
        return _name(frame) in self._bound

    def key(self, frame: Frame) -> str:
        """Identifies the array's content and the lens: equal keys, equal numbers."""
        return hash_text(ALGORITHM, self._hasher.hash(self._of(frame).path), frame.pixels_key)

    def pixel_features(self, frame: Frame, uv: Float[Array, "n 2"]) -> Float32[Array, "n d"]:
        """Unit vectors at pixels, zeros where the array has none.

        Raises:
            DataError: the frame was not bound, or a pixel is outside the image.
        """
        pixels, inside = _photograph_pixels(frame, frame_pixels(frame, uv))
        features = self._view(frame).pixel_features(pixels)
        features[~inside] = 0
        return features

    def known(self, frame: Frame, uv: Float[Array, "n 2"]) -> Bool[Array, " n"]:
        """Which pixels have a vector."""
        pixels, inside = _photograph_pixels(frame, frame_pixels(frame, uv))
        return self._view(frame).known(pixels) & inside

    def relevancy(self, frame: Frame, text: Float32[Array, " d"], step: int) -> Float32[Array, "rows columns"]:
        """Cosine with a text vector at every `step`-th pixel of every `step`-th row; 0 without a vector."""
        if frame.distortion is None:
            return self._view(frame).relevancy(text, step)
        v, u = np.mgrid[0 : frame.camera.height : step, 0 : frame.camera.width : step]
        uv = np.column_stack([u.ravel(), v.ravel()]) + 0.5
        return (self.pixel_features(frame, uv) @ text.astype(np.float32)).reshape(u.shape)

    def _view(self, frame: Frame) -> TokenFeatures:
        file, name = self._of(frame), _name(frame)
        with self._lock:
            if name not in self._opened:
                stored = frame.camera if frame.distortion is None else frame.distortion.camera
                self._opened[name] = TokenFeatures(file.load(), (stored.width, stored.height))
                while len(self._opened) > self._keep:
                    self._opened.popitem(last=False)
            self._opened.move_to_end(name)
            return self._opened[name]

    def _of(self, frame: Frame) -> ArrayFile:
        try:
            return self._bound[_name(frame)]
        except KeyError:
            raise DataError(f"Frame {frame.name} has no array of features.", "Its scene was not bound.") from None


def _name(frame: Frame) -> tuple[str, str]:
    return str(frame.image_path), frame.name


def _photograph_pixels(frame: Frame, pixels: Int64[Array, "n 2"]) -> tuple[Int64[Array, "n 2"], Bool[Array, " n"]]:
    """Positions of the frame's pixels in the photograph, and which of them are inside it: its lens may see less."""
    lens = frame.distortion
    if lens is None:
        return pixels, np.ones(len(pixels), np.bool_)
    camera, stored = frame.camera, lens.camera
    rays = (pixels + 0.5 - (camera.cx, camera.cy)) / (camera.fx, camera.fy)
    uv = lens.distort(rays) * (stored.fx, stored.fy) + (stored.cx, stored.cy)
    inside = np.asarray(((uv >= 0) & (uv < (stored.width, stored.height))).all(axis=1))  # false for NaN
    return np.where(inside[:, None], uv, 0).astype(np.int64), inside
