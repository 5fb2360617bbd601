"""Annotations on pictures of answers: outlines and numbers of objects, a legend with the range of scores, a scale bar."""

from __future__ import annotations

import io
import math
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ov3d.common.asking.answer import Answer
from ov3d.common.base.files import write_bytes
from ov3d.common.base.shapes import Array, Bool, Float, Int32, UInt8
from ov3d.common.exporters.colours import heat_colours

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

INK = (245, 245, 245)
SHADE = (16, 16, 20)
DIMMED = 0.8
COLOURFUL = 0.35
"""Brightness and saturation of the picture under the heat: enough to recognise the scene, too little to look like heat."""
HEAT_ALPHA = 0.7
SHADING = 0.45
"""How much the picture's brightness modulates the heat, so that what is below stays visible."""


def blend_heat(rgb: UInt8[Array, "h w 3"], heat: Float[Array, "h w"]) -> UInt8[Array, "h w 3"]:
    """Overlay heat in [0, 1] on a picture; cold areas show the picture dimmed and greyed."""
    base = rgb.astype(np.float32)
    grey = base.mean(axis=2, keepdims=True)
    base = DIMMED * (grey + COLOURFUL * (base - grey))
    alpha = HEAT_ALPHA * np.clip(1.5 * heat, 0, 1)[..., None]
    lit = heat_colours(heat) * (1 - SHADING + SHADING * np.minimum(grey / 128, 1.5))
    return np.rint(np.minimum(base * (1 - alpha) + alpha * lit, 255)).astype(np.uint8)


def soften(values: Float[Array, "h w"], radius: float) -> Float[Array, "h w"]:
    """Gaussian blur of values in [0, 1] (in 8 bits), to hide the squares of painted points."""
    from PIL import Image, ImageFilter

    picture = Image.fromarray(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) / 255


def tidied(ranks: Int32[Array, "h w"], radius: float) -> Int32[Array, "h w"]:
    """A map of object ranks (-1: none) with ragged edges smoothed: each object is blurred, then thresholded at one half."""
    result = np.full(ranks.shape, -1, np.int32)
    for rank in np.unique(ranks[ranks > 0]).tolist():
        result[soften((ranks == rank).astype(np.float32), radius) > 0.5] = rank
    return result


def draw_outlines(rgb: UInt8[Array, "h w 3"], ranks: Int32[Array, "h w"], thickness: int) -> UInt8[Array, "h w 3"]:
    """Outline the objects of a map of ranks (-1: none): light with a dark border, visible on any background."""
    result = rgb.copy()
    inner, outer = _shrunk(ranks, thickness), _shrunk(ranks, -thickness)
    result[(outer != ranks) & (ranks < 0)] = SHADE
    result[(ranks > 0) & (inner != ranks)] = INK
    return result


def _shrunk(ranks: Int32[Array, "h w"], steps: int) -> Int32[Array, "h w"]:
    """The map with every object's edge shrunk by `steps` pixels, or grown if `steps` is negative."""
    grown = ranks.copy()
    for _ in range(abs(steps)):
        padded = np.pad(grown, 1, mode="edge")
        sides = np.stack([padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]])
        if steps > 0:
            grown = np.where((sides == grown).all(axis=0), grown, -1)
        else:
            grown = np.where(grown < 0, sides.max(axis=0), grown)
    return grown


def draw_badge(draw: ImageDraw, x: float, y: float, text: str, size: int) -> None:
    """A number in a disc around (x, y)."""
    radius = 0.72 * size
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=SHADE, outline=INK, width=max(1, size // 10))
    draw.text((x, y), text, fill=INK, font=typeface(size), anchor="mm")


def badge_place(mask: Bool[Array, "h w"]) -> tuple[float, float]:
    """A pixel (x, y) of a mask near its middle."""
    rows, columns = np.nonzero(mask)
    middle = np.argmin((rows - np.median(rows)) ** 2 + (columns - np.median(columns)) ** 2)
    return float(columns[middle]) + 0.5, float(rows[middle]) + 0.5


def with_legend(picture: Image, answer: Answer, caption: str) -> Image:
    """The picture above a strip with the prompt, the place, and the colour scale of scores."""
    from PIL import Image, ImageDraw

    width, height = picture.size
    size = max(11, min(20, width // 42))
    strip = round(3.6 * size)
    page = Image.new("RGB", (width, height + strip), SHADE)
    page.paste(picture, (0, 0))
    draw = ImageDraw.Draw(page)
    bar = max(60, round(0.3 * width))
    left, top = width - bar - 2 * size, height + round(0.7 * size)
    ramp = heat_colours(np.tile(np.linspace(0, 1, bar, dtype=np.float32), (size, 1)))
    page.paste(Image.fromarray(ramp), (left, top))
    low, high = answer.score_range
    for value, anchor, x in ((low, "la", left), (high, "ra", left + bar)):
        draw.text((x, top + 1.25 * size), f"{value:.2f}", fill=INK, font=typeface(size), anchor=anchor)
    mark = left + bar * min(max((answer.threshold - low) / max(high - low, 1e-9), 0), 1)
    draw.line((mark, top - 3, mark, top + size + 3), fill=INK, width=max(1, size // 8))
    label = f"{answer.threshold:.2f}"
    # It must be clear of the numbers at both ends.
    if min(mark - left, left + bar - mark) > 1.6 * draw.textlength(label, font=typeface(size)):
        draw.text((mark, top + 1.25 * size), label, fill=INK, font=typeface(size), anchor="ma")
    room = left - 2 * size
    lines = (f"“{answer.prompt}”", caption if answer.found else f"{caption}: nothing matches")
    for line, y in zip(lines, (top - 0.1 * size, top + 1.25 * size), strict=True):
        draw.text((size, y), _fitted(draw, line, size, room), fill=INK, font=typeface(size), anchor="la")
    return page


def draw_scale_bar(draw: ImageDraw, pixels_per_unit: float, unit: str, x: float, y: float, width: float) -> float:
    """A bar of a round length, at most `width` pixels long, from (x, y) to the right; returns its length in units."""
    length = round_length(width / pixels_per_unit)
    end, size = x + length * pixels_per_unit, 15
    for fill, thick in ((SHADE, 6), (INK, 2)):
        draw.line((x, y, end, y), fill=fill, width=thick)
        for tick in (x, end):
            draw.line((tick, y - 5, tick, y + 5), fill=fill, width=thick)
    label = f"{length:g} {unit}"
    draw.text((x, y - 8), label, fill=INK, font=typeface(size), anchor="lb", stroke_width=2, stroke_fill=SHADE)
    return length


def round_length(most: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is at most `most` > 0."""
    power = 10.0 ** math.floor(math.log10(most))
    return max((step * power for step in (1.0, 2.0, 5.0) if step * power <= most), default=power)


def _fitted(draw: ImageDraw, text: str, size: int, room: int) -> str:
    """The text, cut so that it is at most `room` pixels wide."""
    if draw.textlength(text, font=typeface(size)) <= room:
        return text
    while len(text) > 1 and draw.textlength(text + "…", font=typeface(size)) > room:
        text = text[:-1]
    return text + "…"


def save_png(path: str | Path, picture: Image, **options: Any) -> Path:
    """Write a picture as PNG, atomically; the options are those of Pillow's encoder."""
    stream = io.BytesIO()
    picture.save(stream, format="PNG", **options)
    return write_bytes(path, stream.getvalue())


@lru_cache(maxsize=16)
def typeface(size: int) -> Any:
    """Pillow's own typeface: nothing of the machine's is needed."""
    from PIL import ImageFont

    return ImageFont.load_default(size)
