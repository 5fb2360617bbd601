"""Features of label maps: at each pixel the vector of its class's name, zeros for void."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.files import hash_text
from ov3d.common.base.shapes import Array, Bool, Float, Float32, Int32
from ov3d.common.features.pixels import frame_pixels
from ov3d.common.scenes.scene import Frame
from ov3d.common.teachers.corruption import Corruption
from ov3d.common.teachers.label_maps import LabelMaps

ALGORITHM = "labels-1"
"""Part of every key: increased when the same maps would give other numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class BoundLabels:
    """The label maps of one scene, with vectors and corruption.

    Attributes:
        maps: its label maps.
        vectors: unit vector of each class, and a last row of zeros, which void (-1) indexes.
        corruption: the stated corruption, or None.
    """

    maps: LabelMaps
    vectors: Float32[Array, "c d"]
    corruption: Corruption | None

    def load(self, frame: Frame) -> Int32[Array, "h w"]:
        """The frame's class numbers, with the stated corruption applied."""
        classes = self.maps.load(frame)
        return classes if self.corruption is None else self.corruption.apply(frame.name, classes)


class LabelSource:
    """Features of the frames of scenes that were bound.

    Args:
        text_key: key of the text side's identity.
        keep: number of maps kept loaded.
    """

    def __init__(self, text_key: str, *, keep: int = 16) -> None:
        self._text_key = text_key
        self._keep = keep
        self._bound: dict[tuple[str, str], BoundLabels] = {}
        self._loaded: OrderedDict[str, Int32[Array, "h w"]] = OrderedDict()
        self._lock = threading.Lock()

    def bind(self, bound: BoundLabels) -> None:
        """Register a scene's frames."""
        self._bound.update({_name(frame): bound for frame in bound.maps.frames})

    def has(self, frame: Frame) -> bool:
        """Whether the frame's scene is bound and the frame has a map."""
        return _name(frame) in self._bound

    def key(self, frame: Frame) -> str:
        """Identifies the map's bytes, the names, their space and the corruption: equal keys, equal numbers."""
        bound = self._of(frame)
        corruption = bound.corruption.key(frame.name) if bound.corruption is not None else ""
        return hash_text(ALGORITHM, bound.maps.key(frame), bound.maps.names.key, self._text_key, corruption)

    def pixel_features(self, frame: Frame, uv: Float[Array, "n 2"]) -> Float32[Array, "n d"]:
        """The vector of each pixel's class; zeros for void.

        Raises:
            DataError: the map cannot be read, or a pixel is outside the image.
        """
        pixels = frame_pixels(frame, uv)
        return self._of(frame).vectors[self._classes(frame)[pixels[:, 1], pixels[:, 0]]]

    def known(self, frame: Frame, uv: Float[Array, "n 2"]) -> Bool[Array, " n"]:
        """Which pixels have a class."""
        pixels = frame_pixels(frame, uv)
        return self._classes(frame)[pixels[:, 1], pixels[:, 0]] >= 0

    def relevancy(self, frame: Frame, text: Float32[Array, " d"], step: int) -> Float32[Array, "rows columns"]:
        """Cosine of a text vector with the class of every `step`-th pixel of every `step`-th row; 0 for void."""
        return (self._of(frame).vectors @ text.astype(np.float32))[self._classes(frame)[::step, ::step]]

    def _of(self, frame: Frame) -> BoundLabels:
        try:
            return self._bound[_name(frame)]
        except KeyError:
            raise DataError(
                f"Frame {frame.name} has no label map.",
                "Its scene was not bound to the teacher, or the frame was skipped.",
            ) from None

    def _classes(self, frame: Frame) -> Int32[Array, "h w"]:
        return self._remembered(self.key(frame), lambda: self._of(frame).load(frame))

    def _remembered(self, key: str, load: Callable[[], Int32[Array, "h w"]]) -> Int32[Array, "h w"]:
        with (
            self._lock
        ):  # held while loading, so that threads asking for the same frame wait instead of each reading it
            if key not in self._loaded:
                self._loaded[key] = load()
                while len(self._loaded) > self._keep:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(key)
            return self._loaded[key]


def _name(frame: Frame) -> tuple[str, str]:
    # Names may repeat between scenes, and changing a scene in any other way creates new frames.
    return str(frame.image_path), frame.name
