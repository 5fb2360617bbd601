"""Cars, trucks, buses, bicycles and motorcycles of generated streets: shape, size and colour vary with the random generator.

A vehicle stands on z = 0 around the origin, its nose towards +x and its left to +y, metres.
"""

from __future__ import annotations

import numpy as np

from ov3d.common.worlds.primitives import Primitive, Triple, leaning, rod, solid
from ov3d.common.worlds.street_people import rider
from ov3d.common.worlds.textures import Material

Random = np.random.Generator

CAR_PAINTS: tuple[Triple, ...] = (
    (0.90, 0.90, 0.90),
    (0.66, 0.68, 0.70),
    (0.13, 0.13, 0.15),
    (0.36, 0.38, 0.41),
    (0.62, 0.12, 0.12),
    (0.14, 0.26, 0.52),
    (0.20, 0.40, 0.30),
    (0.74, 0.60, 0.30),
)
BUS_PAINTS: tuple[Triple, ...] = ((0.86, 0.62, 0.10), (0.78, 0.14, 0.14), (0.20, 0.50, 0.72), (0.32, 0.62, 0.34))
CARGO_PAINTS: tuple[Triple, ...] = ((0.92, 0.92, 0.90), (0.30, 0.42, 0.62), (0.78, 0.44, 0.18), (0.55, 0.57, 0.58))

RUBBER = Material((0.07, 0.07, 0.08), matte=0.75, reflectance=0.08)
GLASS = Material((0.17, 0.21, 0.26), matte=0.45, reflectance=0.001)
CHROME = Material((0.70, 0.71, 0.73), matte=0.4, reflectance=0.75)
DARK = Material((0.16, 0.16, 0.17), matte=0.6, reflectance=0.12)
HEADLIGHT = Material((0.97, 0.96, 0.88), matte=0.9, reflectance=0.9)
TAIL_LIGHT = Material((0.80, 0.08, 0.07), matte=0.9, reflectance=0.9)
PLATE = Material((0.95, 0.94, 0.86), matte=0.9, reflectance=1.0)


def _paint(rng: Random, colours: tuple[Triple, ...]) -> Material:
    colour = np.clip(np.array(colours[rng.integers(len(colours))]) + rng.uniform(-0.04, 0.04, 3), 0.03, 1)
    red, green, blue = (float(value) for value in colour)
    # Dark paint absorbs most of a pulse.
    return Material((red, green, blue), matte=0.5, reflectance=0.12 + 0.5 * float(colour.mean()))


def _wheel(x: float, y: float, radius: float, width: float) -> list[Primitive]:
    """Tyre and hub on an axle along y."""
    hub = width / 2 + 0.01
    return [
        rod((x, y - width / 2, radius), (x, y + width / 2, radius), radius, RUBBER),
        rod((x, y - hub, radius), (x, y + hub, radius), radius * 0.55, CHROME),
    ]


def _axle(x: float, track: float, radius: float, width: float) -> list[Primitive]:
    return _wheel(x, track / 2, radius, width) + _wheel(x, -track / 2, radius, width)


def _lights(front: float, back: float, width: float, height: float) -> list[Primitive]:
    """Head and tail lights and the plates, on the flat ends of a body."""
    parts = []
    for y in (-width / 2 + 0.22, width / 2 - 0.22):
        parts.append(solid("box", (front, y, height), (0.03, 0.30, 0.14), HEADLIGHT))
        parts.append(solid("box", (back, y, height + 0.05), (0.03, 0.26, 0.16), TAIL_LIGHT))
    return parts + [solid("box", (x, 0, height - 0.24), (0.03, 0.50, 0.11), PLATE) for x in (front, back)]


def _screen(edge: float, lean: float, width: float, middle: float, height: float) -> Primitive:
    """A slanted window whose foot is at `edge` and whose top is `lean` further along x; the cabin hides its inner half."""
    return leaning(solid("box", (edge + lean, 0, middle), (abs(lean), width, height), GLASS), lean)


def car(rng: Random) -> list[Primitive]:
    """A saloon, a hatchback, an off-roader or a van."""
    length, width, height, bonnet, boot = (
        (4.6, 1.80, 1.45, 1.15, 0.85),
        (4.0, 1.74, 1.50, 0.95, 0.12),
        (4.6, 1.90, 1.75, 1.10, 0.10),
        (5.0, 1.96, 2.10, 0.75, 0.05),
    )[rng.choice(4, p=(0.35, 0.3, 0.22, 0.13))]
    length, width, height = (float(size * rng.uniform(0.95, 1.05)) for size in (length, width, height))
    paint = _paint(rng, CAR_PAINTS)
    clearance, waist = 0.22, 0.58 * height
    cabin, glass_height = width - 0.16, height - waist
    middle = waist + glass_height / 2
    first, last = -length / 2 + boot, length / 2 - bonnet  # where the glass meets the body
    slant_back, slant_front = (0.45 if boot > 0.5 else 0.22), 0.55
    roof_back, roof_front = first + slant_back, last - slant_front
    roof, roof_length = (roof_back + roof_front) / 2, roof_front - roof_back
    parts = [
        solid("box", (0, 0, (clearance + waist) / 2), (length, width, waist - clearance), paint),
        solid("box", (0, 0, clearance + 0.1), (length + 0.10, width - 0.10, 0.18), DARK),  # bumpers
        solid("box", (roof, 0, middle), (roof_length, cabin, glass_height), GLASS),
        solid("box", (roof, 0, height), (roof_length + 0.1, cabin + 0.02, 0.06), paint),
        _screen(last, -slant_front, cabin, middle, glass_height),
        _screen(first, slant_back, cabin, middle, glass_height),
    ]
    for x in (roof, roof_back + 0.03, roof_front - 0.03):  # pillars
        parts.append(solid("box", (x, 0, middle), (0.09, cabin + 0.02, glass_height), paint))
    for x in (0.31 * length, -0.32 * length):
        parts += _axle(x, width - 0.18, 0.32, 0.21)
    return parts + _lights(length / 2, -length / 2, width, waist - 0.18)


def truck(rng: Random) -> list[Primitive]:
    """A cab over its engine, a frame, and behind it a container, a tarpaulin over hoops, or an open bed with a load."""
    length, width = float(rng.uniform(6.5, 9.5)), float(rng.uniform(2.3, 2.5))
    cab_height, cab_length = float(rng.uniform(2.5, 3.0)), float(rng.uniform(1.8, 2.2))
    paint, cargo = _paint(rng, CAR_PAINTS), _paint(rng, CARGO_PAINTS)
    nose = length / 2
    bed, bed_middle = length - cab_length - 0.35, -(cab_length + 0.35) / 2
    parts = [
        solid(
            "box", (nose - cab_length / 2, 0, 0.55 + cab_height / 2 - 0.2), (cab_length, width, cab_height - 0.7), paint
        ),
        solid("box", (nose, 0, 1.95), (0.06, width - 0.25, 0.75), GLASS),
        solid("box", (nose - 0.6, 0, 1.95), (0.8, width + 0.03, 0.65), GLASS),
        solid("box", (nose, 0, 0.55), (0.16, width, 0.4), DARK),
        solid("box", (0, 0, 0.72), (length - 0.3, 0.9, 0.28), DARK),
    ]
    kind = rng.integers(3)
    if kind == 0:
        height = float(rng.uniform(2.2, 2.7))
        parts.append(solid("box", (bed_middle, 0, 0.95 + height / 2), (bed, width + 0.05, height), cargo))
    elif kind == 1:
        parts.append(solid("box", (bed_middle, 0, 1.65), (bed, width, 1.4), cargo))
        parts.append(solid("ellipsoid", (bed_middle, 0, 2.3), (bed * 1.02, width, 1.3), cargo))
    else:
        rail = solid("box", (bed_middle, 0, 1.25), (bed, width, 0.7), cargo)
        heap = solid("ellipsoid", (bed_middle, 0, 1.55), (bed * 0.8, width * 0.8, 1.1), Material((0.45, 0.36, 0.26)))
        parts += [rail, heap]
    for x in (nose - 1.1, -nose + 1.1, -nose + 2.2):
        parts += _axle(x, width - 0.34, 0.48, 0.32)
    return parts + _lights(nose + 0.05, -nose, width, 0.85)


def bus(rng: Random) -> list[Primitive]:
    """A long body with a band of windows all around, doors on its right, and a lit sign above the windscreen."""
    length, width, height = float(rng.uniform(10.0, 12.5)), float(rng.uniform(2.45, 2.6)), float(rng.uniform(2.9, 3.2))
    paint, nose = _paint(rng, BUS_PAINTS), length / 2
    trim = Material((0.90, 0.90, 0.88), matte=0.6, reflectance=0.5)
    parts = [
        solid("box", (0, 0, (0.3 + height) / 2), (length, width, height - 0.3), paint),
        solid("box", (0, 0, 0.86), (length + 0.02, width + 0.02, 0.16), trim),
        solid("box", (0, 0, 1.95), (length - 0.5, width + 0.04, 1.0), GLASS),
        solid("box", (nose, 0, 1.75), (0.05, width - 0.2, 1.5), GLASS),
        solid("box", (-nose, 0, 2.05), (0.05, width - 0.5, 0.8), GLASS),
        solid("box", (nose, 0, height - 0.28), (0.09, width - 0.6, 0.3), Material((0.98, 0.72, 0.15), matte=1.0)),
        solid("box", (0, 0, height), (length * 0.6, width * 0.7, 0.3), trim),
    ]
    for x in np.linspace(-nose + 1.7, nose - 1.7, 6):  # posts between the windows
        parts.append(solid("box", (float(x), 0, 1.95), (0.14, width + 0.06, 1.0), paint))
    for x in (nose - 0.9, 0.2):
        parts.append(solid("box", (x, -width / 2, 1.4), (1.1, 0.08, 2.1), DARK))
    for x in (nose - 2.6, -nose + 3.0):
        parts += _axle(x, width - 0.26, 0.48, 0.32)
    return parts + _lights(nose, -nose, width, 0.7)


def bicycle(rng: Random, *, ridden: bool = False) -> list[Primitive]:
    """Two thin wheels in a frame of tubes, with or without a rider."""
    radius, wheelbase = float(rng.uniform(0.31, 0.36)), float(rng.uniform(1.0, 1.1))
    paint = _paint(rng, CAR_PAINTS)
    rear, front = (-wheelbase / 2, 0.0, radius), (wheelbase / 2, 0.0, radius)
    seat, head, pedals = (-0.22, 0.0, 0.92), (wheelbase / 2 - 0.16, 0.0, 0.90), (-0.06, 0.0, 0.28)
    grip = (head[0] + 0.04, 0.0, 1.04)
    tyre, rim = Material((0.10, 0.10, 0.11), reflectance=0.15), Material((0.55, 0.56, 0.58), reflectance=0.5)
    parts = []
    for x, _, z in (rear, front):
        parts.append(rod((x, -0.022, z), (x, 0.022, z), radius, tyre))
        parts.append(rod((x, -0.026, z), (x, 0.026, z), radius * 0.86, rim))
    for start, end in (
        (rear, pedals),
        (rear, seat),
        (pedals, seat),
        (pedals, head),
        (seat, head),
        (head, front),
        (head, grip),
    ):
        parts.append(rod(start, end, 0.024, paint))
    parts.append(solid("box", (seat[0], 0, 0.96), (0.27, 0.15, 0.07), DARK))
    parts.append(rod((grip[0], -0.29, grip[2]), (grip[0], 0.29, grip[2]), 0.02, DARK))
    parts.append(solid("box", (rear[0] - 0.1, 0, radius * 2 + 0.06), (0.06, 0.08, 0.06), TAIL_LIGHT))
    if rng.random() < 0.3:
        parts.append(solid("box", (head[0] + 0.2, 0, 0.92), (0.26, 0.36, 0.24), Material((0.50, 0.38, 0.22))))
    return parts + (rider(rng, seat=1.0, hands=(grip[0], 1.06), feet=(0.0, 0.26)) if ridden else [])


def motorcycle(rng: Random, *, ridden: bool = False) -> list[Primitive]:
    """Two fat wheels, an engine, a tank and a seat, with or without a rider."""
    paint, wheelbase = _paint(rng, CAR_PAINTS), float(rng.uniform(1.30, 1.45))
    radius, x = 0.31, wheelbase / 2
    parts = []
    for middle in (-x, x):
        parts.append(rod((middle, -0.07, radius), (middle, 0.07, radius), radius, RUBBER))
        parts.append(rod((middle, -0.08, radius), (middle, 0.08, radius), radius * 0.5, CHROME))
    parts += [
        solid("box", (0, 0, 0.46), (0.62, 0.30, 0.36), CHROME),  # engine
        solid("ellipsoid", (0.14, 0, 0.84), (0.62, 0.34, 0.34), paint),  # tank
        solid("box", (-0.40, 0, 0.80), (0.66, 0.30, 0.13), DARK),  # seat
        leaning(solid("box", (-0.72, 0, 0.76), (0.30, 0.26, 0.26), paint), -0.1),
        rod((-0.2, -0.17, 0.36), (-x - 0.15, -0.19, 0.42), 0.05, CHROME),  # exhaust
        solid("box", (x - 0.28, 0, 1.0), (0.16, 0.30, 0.34), paint),  # fairing
        solid("ellipsoid", (x - 0.18, 0, 0.95), (0.14, 0.22, 0.20), HEADLIGHT),
        rod((x - 0.34, -0.38, 1.08), (x - 0.34, 0.38, 1.08), 0.024, DARK),
        solid("box", (-0.90, 0, 0.74), (0.04, 0.20, 0.10), TAIL_LIGHT),
    ]
    parts += [rod((x, y, radius), (x - 0.34, y, 1.06), 0.032, CHROME) for y in (-0.1, 0.1)]
    if rng.random() < 0.35:
        parts.append(solid("box", (-0.82, 0, 1.02), (0.40, 0.44, 0.34), DARK))
    return parts + (rider(rng, seat=0.88, hands=(x - 0.36, 1.10), feet=(0.05, 0.34), helmet=True) if ridden else [])
