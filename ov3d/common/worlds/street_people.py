"""People of generated streets, on foot and on two wheels: build, clothes and stride vary with the random generator.

A person faces +x and stands on z = 0 around the origin; a rider sits with the hips above it, metres.
"""

from __future__ import annotations

import numpy as np

from ov3d.common.worlds.primitives import Primitive, Triple, rod, solid
from ov3d.common.worlds.textures import Material, fabric

Random = np.random.Generator

CLOTHES: tuple[Triple, ...] = (
    (0.16, 0.19, 0.30),
    (0.55, 0.16, 0.18),
    (0.84, 0.82, 0.78),
    (0.24, 0.42, 0.36),
    (0.80, 0.58, 0.20),
    (0.12, 0.12, 0.13),
    (0.42, 0.52, 0.72),
    (0.62, 0.42, 0.56),
)
SKIN: tuple[Triple, ...] = ((0.90, 0.72, 0.60), (0.76, 0.56, 0.42), (0.55, 0.38, 0.28), (0.38, 0.26, 0.20))
HAIR: tuple[Triple, ...] = ((0.12, 0.09, 0.08), (0.34, 0.22, 0.12), (0.70, 0.56, 0.34), (0.62, 0.62, 0.62))
SHOES = Material((0.12, 0.11, 0.11), reflectance=0.15)


def _cloth(rng: Random) -> Material:
    return Material(
        CLOTHES[rng.integers(len(CLOTHES))], fabric(), 0.3, matte=0.7, reflectance=float(rng.uniform(0.2, 0.6))
    )


def _tone(rng: Random, colours: tuple[Triple, ...]) -> Material:
    return Material(colours[rng.integers(len(colours))], matte=0.7, reflectance=0.4)


def pedestrian(rng: Random, *, child: bool = False) -> list[Primitive]:
    """Someone who walks or stands, some with a bag, a skirt, a hat or an umbrella."""
    height = float(rng.uniform(1.0, 1.35) if child else rng.uniform(1.55, 1.92))
    k, girth = height / 1.75, float(rng.uniform(0.9, 1.2)) * height / 1.75
    stride = float(rng.uniform(0.0, 0.36)) * k
    top, trousers, skin, hair = _cloth(rng), _cloth(rng), _tone(rng, SKIN), _tone(rng, HAIR)
    hip, shoulder = 0.86 * k, 1.44 * k
    parts = [
        solid("ellipsoid", (0, 0, 0.92 * k), (0.28 * girth, 0.33 * girth, 0.30 * k), trousers),
        rod((0, 0, 0.96 * k), (0, 0, shoulder), 0.17 * girth, top, taper=1.12),
        solid("ellipsoid", (0, 0, shoulder), (0.25 * girth, 0.46 * girth, 0.20 * k), top),
        rod((0, 0, shoulder), (0.02, 0, 1.58 * k), 0.06 * k, skin),
        solid("ellipsoid", (0.02, 0, 1.63 * k), (0.20 * k, 0.17 * k, 0.25 * k), skin),
        solid("ellipsoid", (-0.01, 0, 1.67 * k), (0.21 * k, 0.19 * k, 0.20 * k), hair),
    ]
    for side, step in ((0.10 * k, stride), (-0.10 * k, -stride)):
        parts.append(rod((0, side, hip), (step, side, 0.08), 0.088 * girth, trousers, taper=0.62))
        parts.append(solid("box", (step + 0.05, side, 0.05), (0.26 * k, 0.10 * k, 0.10), SHOES))
        arm = 0.24 * girth * np.sign(side)
        hand = (-0.7 * step + 0.06, float(arm * 1.2), 0.86 * k)
        parts.append(rod((0, float(arm), 1.40 * k), hand, 0.058 * girth, top, taper=0.75))
        parts.append(solid("ellipsoid", hand, (0.09 * k, 0.07 * k, 0.13 * k), skin))
    return parts + _belongings(rng, k, girth)


def _belongings(rng: Random, k: float, girth: float) -> list[Primitive]:
    """A rucksack, a skirt, a hat, an umbrella, or nothing."""
    kind, cloth = rng.random(), _cloth(rng)
    if kind < 0.2:
        return [solid("box", (-0.22 * girth, 0, 1.22 * k), (0.20 * k, 0.32 * k, 0.44 * k), cloth)]
    if kind < 0.35:
        return [rod((0, 0, 0.50 * k), (0, 0, 1.0 * k), 0.30 * girth, cloth, taper=0.55)]
    if kind < 0.45:
        return [
            rod((0, 0, 1.72 * k), (0, 0, 1.75 * k), 0.19 * k, cloth),
            rod((0, 0, 1.7 * k), (0, 0, 1.82 * k), 0.10 * k, cloth),
        ]
    if kind < 0.5:
        stick = rod((0.1, 0.15 * k, 1.1 * k), (0.1, 0.15 * k, 2.0 * k), 0.015, SHOES)
        return [stick, rod((0.1, 0.15 * k, 1.85 * k), (0.1, 0.15 * k, 2.1 * k), 0.55 * k, cloth, taper=0.08)]
    return []


def rider(
    rng: Random, *, seat: float, hands: tuple[float, float], feet: tuple[float, float], helmet: bool = False
) -> list[Primitive]:
    """Someone on two wheels.

    Args:
        rng: chooses clothes and skin.
        seat: height of the seat, which is at x = -0.22.
        hands, feet: (x, z) of grips and pedals.
        helmet: a full helmet, else hair or a small one.
    """
    top, trousers, skin = _cloth(rng), _cloth(rng), _tone(rng, SKIN)
    head = _cloth(rng) if helmet or rng.random() < 0.5 else _tone(rng, HAIR)
    hip, neck = (-0.22, 0.0, seat + 0.06), (0.06, 0.0, seat + 0.56)
    parts = [
        rod(hip, neck, 0.16, top, taper=1.05),
        solid("ellipsoid", neck, (0.26, 0.44, 0.20), top),
        solid("ellipsoid", (0.12, 0, neck[2] + 0.22), (0.21, 0.17, 0.25), skin),
        solid("ellipsoid", (0.10, 0, neck[2] + 0.26), (0.28, 0.25, 0.26 if helmet else 0.20), head),
    ]
    for side, drop in ((0.11, 0.0), (-0.11, 0.12)):
        knee = (0.20, side, seat - 0.12 - drop)
        ankle = (feet[0], side, feet[1] + 0.10 - drop)
        parts.append(rod((hip[0], side, hip[2]), knee, 0.085, trousers, taper=0.8))
        parts.append(rod(knee, ankle, 0.065, trousers, taper=0.75))
        parts.append(solid("box", (ankle[0] + 0.06, side, ankle[2] - 0.05), (0.25, 0.09, 0.09), SHOES))
        parts.append(rod((neck[0], 2 * side, neck[2] - 0.03), (hands[0], 2.2 * side, hands[1]), 0.052, top, taper=0.7))
    return parts
