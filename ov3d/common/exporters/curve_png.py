"""A curve as a picture: the loss of a stage over its steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ov3d.common.exporters.drawing import save_png, typeface

SIZE = (720, 400)
MARGIN = (64, 36, 20, 36)
"""Left, top, right, bottom, pixels."""
INK, FAINT, LINE = (30, 30, 34), (220, 220, 224), (32, 96, 176)


def write_curve(path: Path, curves: Path, title: str, value: str = "loss") -> Path:
    """Draw one value of a JSONL file of curves against its steps.

    Args:
        path: the PNG.
        curves: lines of `step` and values, as `ov3d.common.learning.curves` writes them.
        title: written above.
        value: the value to draw; lines without it are skipped.
    """
    from PIL import Image, ImageDraw

    rows = [json.loads(line) for line in curves.read_text(encoding="utf-8").splitlines()]
    points = np.array([(row["step"], row[value]) for row in rows if value in row], float).reshape(-1, 2)
    picture = Image.new("RGB", SIZE, (255, 255, 255))
    draw, font = ImageDraw.Draw(picture), typeface(13)
    left, top, right, bottom = MARGIN[0], MARGIN[1], SIZE[0] - MARGIN[2], SIZE[1] - MARGIN[3]
    draw.text((left, 10), f"{title}: {value} over steps", fill=INK, font=font)
    if len(points):
        steps, values = points.T
        low, high = min(0.0, float(values.min())), max(float(values.max()), 1e-9)
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            y = bottom - share * (bottom - top)
            draw.line((left, y, right, y), fill=FAINT)
            draw.text((left - 6, y), f"{low + share * (high - low):.3g}", fill=INK, font=font, anchor="rm")
        x = left + steps / max(steps.max(), 1) * (right - left)
        y_line = bottom - (values - low) / (high - low) * (bottom - top)
        draw.line(list(zip(x.tolist(), y_line.tolist(), strict=True)), fill=LINE, width=2)
        draw.text((right, bottom + 8), f"{int(steps.max())}", fill=INK, font=font, anchor="ra")
        draw.text((left, bottom + 8), "0", fill=INK, font=font)
    return save_png(path, picture)
