"""Image files: their sizes and their pixels.

For every photograph, the EXIF orientation is applied, alpha is composited onto white (as in the evaluation of the synthetic
NeRF scenes), grey becomes three equal channels, and of 16 bits the upper 8 are kept. Images of ids and depths are not changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.npy_files import read_npy
from ov3d.common.base.shapes import Array, UInt8

if TYPE_CHECKING:
    from PIL import Image

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""File extensions of photographs, in lower case."""

QUARTER_TURNS = {1: 0, 6: 1, 3: 2, 8: 3}
"""Clockwise quarter turns that make an EXIF orientation upright; the others (2, 4, 5, 7) also mirror."""

_WIDTH_TAG, _HEIGHT_TAG, _ORIENTATION_TAG = 0x0100, 0x0101, 0x0112


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The header of an image file.

    Attributes:
        stored_size: width, height of the pixels as stored.
        orientation: EXIF orientation, 1 to 8; 1 if the file has none.
    """

    stored_size: tuple[int, int]
    orientation: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height once upright, as `load_rgb` returns it."""
        width, height = self.stored_size
        return (height, width) if self.orientation >= 5 else (width, height)


def read_header(path: Path) -> ImageHeader | None:
    """Size and orientation of an image without decoding it; None if the file is missing or not an image."""
    from PIL import Image, TiffImagePlugin

    try:
        with Image.open(path) as image:
            stored_size = image.size
            if isinstance(image, TiffImagePlugin.TiffImageFile):  # only some Pillow versions return it rotated
                stored_size = (image.tag_v2[_WIDTH_TAG], image.tag_v2[_HEIGHT_TAG])
            return ImageHeader(stored_size, _orientation(image))
    except _broken():
        return None


def load_rgb(path: Path) -> UInt8[Array, "h w 3"]:
    """A photograph as RGB, 8 bits per channel, upright.

    EXIF orientation is applied. Transparency is composited onto white. Grey is repeated; of 16 bits the upper 8 are kept;
    floating-point images are assumed to be in [0, 1].

    Raises:
        DataError: the file is missing, not an image, or truncated.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            # When decoding, Pillow itself rotates TIFFs, and only TIFFs.
            turn = None if image.format == "TIFF" else _TRANSPOSITIONS.get(_orientation(image))
            upright = image if turn is None else image.transpose(Image.Transpose[turn])
            return _as_rgb(upright)
    except FileNotFoundError:
        raise DataError(f"Image {path} does not exist.", "Restore it, or remove its pose.") from None
    except _broken() as error:
        raise DataError(f"Image {path} cannot be read: {_one_line(error)}.", "Replace the file.") from None


def load_raster(path: Path, what: str) -> Array:
    """An image (or .npy array) of ids or depths, in its stored type; `what` names it in errors."""
    from PIL import Image

    if path.suffix.lower() == ".npy":
        return read_npy(path, what)
    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except FileNotFoundError:
        raise DataError(f"The {what} {path} does not exist.", "Restore it.") from None
    except _broken() as error:
        raise DataError(f"The {what} {path} cannot be read: {_one_line(error)}.", "Replace the file.") from None


_TRANSPOSITIONS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""The Pillow transposition that makes an EXIF orientation upright (Pillow's rotations are counter-clockwise)."""


def _orientation(image: Image.Image) -> int:
    # A PNG may have EXIF after its pixels, which Pillow would decode to find it: only EXIF before the pixels counts.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    value = image.getexif().get(_ORIENTATION_TAG, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _as_rgb(image: Image.Image) -> UInt8[Array, "h w 3"]:
    from PIL import Image

    if image.mode == "F":
        grey = np.nan_to_num(np.asarray(image)).clip(0, 1) * 255
        return _repeated((grey + 0.5).astype(np.uint8))
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _repeated((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, layered)
    return np.asarray(image.convert("RGB"))


def _repeated(grey: UInt8[Array, "h w"]) -> UInt8[Array, "h w 3"]:
    return np.repeat(grey[:, :, None], 3, axis=2)


def _broken() -> tuple[type[Exception], ...]:
    """What Pillow raises for files that are damaged, or far larger than any photograph."""
    from PIL import Image

    return (OSError, EOFError, SyntaxError, ValueError, Image.DecompressionBombError)


def _one_line(error: Any) -> str:
    return " ".join(str(error).split()) or type(error).__name__
