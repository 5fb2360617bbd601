"""Twelve kinds of furniture, each a function from a random generator to its parts: shape, size and colour vary.

A piece stands on z = 0 around the origin, its back to -y and its front to +y, metres.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ov3d.common.worlds.primitives import Primitive, solid
from ov3d.common.worlds.textures import Material, fabric, wood

Random = np.random.Generator
Colour = tuple[float, float, float]

WOODS: tuple[Colour, ...] = ((0.62, 0.44, 0.27), (0.45, 0.29, 0.17), (0.78, 0.63, 0.44), (0.88, 0.86, 0.82))
FABRICS: tuple[Colour, ...] = (
    (0.30, 0.38, 0.50),
    (0.55, 0.25, 0.22),
    (0.40, 0.46, 0.34),
    (0.62, 0.58, 0.52),
    (0.28, 0.28, 0.31),
    (0.70, 0.55, 0.30),
)
PAINTS: tuple[Colour, ...] = (
    (0.85, 0.84, 0.80),
    (0.72, 0.30, 0.24),
    (0.25, 0.42, 0.55),
    (0.86, 0.68, 0.25),
    (0.35, 0.52, 0.40),
    (0.24, 0.24, 0.26),
)
METALS: tuple[Colour, ...] = ((0.62, 0.63, 0.65), (0.22, 0.22, 0.24), (0.70, 0.58, 0.35))


def _wood(rng: Random) -> Material:
    return Material(WOODS[rng.integers(len(WOODS))], wood(), 0.8, grain=True)


def _fabric(rng: Random) -> Material:
    return Material(FABRICS[rng.integers(len(FABRICS))], fabric(), 0.25)


def _paint(rng: Random) -> Material:
    return Material(PAINTS[rng.integers(len(PAINTS))])


def _metal(rng: Random) -> Material:
    return Material(METALS[rng.integers(len(METALS))], matte=0.4)


def _legs(rng: Random, width: float, depth: float, height: float, material: Material) -> list[Primitive]:
    """Four legs under the corners of a top, square or round."""
    thick = float(rng.uniform(0.035, 0.06))
    shape, taper = ("box", 1.0) if rng.random() < 0.5 else ("frustum", 1.25)
    x, y = width / 2 - thick, depth / 2 - thick
    size = (thick, thick, height)
    return [
        solid("box" if shape == "box" else "frustum", (sx * x, sy * y, height / 2), size, material, taper=taper)
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]


def bed(rng: Random) -> list[Primitive]:
    """Frame, mattress, cover, one or two pillows, a headboard."""
    width, length, height = rng.uniform(0.95, 1.7), rng.uniform(1.95, 2.1), rng.uniform(0.28, 0.40)
    frame, cover, linen = _wood(rng), _fabric(rng), Material((0.92, 0.91, 0.88), fabric(), 0.25)
    parts = [
        solid("box", (0, 0, height / 2), (width, length, height), frame),
        solid("box", (0, 0, height + 0.09), (width - 0.06, length - 0.06, 0.18), linen),
        solid("box", (0, 0.28, height + 0.185), (width - 0.04, length - 0.62, 0.03), cover),
        solid("box", (0, -length / 2 - 0.025, 0.45), (width, 0.05, rng.uniform(0.85, 0.9)), frame),
    ]
    num_pillows = 1 if width < 1.2 else 2
    for k in range(num_pillows):
        x = (k - (num_pillows - 1) / 2) * width / 2
        parts.append(solid("ellipsoid", (x, -length / 2 + 0.25, height + 0.2), (0.62, 0.4, 0.2), linen))
    return parts


def waste_bin(rng: Random) -> list[Primitive]:
    """A bucket that widens upwards, with a rim."""
    width, height, material = rng.uniform(0.24, 0.36), rng.uniform(0.30, 0.48), _paint(rng)
    return [
        solid("frustum", (0, 0, height / 2), (width, width, height), material, taper=float(rng.uniform(1.0, 1.3))),
        solid("ellipsoid", (0, 0, height), (width * 0.9, width * 0.9, 0.06), _metal(rng)),
    ]


def cabinet(rng: Random) -> list[Primitive]:
    """A chest of drawers with knobs on a plinth."""
    width, depth, height = rng.uniform(0.7, 1.2), rng.uniform(0.40, 0.50), rng.uniform(0.75, 1.05)
    body, front, knob = _wood(rng), _wood(rng), _metal(rng)
    parts = [
        solid("box", (0, 0, 0.04), (width - 0.06, depth - 0.06, 0.08), Material((0.2, 0.18, 0.16))),
        solid("box", (0, 0, 0.08 + (height - 0.08) / 2), (width, depth, height - 0.08), body),
    ]
    rows, columns = int(rng.integers(3, 5)), int(rng.integers(1, 3))
    across, down = (width - 0.04) / columns, (height - 0.12) / rows
    for r in range(rows):
        for c in range(columns):
            x, z = (c - (columns - 1) / 2) * across, 0.10 + (r + 0.5) * down
            parts.append(solid("box", (x, depth / 2 + 0.006, z), (across - 0.02, 0.016, down - 0.02), front))
            parts.append(solid("ellipsoid", (x, depth / 2 + 0.025, z), (0.04, 0.03, 0.04), knob))
    return parts


def chair(rng: Random) -> list[Primitive]:
    """Four legs, a seat, a back of one board or of slats, sometimes a cushion."""
    width, depth, seat = rng.uniform(0.42, 0.50), rng.uniform(0.42, 0.50), rng.uniform(0.43, 0.48)
    back, material = rng.uniform(0.38, 0.52), _wood(rng) if rng.random() < 0.7 else _paint(rng)
    parts = _legs(rng, width, depth, seat - 0.02, material)
    parts.append(solid("box", (0, 0, seat), (width, depth, 0.04), material))
    for side in (-1, 1):
        x = side * (width / 2 - 0.02)
        parts.append(solid("box", (x, -depth / 2 + 0.02, seat + back / 2), (0.04, 0.04, back), material))
    boards = int(rng.integers(1, 4))
    for k in range(boards):
        z = seat + back * (0.55 if boards == 1 else 0.35 + 0.55 * k / (boards - 1))
        tall = back * (0.75 if boards == 1 else 0.14)
        parts.append(solid("box", (0, -depth / 2 + 0.02, z), (width - 0.08, 0.025, tall), material))
    if rng.random() < 0.5:
        parts.append(solid("box", (0, 0.02, seat + 0.04), (width - 0.06, depth - 0.08, 0.04), _fabric(rng)))
    return parts


def desk(rng: Random) -> list[Primitive]:
    """A top on two side panels, with drawers on one side and a modesty board."""
    width, depth, height = rng.uniform(1.1, 1.5), rng.uniform(0.6, 0.75), rng.uniform(0.72, 0.76)
    top, body, knob = _wood(rng), _wood(rng), _metal(rng)
    side = 1 if rng.random() < 0.5 else -1
    parts = [
        solid("box", (0, 0, height - 0.015), (width, depth, 0.03), top),
        solid("box", (-side * (width / 2 - 0.02), 0, (height - 0.03) / 2), (0.03, depth - 0.04, height - 0.03), body),
        solid("box", (side * (width / 2 - 0.2), 0, (height - 0.03) / 2), (0.38, depth - 0.04, height - 0.03), body),
        solid("box", (-side * 0.18, -depth / 2 + 0.05, height - 0.25), (width - 0.42, 0.02, 0.42), body),
    ]
    for k in range(3):
        z = 0.12 + k * 0.22
        x = side * (width / 2 - 0.2)
        parts.append(solid("box", (x, depth / 2 - 0.012, z), (0.34, 0.02, 0.19), top))
        parts.append(solid("ellipsoid", (x, depth / 2 + 0.005, z), (0.08, 0.025, 0.025), knob))
    return parts


def lamp(rng: Random) -> list[Primitive]:
    """A standard lamp: foot, rod, shade."""
    height, shade, metal = rng.uniform(1.35, 1.7), rng.uniform(0.32, 0.46), _metal(rng)
    cloth = Material((0.95, 0.88, float(rng.uniform(0.55, 0.82))), matte=0.85)
    return [
        solid("frustum", (0, 0, 0.015), (0.3, 0.3, 0.03), metal),
        solid("frustum", (0, 0, height / 2), (0.03, 0.03, height - 0.1), metal),
        solid("frustum", (0, 0, height - 0.14), (shade, shade, 0.28), cloth, taper=float(rng.uniform(0.45, 0.95))),
    ]


def plant(rng: Random) -> list[Primitive]:
    """Leaves around a short stem in a pot."""
    pot, height = rng.uniform(0.26, 0.36), rng.uniform(0.8, 1.25)
    leaf: Colour = (float(rng.uniform(0.16, 0.28)), float(rng.uniform(0.42, 0.56)), float(rng.uniform(0.15, 0.25)))
    parts = [
        solid("frustum", (0, 0, 0.15), (pot, pot, 0.30), _paint(rng), taper=1.25),
        solid("frustum", (0, 0, 0.45), (0.04, 0.04, 0.4), Material((0.35, 0.26, 0.16))),
    ]
    for k in range(int(rng.integers(9, 15))):
        angle, out, up = k * 2.4, rng.uniform(0.06, 0.20), rng.uniform(0.5, height - 0.14)
        bright = float(rng.uniform(0.8, 1.25))
        green = Material((leaf[0] * bright, leaf[1] * bright, leaf[2] * bright))
        blade = solid("ellipsoid", (0, 0, 0), (0.26, 0.10, 0.05), green)
        blade.world_from_local[:3, :3] = _turn(angle, -rng.uniform(0.2, 1.1)) @ blade.world_from_local[:3, :3]
        blade.world_from_local[:3, 3] = (out * np.cos(angle), out * np.sin(angle), up)
        parts.append(blade)
    return parts


def _turn(yaw: float, pitch: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Rotation about z by `yaw` after one about y by `pitch`, radians."""
    c, s = np.cos(yaw), np.sin(yaw)
    cp, sp = np.cos(pitch), np.sin(pitch)
    about_z = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    return about_z @ np.array([[cp, 0.0, sp], [0.0, 1.0, 0.0], [-sp, 0.0, cp]])


def shelf(rng: Random) -> list[Primitive]:
    """An open bookcase with rows of books."""
    width, depth, height = rng.uniform(0.7, 1.1), rng.uniform(0.28, 0.36), rng.uniform(1.3, 1.9)
    material, num_boards = _wood(rng), int(rng.integers(4, 6))
    parts = [
        solid("box", (sx * (width / 2 - 0.0125), 0, height / 2), (0.025, depth, height), material) for sx in (-1, 1)
    ]
    parts.append(solid("box", (0, -depth / 2 + 0.008, height / 2), (width, 0.016, height), material))
    gap = (height - 0.1) / (num_boards - 1)
    for k in range(num_boards):
        z = 0.08 + k * gap
        parts.append(solid("box", (0, 0, z), (width - 0.05, depth - 0.01, 0.025), material))
        if k == num_boards - 1:
            break
        x = -width / 2 + 0.04
        stop = width / 2 - rng.uniform(0.06, 0.4)
        while x < stop:
            thick, tall = rng.uniform(0.03, 0.07), gap * rng.uniform(0.55, 0.85)
            place = (x + thick / 2, -0.02, z + 0.0125 + tall / 2)
            parts.append(solid("box", place, (thick - 0.004, depth * 0.7, tall), _paint(rng)))
            x += thick
    return parts


def sofa(rng: Random) -> list[Primitive]:
    """Base, back, arms and two or three seat cushions."""
    width, depth, seat, back = rng.uniform(1.5, 2.1), rng.uniform(0.8, 0.95), 0.40, rng.uniform(0.72, 0.82)
    cloth, arm = _fabric(rng), rng.uniform(0.14, 0.22)
    parts = [
        solid("box", (0, 0, 0.16), (width, depth, 0.24), cloth),
        solid("box", (0, -depth / 2 + 0.1, back / 2 + 0.02), (width, 0.2, back - 0.04), cloth),
    ]
    for side in (-1, 1):
        parts.append(solid("box", (side * (width - arm) / 2, 0, 0.32), (arm, depth, 0.56), cloth))
        for y in (-depth / 2 + 0.06, depth / 2 - 0.06):
            parts.append(solid("box", (side * (width / 2 - 0.06), y, 0.03), (0.05, 0.05, 0.06), Material(WOODS[1])))
    num_cushions = int(rng.integers(2, 4))
    each = (width - 2 * arm) / num_cushions
    for k in range(num_cushions):
        x = (k - (num_cushions - 1) / 2) * each
        parts.append(solid("box", (x, 0.08, seat - 0.05), (each - 0.015, depth - 0.22, 0.16), cloth))
        parts.append(solid("box", (x, -depth / 2 + 0.25, seat + 0.18), (each - 0.03, 0.12, 0.34), cloth))
    return parts


def stool(rng: Random) -> list[Primitive]:
    """A round seat on a column, or on four legs."""
    width, height = rng.uniform(0.32, 0.40), rng.uniform(0.45, 0.68)
    seat = solid("frustum", (0, 0, height - 0.03), (width, width, 0.06), _fabric(rng))
    if rng.random() < 0.5:
        metal = _metal(rng)
        column = solid("frustum", (0, 0, height / 2 - 0.02), (0.05, 0.05, height - 0.06), metal)
        return [seat, column, solid("frustum", (0, 0, 0.015), (width, width, 0.03), metal, taper=0.7)]
    return [seat, *_legs(rng, width * 0.75, width * 0.75, height - 0.06, _wood(rng))]


def table(rng: Random) -> list[Primitive]:
    """A rectangular top on four legs, or a round one on a column."""
    height, material = rng.uniform(0.70, 0.77), _wood(rng)
    if rng.random() < 0.35:
        width = rng.uniform(0.8, 1.1)
        return [
            solid("frustum", (0, 0, height - 0.02), (width, width, 0.04), material),
            solid("frustum", (0, 0, height / 2), (0.10, 0.10, height - 0.06), material),
            solid("frustum", (0, 0, 0.02), (width * 0.55, width * 0.55, 0.04), material, taper=0.8),
        ]
    width, depth = rng.uniform(1.1, 1.6), rng.uniform(0.7, 0.9)
    parts = _legs(rng, width, depth, height - 0.04, material)
    parts.append(solid("box", (0, 0, height - 0.02), (width, depth, 0.04), material))
    parts.append(solid("box", (0, 0, height - 0.08), (width - 0.12, depth - 0.12, 0.08), material))
    return parts


def television(rng: Random) -> list[Primitive]:
    """A dark screen on a foot, on a low bench."""
    width, height, wide = rng.uniform(0.8, 1.1), rng.uniform(0.30, 0.42), rng.uniform(1.2, 1.5)
    body, tall = Material((0.07, 0.07, 0.08)), 0.56 * width
    return [
        solid("box", (0, 0, height / 2), (wide, 0.4, height), _wood(rng)),
        solid("box", (0, 0, height + 0.01), (0.36, 0.2, 0.02), body),
        solid("box", (0, -0.03, height + 0.05), (0.08, 0.04, 0.08), body),
        solid("box", (0, 0, height + 0.08 + tall / 2), (width, 0.045, tall), body),
        solid(
            "box",
            (0, 0.024, height + 0.085 + tall / 2),
            (width - 0.03, 0.002, tall - 0.04),
            Material((0.12, 0.14, 0.18)),
        ),
    ]


FURNITURE: dict[str, Callable[[Random], list[Primitive]]] = {
    "bed": bed,
    "bin": waste_bin,
    "cabinet": cabinet,
    "chair": chair,
    "desk": desk,
    "lamp": lamp,
    "plant": plant,
    "shelf": shelf,
    "sofa": sofa,
    "stool": stool,
    "table": table,
    "television": television,
}
"""Makers by class name."""

AGAINST_WALL = frozenset({"bed", "cabinet", "desk", "shelf", "sofa", "television"})
"""Kinds placed with their back to a wall; the others are placed anywhere."""
