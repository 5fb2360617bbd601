"""Pictures of a LiDAR sweep to look at: its points on each photograph, and the sweep from above.

On photographs, points are coloured by depth or by label: where a camera's rotation or time is wrong, poles and cars are beside
their pixels. From above, x is to the right and y up, as the sensor has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Float, Int32, UInt8
from ov3d.common.exporters.colours import heat_colours, heat_of
from ov3d.common.exporters.drawing import INK, SHADE, typeface
from ov3d.common.exporters.images import GROUND, drawn_camera, safe_name, write_png
from ov3d.common.exporters.labelled import NO_LABEL_COLOUR, palette
from ov3d.common.exporters.splat import EMPTY, paint
from ov3d.common.lifting.projection import VisiblePoints
from ov3d.common.lifting.sweep_projection import project_sweep
from ov3d.common.scenes.scene import Frame, PointCloud, Scene

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

DEPTHS = (2.0, 60.0)
"""Metres at both ends of the colours of depth, which are spaced by its logarithm."""
HEIGHTS = (-2.5, 3.0)
"""Metres above the sensor at both ends of the colours of height: a road to a van's roof and more."""
DARKEST = 0.3
"""Heat colours below that are as dark as a road in the shade."""
LIGHTER = 0.35
"""How far class colours are moved towards white, for the same reason."""
DIMMED = 0.55
"""Brightness of the photograph under points."""
COVERED = 0.1
"""Share of the photograph that points cover, roughly: few are drawn larger."""
SMALLEST = 800
"""Photographs with a shorter long side are enlarged, pixel by pixel, so that points and legend are readable."""
REACH = 50.0
"""Metres that the view from above shows to each side."""
RING_STEP = 10
SIDE = 1000
WEDGE = 4.0
"""Metres of each camera's field of view that are drawn from above."""


@dataclass(frozen=True, slots=True, eq=False)
class Colouring:
    """Colours of points, and what explains them.

    Attributes:
        rgb: of each point.
        title: what is coloured.
        ends: texts at the low and high end of a ramp; None for classes.
        classes: names and colours of the classes that occur; empty for a ramp.
    """

    rgb: UInt8[Array, "n 3"]
    title: str
    ends: tuple[str, str] | None = None
    classes: tuple[tuple[str, tuple[int, int, int]], ...] = ()


def colours_of_range(values: Float[Array, " n"], low: float, high: float, title: str, unit: str = "") -> Colouring:
    """Colours from dark (low) to pale (high)."""
    heat = DARKEST + (1 - DARKEST) * heat_of(values, low, high)
    return Colouring(heat_colours(heat), title, (f"{low:g}{unit}", f"{high:g}{unit}"))


def colours_of_depth(depth: Float[Array, " n"]) -> Colouring:
    """Near points are pale, far ones dark, by the logarithm of depth."""
    low, high = np.log(DEPTHS)
    logs = np.log(np.clip(depth, *DEPTHS))
    shown = colours_of_range(high + low - logs, low, high, "depth")
    return Colouring(shown.rgb, "depth", (f"{DEPTHS[1]:g} m", f"{DEPTHS[0]:g} m"))


def colours_of_labels(labels: Int32[Array, " n"], classes: tuple[str, ...]) -> Colouring:
    """A colour per class; grey for points without a label."""
    table = np.concatenate([palette(len(classes)), [NO_LABEL_COLOUR]])
    table = np.rint(255 - (1 - LIGHTER) * (255 - table.astype(np.float32))).astype(np.uint8)
    place = np.where((labels >= 0) & (labels < len(classes)), labels, len(classes))
    present = [int(one) for one in np.unique(place)]
    names = (*classes, "no label")
    entries = tuple((names[one], (int(r), int(g), int(b))) for one in present for r, g, b in [table[one]])
    return Colouring(table[place], "labels", classes=entries)


def overlay_of_sweep(
    frame: Frame, view: VisiblePoints, colouring: Colouring, caption: str = ""
) -> UInt8[Array, "h w 3"]:
    """A photograph, dimmed, with points; the nearer hide the farther.

    Args:
        frame: the photograph; one longer than 1280 pixels is drawn smaller.
        view: where points land in it.
        colouring: of the points of `view`.
        caption: what is shown.

    Raises:
        DataError: the photograph cannot be read.
    """
    from PIL import Image

    photograph, camera = Image.fromarray(frame.load_image()), drawn_camera(frame.camera)
    enlarged = -(-SMALLEST // max(camera.width, camera.height))
    camera = camera.resized(enlarged * camera.width, enlarged * camera.height)
    if photograph.size != (camera.width, camera.height):
        resample = Image.Resampling.LANCZOS if enlarged == 1 else Image.Resampling.NEAREST
        photograph = photograph.resize((camera.width, camera.height), resample)
    scale = (camera.width / frame.camera.width, camera.height / frame.camera.height)
    side = np.sqrt(COVERED * camera.width * camera.height / max(len(view), 1))
    radius = np.full(len(view), int(np.clip(round((side - 1) / 2), 1, 3)), np.int64)
    owner = paint(view.uv * scale, view.z, radius, camera.width, camera.height)
    pixels = np.rint(DIMMED * np.asarray(photograph, np.float32)).astype(np.uint8)
    pixels[owner != EMPTY] = colouring.rgb[owner[owner != EMPTY]]
    return np.asarray(_explained(Image.fromarray(pixels), colouring, caption))


def sweep_from_above(scene: Scene, colouring: Colouring, caption: str = "") -> UInt8[Array, "h w 3"]:
    """A sweep from above, with rings every 10 m around the sensor, and where each camera is and looks.

    Args:
        scene: with a cloud in the sensor's frame.
        colouring: of its points; higher ones hide lower ones.
        caption: what is shown.
    """
    from PIL import Image, ImageDraw

    xyz = _cloud(scene).xyz
    scale = SIDE / (2 * REACH)
    place = (xyz[:, :2].astype(np.float64) * (1, -1) + REACH) * scale
    shown = np.flatnonzero(((place >= 0) & (place < SIDE)).all(axis=1))
    page = Image.new("RGB", (SIDE, SIDE), GROUND)
    draw = ImageDraw.Draw(page)
    for ring in range(RING_STEP, round(REACH) + 1, RING_STEP):
        _circle(draw, SIDE / 2, ring * scale, (80, 80, 90))
    pixels = np.array(page)
    owner = paint(place[shown], -xyz[shown, 2].astype(np.float64), np.ones(len(shown), np.int64), SIDE, SIDE)
    pixels[owner != EMPTY] = colouring.rgb[shown][owner[owner != EMPTY]]
    page = Image.fromarray(pixels)
    draw = ImageDraw.Draw(page)
    for ring in range(RING_STEP, round(REACH) + 1, RING_STEP):
        along = SIDE / 2 + ring * scale * np.sqrt(0.5)
        text = {"fill": INK, "font": typeface(14), "stroke_width": 2, "stroke_fill": SHADE}
        draw.text((along, along), f"{ring} m", anchor="mm", **text)
    for frame in scene.frames:
        _draw_camera(draw, frame, scale)
    draw.ellipse((SIDE / 2 - 5, SIDE / 2 - 5, SIDE / 2 + 5, SIDE / 2 + 5), fill=INK, outline=SHADE, width=2)
    return np.asarray(_explained(page, colouring, caption))


def write_sweep_pictures(folder: Path, scene: Scene) -> Iterator[Path | DataError]:
    """Write depth-CAMERA.png and above-height.png; where the sweep has them, above-intensity, labels-CAMERA and above-labels.

    A photograph that cannot be read gives its error in place of the paths.

    Args:
        folder: where to; it is made.
        scene: a sweep.
    """
    cloud = _cloud(scene)
    labels = cloud.labels if scene.classes else None
    found = project_sweep(cloud.xyz, scene.frames)
    for frame, view in zip(scene.frames, found.views, strict=True):
        caption = f"{scene.name}, {frame.name}"
        try:
            picture = overlay_of_sweep(frame, view, colours_of_depth(view.z), caption)
            yield write_png(folder / f"depth-{safe_name(frame.name)}.png", picture)
            if labels is not None:
                shown = colours_of_labels(labels[view.point_idx], scene.classes)
                picture = overlay_of_sweep(frame, view, shown, caption)
                yield write_png(folder / f"labels-{safe_name(frame.name)}.png", picture)
        except DataError as error:
            yield error
    above = {"height": colours_of_range(cloud.xyz[:, 2], *HEIGHTS, "height above the sensor", " m")}
    if cloud.intensity is not None:
        high = float(np.percentile(cloud.intensity, 95)) if len(cloud) else 1.0
        above["intensity"] = colours_of_range(cloud.intensity, 0.0, high, "intensity")
    if labels is not None:
        above["labels"] = colours_of_labels(labels, scene.classes)
    for name, colouring in above.items():
        yield write_png(folder / f"above-{name}.png", sweep_from_above(scene, colouring, f"{scene.name}, from above"))


def _cloud(scene: Scene) -> PointCloud:
    if scene.cloud is None:
        raise DataError(f"{scene.name} has no points.", "Give a LiDAR sweep.")
    return scene.cloud


def _draw_camera(draw: ImageDraw, frame: Frame, scale: float) -> None:
    """The left and right edge of what a camera sees, from where it is."""
    camera, pose = frame.camera, frame.world_from_camera
    ends = camera.unproject(np.array([[0.0, camera.cy], [camera.width, camera.cy]]), np.full(2, WEDGE))
    start, *corners = ((pose[:3, 3] + point @ pose[:3, :3].T)[:2] * (1, -1) for point in (np.zeros(3), *ends))
    x, y = ((start + REACH) * scale).tolist()
    for corner in corners:
        for fill, width in ((SHADE, 4), (INK, 1)):
            draw.line((x, y, *((corner + REACH) * scale).tolist()), fill=fill, width=width)


def _circle(draw: ImageDraw, middle: float, radius: float, colour: tuple[int, int, int]) -> None:
    draw.ellipse((middle - radius, middle - radius, middle + radius, middle + radius), outline=colour)


def _explained(picture: Image, colouring: Colouring, caption: str) -> Image:
    """The picture over a strip with the caption and the meaning of the colours."""
    from PIL import Image, ImageDraw

    width, height = picture.size
    size = max(11, min(18, width // 50))
    font, line, gap = typeface(size), round(1.7 * size), size
    measure = ImageDraw.Draw(picture)
    ramp = 12 * size
    # What the strip holds, in reading order: a text, its swatch and the swatch's width.
    items: list[tuple[str, UInt8[Array, "1 _ 3"] | None]] = [(caption, None)] if caption else []
    if colouring.ends is not None:
        heat = np.linspace(DARKEST, 1, ramp, dtype=np.float32)[None]
        items += [(f"{colouring.title}: {colouring.ends[0]}", None), (colouring.ends[1], heat_colours(heat))]
    items += [(name, np.full((1, size, 3), colour, np.uint8)) for name, colour in colouring.classes]
    places, x, y = [], gap, 0
    for text, swatch in items:
        across = round(measure.textlength(text, font=font)) + (0 if swatch is None else swatch.shape[1] + gap // 2)
        if x > gap and x + across > width - gap:
            x, y = gap, y + line
        places.append((x, y))
        x += across + gap
    page = Image.new("RGB", (width, height + y + line + gap // 2), SHADE)
    page.paste(picture, (0, 0))
    draw = ImageDraw.Draw(page)
    for (text, swatch), (left, top) in zip(items, places, strict=True):
        top += height + gap // 2
        if swatch is not None:
            page.paste(Image.fromarray(swatch.repeat(size, axis=0)), (left, top + size // 8))
            left += swatch.shape[1] + gap // 2
        draw.text((left, top), text, fill=INK, font=font, anchor="la")
    return page
