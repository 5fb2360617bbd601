"""Static scenery along a generated street: buildings, fences, trees, bushes, poles and signs.

A piece stands on z = 0 around the origin and faces +y, metres. Its solids are grouped by class name, since a tree is
vegetation on a trunk and a sign hangs on a pole.
"""

from __future__ import annotations

import numpy as np

from ov3d.common.worlds.primitives import Primitive, Triple, gable, rod, solid
from ov3d.common.worlds.street_vehicles import CHROME, DARK, GLASS
from ov3d.common.worlds.textures import Material, bricks, facade, foliage, planks, plaster, wood

Random = np.random.Generator
Pieces = dict[str, list[Primitive]]

LEAVES: tuple[Triple, ...] = ((0.26, 0.42, 0.16), (0.34, 0.48, 0.20), (0.20, 0.34, 0.18), (0.46, 0.48, 0.18))
WALLS: tuple[Triple, ...] = (
    (0.78, 0.72, 0.62),
    (0.62, 0.40, 0.32),
    (0.70, 0.70, 0.68),
    (0.82, 0.76, 0.54),
    (0.56, 0.60, 0.64),
    (0.74, 0.58, 0.48),
)
ROOFS: tuple[Triple, ...] = ((0.46, 0.22, 0.17), (0.28, 0.28, 0.30), (0.38, 0.30, 0.24))
STEEL = Material((0.46, 0.48, 0.50), matte=0.5, reflectance=0.45)
BARK = Material((0.34, 0.25, 0.18), wood(), 0.6, matte=0.7, reflectance=0.25)


def _leaves(rng: Random) -> Material:
    colour = np.clip(np.array(LEAVES[rng.integers(len(LEAVES))]) + rng.uniform(-0.03, 0.03, 3), 0.05, 1)
    red, green, blue = (float(value) for value in colour)
    return Material(
        (red, green, blue), foliage(), 1.6, matte=0.5, reflectance=float(rng.uniform(0.3, 0.5)), spread=0.15
    )


def building(rng: Random, width: float) -> tuple[Pieces, float]:
    """A house or a block `width` wide, its front at y = 0 and its body behind; returns its depth as well."""
    depth, storeys = float(rng.uniform(8, 14)), int(rng.integers(1, 7))
    height = 0.8 + 3.0 * storeys
    colour, middle = WALLS[rng.integers(len(WALLS))], -depth / 2
    plain = rng.random() < 0.25
    face = Material(colour, bricks() if plain else facade(), 0.9 if plain else 6.0, matte=0.65, reflectance=0.4)
    stone = Material((0.52, 0.51, 0.49), plaster(), 1.0, reflectance=0.3)
    parts = [
        solid("box", (0, middle, height / 2), (width, depth, height), face),
        solid("box", (0, middle, 0.3), (width + 0.08, depth + 0.08, 0.6), stone),
        solid("box", (float(rng.uniform(-0.3, 0.3)) * width, 0, 1.25), (1.3, 0.14, 2.1), DARK),  # door
    ]
    roof = Material(ROOFS[rng.integers(len(ROOFS))], planks(), 1.0, reflectance=0.3)
    if storeys <= 3 and rng.random() < 0.75:
        parts.append(gable((0, middle, height - 0.01), (width + 0.4, depth + 0.8, float(rng.uniform(2.0, 3.5))), roof))
        parts.append(solid("box", (0.25 * width, middle + 1.2, height + 1.6), (0.7, 0.7, 2.6), stone))
    else:
        parts.append(solid("box", (0, middle, height), (width + 0.3, depth + 0.3, 0.5), stone))
    if storeys > 2 and rng.random() < 0.6:
        for floor in range(1, storeys):  # balconies
            parts.append(solid("box", (0, 0.45, 0.9 + 3.0 * floor), (0.5 * width, 0.9, 0.9), stone))
    elif rng.random() < 0.5:
        awning = Material(WALLS[rng.integers(len(WALLS))], reflectance=0.5)
        parts.append(solid("box", (0, 0.6, 2.9), (0.7 * width, 1.2, 0.16), awning))
        parts.append(solid("box", (0, 0.0, 1.6), (0.6 * width, 0.1, 1.9), GLASS))
    return {"building": parts}, depth


def fence(rng: Random, length: float) -> Pieces:
    """Boards, a railing, or a low wall, `length` along x."""
    kind, height = rng.integers(3), float(rng.uniform(0.9, 1.6))
    num_posts = max(2, round(length / 2.2))
    posts = [float(x) for x in np.linspace(-length / 2 + 0.06, length / 2 - 0.06, num_posts)]
    if kind == 0:
        board = Material((0.50, 0.36, 0.23), planks(), 1.1, matte=0.7, grain=True, reflectance=0.4)
        parts = [solid("box", (0, 0, height / 2 + 0.08), (length, 0.05, height - 0.1), board)]
        parts += [solid("box", (x, 0.04, height / 2), (0.10, 0.10, height + 0.1), board) for x in posts]
    elif kind == 1:
        parts = [solid("box", (0, 0, z), (length, 0.06, 0.08), STEEL) for z in (0.25, 0.6 * height, height)]
        parts += [solid("box", (x, 0, height / 2), (0.08, 0.08, height), STEEL) for x in posts]
    else:
        wall = Material((0.64, 0.42, 0.34), bricks(), 0.9, matte=0.7, reflectance=0.4)
        coping = Material((0.66, 0.65, 0.62), plaster(), 1.0)
        parts = [solid("box", (0, 0, height / 2), (length, 0.22, height), wall)]
        parts.append(solid("box", (0, 0, height), (length + 0.05, 0.3, 0.08), coping))
    return {"fence": parts}


def tree(rng: Random) -> Pieces:
    """A broad crown of several balls, a fir of stacked cones, or a poplar."""
    leaves, kind = _leaves(rng), rng.choice(3, p=(0.65, 0.2, 0.15))
    if kind == 0:
        stem, spread = float(rng.uniform(2.4, 3.4)), float(rng.uniform(1.5, 2.6))
        crown = [solid("ellipsoid", (0, 0, stem + 0.75 * spread), (1.5 * spread, 1.5 * spread, 1.6 * spread), leaves)]
        for angle in rng.uniform(0, 2 * np.pi) + np.arange(4) * np.pi / 2:
            size, out = spread * float(rng.uniform(0.8, 1.1)), 0.5 * spread
            place = (
                out * float(np.cos(angle)),
                out * float(np.sin(angle)),
                stem + float(rng.uniform(0.4, 1.0)) * spread,
            )
            crown.append(solid("ellipsoid", place, (size, size, 0.9 * size), leaves))
        return {"trunk": [rod((0, 0, 0), (0, 0, stem + 0.5 * spread), 0.16, BARK, taper=0.6)], "vegetation": crown}
    if kind == 1:
        height, width = float(rng.uniform(5, 9)), float(rng.uniform(1.2, 1.8))
        crown = []
        for k in range(3):
            low = 0.8 + 0.26 * k * height
            crown.append(rod((0, 0, low), (0, 0, low + 0.42 * height), width * (1 - 0.25 * k), leaves, taper=0.05))
        return {"trunk": [rod((0, 0, 0), (0, 0, 1.2), 0.14, BARK)], "vegetation": crown}
    height = float(rng.uniform(7, 11))
    crown = [solid("ellipsoid", (0, 0, 1.4 + height / 2), (1.8, 1.8, height), leaves)]
    return {"trunk": [rod((0, 0, 0), (0, 0, 2.2), 0.15, BARK)], "vegetation": crown}


def bushes(rng: Random, length: float) -> Pieces:
    """A clipped hedge, or a row of loose bushes, `length` along x."""
    leaves = _leaves(rng)
    if rng.random() < 0.5:
        height = float(rng.uniform(0.9, 1.7))
        return {
            "vegetation": [solid("box", (0, 0, height / 2), (length, float(rng.uniform(0.6, 1.0)), height), leaves)]
        }
    parts = []
    for x in np.arange(-length / 2 + 0.6, length / 2, 1.3):
        width, height = float(rng.uniform(1.0, 1.7)), float(rng.uniform(0.7, 1.5))
        parts.append(
            solid("ellipsoid", (float(x), float(rng.uniform(-0.2, 0.2)), 0.35 * height), (width, width, height), leaves)
        )
    return {"vegetation": parts}


def lamp_post(rng: Random) -> Pieces:
    """A tapered mast whose arm reaches out over +y."""
    height, reach = float(rng.uniform(5.5, 8.0)), float(rng.uniform(0.9, 1.8))
    lamp = solid("box", (0, reach, height + 0.2), (0.22, 0.7, 0.14), CHROME)
    arm = rod((0, 0, height), (0, reach, height + 0.25), 0.045, STEEL)
    return {
        "pole": [
            rod((0, 0, 0), (0, 0, height), 0.10, STEEL, taper=0.6),
            rod((0, 0, 0), (0, 0, 0.9), 0.14, STEEL),
            arm,
            lamp,
        ]
    }


def traffic_light(rng: Random) -> Pieces:
    """A mast with a signal head that faces -x."""
    height, red = float(rng.uniform(2.6, 3.2)), rng.random() < 0.5
    parts = [rod((0, 0, 0), (0, 0, height), 0.07, STEEL), solid("box", (-0.08, 0, height), (0.24, 0.30, 0.92), DARK)]
    lights = ((0.90, 0.10, 0.08), (0.85, 0.62, 0.10), (0.12, 0.80, 0.35))
    for k, colour in enumerate(lights):
        lit = k == (0 if red else 2)
        tone = colour if lit else (0.3 * colour[0], 0.3 * colour[1], 0.3 * colour[2])
        centre = (-0.2, 0, height + 0.28 * (1 - k))
        parts.append(solid("ellipsoid", centre, (0.06, 0.2, 0.2), Material(tone, matte=1.0 if lit else 0.6)))
    return {"pole": parts}


def bollard(rng: Random) -> Pieces:
    """A knee-high post with a bright ring."""
    height = float(rng.uniform(0.75, 1.0))
    ring = Material((0.92, 0.92, 0.90), reflectance=0.95)
    return {
        "pole": [
            rod((0, 0, 0), (0, 0, height), 0.09, DARK),
            rod((0, 0, 0.7 * height), (0, 0, 0.85 * height), 0.1, ring),
        ]
    }


def traffic_sign(rng: Random) -> Pieces:
    """A round, square or diamond-shaped board that faces -x, on a thin pole."""
    height, size = float(rng.uniform(2.3, 2.9)), float(rng.uniform(0.65, 0.9))
    tones: tuple[Triple, ...] = ((0.12, 0.30, 0.66), (0.78, 0.12, 0.12), (0.92, 0.78, 0.16))
    face = Material(tones[rng.integers(3)], matte=0.85, reflectance=1.0)
    inner = Material((0.95, 0.95, 0.94), matte=0.85, reflectance=1.0)
    shape, centre = rng.integers(3), (-0.07, 0.0, height)
    if shape == 0:
        boards = [rod((-0.04, 0, height), (-0.07, 0, height), size / 2, face)]
        boards.append(rod((-0.04, 0, height), (-0.08, 0, height), size / 3.2, inner))
    elif shape == 1:
        boards = [
            solid("box", centre, (0.03, size, size), face),
            solid("box", (-0.08, 0, height), (0.03, size / 2, size / 2), inner),
        ]
    else:
        boards = [gable(centre, (0.03, 1.4 * size, 0.7 * size), face)]
    return {"pole": [rod((0, 0, 0), (0, 0, height), 0.035, STEEL)], "traffic sign": boards}
