"""A confusion matrix as a picture: one row per true class, shares of its points in per cent, darker for more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Float64, Int64
from ov3d.common.exporters.drawing import save_png, typeface

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

CELL = 44
"""Pixels per cell."""

FONT_SIZE = 15

PAPER, INK, GREY = (255, 255, 255), (25, 28, 35), (150, 155, 165)
RIGHT, WRONG = (24, 105, 168), (186, 62, 32)
"""The diagonal is blue, everything else red, so that errors stand out."""


def write_confusion_png(
    path: str | Path, matrix: Int64[Array, "c c"], names: Sequence[str], *, title: str = ""
) -> Path:
    """Draw a confusion matrix, one row per true class, normalised by row; classes without points are left out.

    Args:
        path: the PNG to write.
        matrix: points of each (true class, predicted class).
        names: class names.
        title: a line above the matrix.

    Returns:
        The path.

    Raises:
        DataError: the number of names does not match the matrix.
        StorageError: it cannot be written.
    """
    if matrix.shape != (len(names), len(names)):
        raise DataError(
            f"A confusion matrix of shape {matrix.shape} has {len(names)} names.", "Give one name per class."
        )
    used = np.flatnonzero(matrix.sum(axis=0) + matrix.sum(axis=1))
    picture = _drawn(matrix[np.ix_(used, used)], [names[idx] for idx in used.tolist()], title)
    return save_png(path, picture, optimize=True)


def _drawn(matrix: Int64[Array, "c c"], names: Sequence[str], title: str) -> Image:
    from PIL import Image, ImageDraw

    total = matrix.sum(axis=1)
    share = matrix / np.maximum(total, 1)[:, None]
    font = typeface(FONT_SIZE)
    counts = [f"{count:,}" for count in total.tolist()]
    left, right = _text_width(names, font) + 20, _text_width([*counts, "points"], font) + 24
    top, grid = left + 30, CELL * len(names)
    size = max(left + grid + right, _text_width([title], font) + 24), top + grid + 16
    image = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(image)
    pen.text((12, 10), title, fill=INK, font=font)
    pen.text((left + grid + 10, top - 14), "points", fill=GREY, font=font, anchor="lm")
    for idx, (name, count) in enumerate(zip(names, counts, strict=True)):
        middle = CELL * idx + CELL // 2
        pen.text((left - 10, top + middle), name, fill=INK, font=font, anchor="rm")
        pen.text((left + grid + 10, top + middle), count, fill=GREY, font=font, anchor="lm")
        sideways = _sideways(name, font)
        image.paste(sideways, (left + middle - sideways.width // 2, top - 8 - sideways.height))
    _draw_cells(pen, share, total, left, top, font)
    return image


def _text_width(texts: Sequence[str], font: FreeTypeFont | ImageFont) -> int:
    return int(max((font.getlength(text) for text in texts), default=0))


def _sideways(text: str, font: FreeTypeFont | ImageFont) -> Image:
    """Text rotated to read upwards."""
    from PIL import Image, ImageDraw

    word = Image.new("RGB", (_text_width([text], font) + 2, FONT_SIZE + 8), PAPER)
    ImageDraw.Draw(word).text((0, word.height // 2), text, fill=INK, font=font, anchor="lm")
    return word.transpose(Image.Transpose.ROTATE_90)


def _draw_cells(
    pen: ImageDraw,
    share: Float64[Array, "c c"],
    total: Int64[Array, " c"],
    left: int,
    top: int,
    font: FreeTypeFont | ImageFont,
) -> None:
    """The grid; numbers from half a per cent up, rows without points are empty."""
    for row in range(len(share)):
        for column in range(len(share)):
            x, y = left + CELL * column, top + CELL * row
            box = (x, y, x + CELL - 2, y + CELL - 2)
            if not total[row]:
                pen.rectangle(box, fill=(244, 245, 247))
                continue
            part = float(share[row, column])
            pen.rectangle(box, fill=_shade(part, RIGHT if row == column else WRONG))
            if part >= 0.005:
                ink = PAPER if part > 0.45 else INK
                centre = (x + CELL / 2 - 1, y + CELL / 2 - 1)
                pen.text(centre, f"{100 * part:.0f}", fill=ink, font=font, anchor="mm")


def _shade(part: float, colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """From near white to the colour; the square root keeps a few per cent visible."""
    weight = 0.04 + 0.96 * part**0.5 if part > 0 else 0.03
    red, green, blue = (round(255 + (channel - 255) * weight) for channel in colour)
    return red, green, blue
