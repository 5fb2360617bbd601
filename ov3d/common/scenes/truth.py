"""Per-pixel truth as stored on disk: images of ids, one mask per class, or polygons in a JSON file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Bool, Int32
from ov3d.common.scenes.cameras import Camera
from ov3d.common.scenes.distortion import Distortion, straighten_nearest
from ov3d.common.scenes.images import load_raster, load_rgb, read_header

IGNORE = -1
"""The label of a pixel or point whose class is unknown; metrics leave it out."""


@dataclass(frozen=True, slots=True)
class LabelImage:
    """Class or instance ids per pixel, on disk; ids from `count` up, and the id `void`, become `IGNORE`.

    Attributes:
        path: an image of one channel, or a .npy array.
        count: number of ids.
        void: an id that means unlabelled.
        table: the id of each stored number (`IGNORE` if it has no class); None if files store ids directly.
    """

    path: Path
    count: int
    void: int = IGNORE
    table: tuple[int, ...] | None = None

    def load(self) -> Int32[Array, "h w"]:
        """Id per pixel, `IGNORE` where unknown."""
        values = load_raster(self.path, "label image")
        if values.ndim != 2 or values.dtype.kind not in "iub":
            raise DataError(
                f"Label image {self.path} has shape {values.shape} of {values.dtype}.",
                "Labels must be one channel of ids.",
            )
        ids = values.astype(np.int32)
        if self.table is not None:
            table = np.array([*self.table, IGNORE], np.int32)  # the last entry is for numbers not in the table
            ids = table[np.where((ids >= 0) & (ids < len(self.table)), ids, len(self.table))]
        return np.where((ids >= 0) & (ids < self.count) & (ids != self.void), ids, np.int32(IGNORE))


@dataclass(frozen=True, slots=True)
class ClassMasks:
    """Class ids from one black-and-white image per class, on disk.

    Attributes:
        paths: one per class, in the order of the scene's classes; None if a class has no image (it is not visible).
        width, height: the photograph's size, to which masks are resized (nearest pixel).
    """

    paths: tuple[Path | None, ...]
    width: int
    height: int

    def load_masks(self) -> Bool[Array, "classes h w"]:
        """Which pixels each class has: white (255) ones; in JPEGs, which blur, those nearer to white than to black.

        Raises:
            DataError: a file cannot be read.
        """
        from PIL import Image

        masks = np.zeros((len(self.paths), self.height, self.width), np.bool_)
        for idx, path in enumerate(self.paths):
            if path is not None:
                grey = (
                    Image.fromarray(load_rgb(path))
                    .convert("L")
                    .resize((self.width, self.height), Image.Resampling.NEAREST)
                )
                least = 128 if path.suffix.lower() in (".jpg", ".jpeg") else 255
                masks[idx] = np.asarray(grey) >= least
        return masks

    def load(self) -> Int32[Array, "h w"]:
        """Id per pixel, `IGNORE` for pixels with no class or several."""
        return one_class_a_pixel(self.load_masks())


@dataclass(frozen=True, slots=True)
class PolygonMasks:
    """Class ids from polygons, as LERF-OVS annotates its views: see `read_polygons`.

    Attributes:
        path: the JSON file.
        classes: the scene's classes, in order.
        camera: the photograph's pinhole.
        distortion: lens distortion of the annotated photograph, or None.
    """

    path: Path
    classes: tuple[str, ...]
    camera: Camera
    distortion: Distortion | None = None

    def load_masks(self) -> Bool[Array, "classes h w"]:
        """Which pixels each class has: the union of its polygons, borders included, resampled to the nearest pixel.

        Raises:
            DataError: the file cannot be read, or is not an annotation.
        """
        from PIL import Image

        size, polygons = read_polygons(self.path)
        stored = self.camera if self.distortion is None else self.distortion.camera
        masks = np.zeros((len(self.classes), self.camera.height, self.camera.width), np.bool_)
        for idx, whole in enumerate(drawn_polygons(size, polygons, self.classes)):
            canvas = Image.fromarray(whole)
            drawn = np.asarray(canvas.resize((stored.width, stored.height), Image.Resampling.NEAREST))
            if self.distortion is not None:
                drawn = straighten_nearest(drawn, self.distortion, self.camera, outside=False)
            masks[idx] = drawn
        return masks

    def load(self) -> Int32[Array, "h w"]:
        """Id per pixel, `IGNORE` for pixels with no class or several."""
        return one_class_a_pixel(self.load_masks())


def one_class_a_pixel(masks: Bool[Array, "classes h w"]) -> Int32[Array, "h w"]:
    """The class of pixels claimed by exactly one mask, `IGNORE` for the others."""
    if not len(masks):
        return np.full(masks.shape[1:], IGNORE, np.int32)
    return np.where(masks.sum(axis=0) == 1, masks.argmax(axis=0), IGNORE).astype(np.int32)


def drawn_polygons(
    size: tuple[int, int], polygons: Sequence[tuple[str, list[tuple[int, int]]]], classes: Sequence[str]
) -> Bool[Array, "classes h w"]:
    """One mask per class: the union of its polygons, borders included.

    Args:
        size: width, height of the annotated image.
        polygons: category and corners, from `read_polygons`.
        classes: the categories to draw, in order.
    """
    from PIL import Image, ImageDraw

    masks = np.zeros((len(classes), size[1], size[0]), np.bool_)
    for idx, name in enumerate(classes):
        canvas = Image.new("1", size)
        pen = ImageDraw.Draw(canvas)
        for category, points in polygons:
            if category == name and len(points) > 1:
                pen.polygon(points, fill=1, outline=1)
        masks[idx] = np.asarray(canvas)
    return masks


def masks_of(truth: LabelImage | ClassMasks | PolygonMasks, num_classes: int) -> Bool[Array, "classes h w"]:
    """One mask per class from any kind of truth; those of `ClassMasks` and `PolygonMasks` may overlap."""
    if isinstance(truth, LabelImage):
        ids = truth.load()
        return np.asarray(ids == np.arange(num_classes)[:, None, None])
    return truth.load_masks()


def other_size(truth: LabelImage | ClassMasks | PolygonMasks, camera: Camera) -> tuple[Path, tuple[int, int]] | None:
    """A truth file whose size (width, height) differs from the photograph's, and its size; None if all match."""
    if isinstance(truth, PolygonMasks):
        stored = camera if truth.distortion is None else truth.distortion.camera
        size = read_polygons(truth.path)[0]
        return (truth.path, size) if size != (stored.width, stored.height) else None
    paths = [path for path in truth.paths if path is not None] if isinstance(truth, ClassMasks) else [truth.path]
    for path in paths:
        header = read_header(path) if path.suffix != ".npy" else None
        if header is not None and header.size != (camera.width, camera.height):
            return path, header.size
    return None


def read_polygons(path: Path) -> tuple[tuple[int, int], list[tuple[str, list[tuple[int, int]]]]]:
    """Read a LERF-OVS annotation.

        {info: {width, height}, objects: [{category, segmentation: [[x, y], …] or a list of such}]}

    Returns:
        Width and height of the annotated image; category and corners (whole pixels) of each polygon.

    Raises:
        DataError: the file is missing, not valid JSON, or has other keys.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        size = int(data["info"]["width"]), int(data["info"]["height"])
        polygons = [
            (str(one["category"]), _corners(part)) for one in data["objects"] for part in _parts(one["segmentation"])
        ]
    except FileNotFoundError:
        raise DataError(f"Annotation {path} does not exist.", "Restore it.") from None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{path} is not an annotation with info (width, height) and objects (category, segmentation): "
            f"{type(error).__name__} {error}.",
            "It is truncated or of another format: export it again.",
        ) from None
    if not (0 < size[0] < 1 << 16 and 0 < size[1] < 1 << 16):
        raise DataError(f"{path} is for an image of {size[0]}x{size[1]}.", "Correct info.width and info.height.")
    return size, polygons


def _parts(segmentation: Any) -> list[Any]:
    """Polygons of an object, which may store one polygon (a list of points) or a list of polygons."""
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("an object without a polygon")
    return [segmentation] if np.ndim(segmentation[0]) == 1 else segmentation


def _corners(points: Any) -> list[tuple[int, int]]:
    corners = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    if not np.isfinite(corners).all() or (np.abs(corners) > 1 << 20).any():
        raise ValueError("a corner far outside the image")
    return [(int(x), int(y)) for x, y in corners]
