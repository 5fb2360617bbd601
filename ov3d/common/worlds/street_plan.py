"""The plan of a street and its static contents: ground, markings, and scenery along the pavements.

The plan's frame has x along the street, y to its left and z up. Traffic keeps to the right: vehicles driving along +x are at
y < 0. A side is +1 for y > 0 and -1 for y < 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ov3d.common.scenes.scene import IGNORE
from ov3d.common.worlds.primitives import Primitive, Triple, placed, pose_at, solid
from ov3d.common.worlds.street_classes import class_id
from ov3d.common.worlds.street_scenery import (
    Pieces,
    bollard,
    building,
    bushes,
    fence,
    lamp_post,
    traffic_light,
    traffic_sign,
    tree,
)
from ov3d.common.worlds.textures import Material, asphalt, grass, paving, plaster

Random = np.random.Generator

SIDES = (-1, 1)
LANE, CYCLE_STRIP, PARKING_STRIP = 3.4, 1.5, 2.3
"""Widths, metres, from the middle outwards."""

KERB_HEIGHT = 0.10
SIDE_STREET = 3.6
"""Half the width of a side street."""

ZEBRA = 7.0
"""Metres from the middle of a junction to the crossing before it."""

_GROUND = -0.03
"""Height of grass: below the road, which is on top of it."""


@dataclass(frozen=True, slots=True)
class StreetPlan:
    """Measures of a street, metres.

    Attributes:
        begin, end: x range that is furnished.
        lanes: in each direction.
        parking: width of the strip for parked vehicles, 0 if the street has none.
        strip: width of the strip along the kerb for poles, trees and parked bicycles.
        lawn: whether that strip is grass; else it is part of the pavement.
        pavement: width, the strip included.
        junctions: x of the side streets, ascending.
    """

    begin: float
    end: float
    lanes: int
    parking: float
    strip: float
    lawn: bool
    pavement: float
    junctions: tuple[float, ...]

    @property
    def kerb(self) -> float:
        """|y| where the pavement begins."""
        return self.lanes * LANE + CYCLE_STRIP + self.parking

    @property
    def edge(self) -> float:
        """|y| where the pavement ends."""
        return self.kerb + self.pavement

    def blocks(self) -> list[tuple[float, float]]:
        """x ranges without side streets."""
        ends = [self.begin - SIDE_STREET, *self.junctions, self.end + SIDE_STREET]
        return [(a + SIDE_STREET, b - SIDE_STREET) for a, b in pairwise(ends) if b - a > 4 * SIDE_STREET]


def draw_plan(rng: Random, begin: float, end: float) -> StreetPlan:
    """Draw a street between two x."""
    junctions, x = [], begin + float(rng.uniform(20, 60))
    while x < end - 10:
        junctions.append(x)
        x += float(rng.uniform(55, 90))
    lawn = bool(rng.random() < 0.5)
    strip = float(rng.uniform(1.4, 2.2)) if lawn else 0.9
    return StreetPlan(
        begin=begin,
        end=end,
        lanes=1 if rng.random() < 0.6 else 2,
        parking=PARKING_STRIP if rng.random() < 0.65 else 0.0,
        strip=strip,
        lawn=lawn,
        pavement=strip + float(rng.uniform(2.4, 3.6)),
        junctions=tuple(junctions),
    )


def scenery(rng: Random, plan: StreetPlan) -> list[Primitive]:
    """Everything in a street that is not a thing."""
    parts = _ground(rng, plan) + _markings(plan)
    for side in SIDES:
        for block in plan.blocks():
            parts += _front(rng, plan, block, side) + _kerbside(rng, plan, block, side)
        for x in plan.junctions:
            parts += _corner(rng, plan, x, side)
    return parts


def along(side: int, x: float, y: float) -> tuple[float, float, float]:
    """x, y and yaw of a piece on a side, `y` from the street's middle, that faces the street."""
    return x, side * y, 0.0 if side < 0 else np.pi


def _set(pieces: Pieces, x: float, y: float, yaw: float, z: float = 0.0) -> list[Primitive]:
    pose = pose_at(x, y, yaw, z)
    return [solid for name, parts in pieces.items() for solid in placed(parts, pose, class_id(name), IGNORE)]


def _flat(name: str, middle: Triple, length: float, width: float, material: Material) -> Primitive:
    pose = np.diag([length / 2, width / 2, 1.0, 1.0])
    pose[:3, 3] = middle
    return Primitive("rectangle", pose, material, class_id(name), IGNORE)


def _slab(name: str, middle: tuple[float, float], length: float, width: float, material: Material) -> Primitive:
    box = solid("box", (*middle, (KERB_HEIGHT + _GROUND) / 2), (length, width, KERB_HEIGHT - _GROUND), material)
    return placed([box], np.eye(4), class_id(name), IGNORE)[0]


def _ground(rng: Random, plan: StreetPlan) -> list[Primitive]:
    shade = float(rng.uniform(0.26, 0.38))
    tar = Material((shade, shade, 1.03 * shade), asphalt(), 5.0, matte=0.8, reflectance=0.14)
    lawn = Material((0.36, 0.46, 0.22), grass(), 3.0, matte=0.8, reflectance=0.32)
    tone = float(rng.uniform(0.54, 0.68))
    slabs = Material((tone, 0.98 * tone, 0.93 * tone), paving(), 2.4, matte=0.8, reflectance=0.26)
    middle, length = (plan.begin + plan.end) / 2, plan.end - plan.begin
    parts = [
        _flat("terrain", (middle, 0, _GROUND), length + 600, 600.0, lawn),
        _flat("road", (middle, 0, 0), length + 600, 2 * plan.kerb, tar),
    ]
    for side in SIDES:
        parts.append(
            _slab("pavement", (middle, side * (plan.kerb + plan.pavement / 2)), length + 100, plan.pavement, slabs)
        )
        for first, last in plan.blocks() if plan.lawn else ():
            # A kerbstone is left beside it.
            place = ((first + last) / 2, side * (plan.kerb + plan.strip / 2 + 0.1), KERB_HEIGHT + 0.02)
            parts.append(_flat("terrain", place, last - first - 3, plan.strip - 0.2, lawn))
        for x in plan.junctions:
            y = side * (plan.edge + 45)
            parts.append(_flat("road", (x, y, 0), 2 * SIDE_STREET, 90.0, tar))
            parts += [_slab("pavement", (x + aside * (SIDE_STREET + 1.0), y), 2.0, 90.0, slabs) for aside in (-1, 1)]
    return parts


def _markings(plan: StreetPlan) -> list[Primitive]:
    """Dashes between lanes, a line along each cycle strip, a crossing before each junction."""
    paint = Material((0.86, 0.86, 0.83), plaster(), 1.0, matte=0.85, reflectance=0.6)
    middle, length, height = (plan.begin + plan.end) / 2, plan.end - plan.begin, 0.005
    parts = []
    for k in range(-plan.lanes + 1, plan.lanes):
        for x in np.arange(plan.begin, plan.end, 9.0):
            parts.append(_flat("lane marking", (float(x), k * LANE, height), 3.0, 0.14, paint))
    for side in SIDES:
        parts.append(_flat("lane marking", (middle, side * plan.lanes * LANE, height), length, 0.16, paint))
    for x in plan.junctions:
        for y in np.arange(-plan.kerb + 0.5, plan.kerb, 1.1):
            parts.append(_flat("lane marking", (x - ZEBRA, float(y), height), 3.2, 0.5, paint))
    return parts


def _front(rng: Random, plan: StreetPlan, block: tuple[float, float], side: int) -> list[Primitive]:
    """Houses behind the pavement, and gardens between them with houses further back; or a park."""
    parts: list[Primitive] = []
    x, end, park = block[0] + 3, block[1] - 3, rng.random() < 0.2
    while end - x > 7:
        width = min(float(rng.uniform(9, 20)), end - x)
        middle, setback = x + width / 2, float(rng.uniform(1.5, 5.0))
        if rng.random() < 0.6 and not park:
            house, _ = building(rng, width - float(rng.uniform(0.3, 2.5)))
            parts += _set(house, *along(side, middle, plan.edge + setback), _GROUND)
            if setback > 2.6 and rng.random() < 0.7:
                parts += _hedge_or_fence(rng, plan, middle, width - 1.5, side)
        else:
            parts += _garden(rng, plan, middle, width, side, park)
        x += width
    return parts


def _hedge_or_fence(rng: Random, plan: StreetPlan, x: float, length: float, side: int) -> list[Primitive]:
    if rng.random() < 0.5:
        return _set(fence(rng, length), *along(side, x, plan.edge + 0.35), _GROUND)
    return _set(bushes(rng, length), *along(side, x, plan.edge + 0.9), _GROUND)


def _garden(rng: Random, plan: StreetPlan, x: float, width: float, side: int, park: bool) -> list[Primitive]:
    """Lawn with trees, bushes and a mound; a garden has a fence or a hedge, too, and mostly a house."""
    parts = [] if park or rng.random() < 0.3 else _hedge_or_fence(rng, plan, x, width - 0.4, side)
    for _ in range(int(rng.integers(2, 5))):
        place = x + float(rng.uniform(-0.45, 0.45)) * width, plan.edge + float(rng.uniform(3.5, 15))
        parts += _set(tree(rng), *along(side, *place), _GROUND)
    parts += _set(bushes(rng, 0.4 * width), *along(side, x, plan.edge + float(rng.uniform(5, 12))), _GROUND)
    lawn = Material((0.40, 0.44, 0.22), grass(), 3.0, matte=0.8, reflectance=0.32)
    mound = solid(
        "ellipsoid", (x, side * (plan.edge + 9), _GROUND), (0.8 * width, 9.0, float(rng.uniform(0.6, 2.0))), lawn
    )
    parts += placed([mound], np.eye(4), class_id("terrain"), IGNORE)
    if not park and rng.random() < 0.7:
        house, _ = building(rng, width + 4)
        parts += _set(house, *along(side, x, plan.edge + float(rng.uniform(20, 30))), _GROUND)
    return parts


def _kerbside(rng: Random, plan: StreetPlan, block: tuple[float, float], side: int) -> list[Primitive]:
    """Trees, lamps, signs and bollards, with room between them for bicycles."""
    parts: list[Primitive] = []
    y = plan.kerb + plan.strip / 2
    for number, x in enumerate(np.arange(block[0] + 5, block[1] - 5, 7.0)):
        kind = rng.random()
        pieces = (
            tree(rng) if kind < 0.42 else traffic_sign(rng) if kind < 0.68 else bollard(rng) if kind < 0.8 else None
        )
        pieces = lamp_post(rng) if number % 4 == 1 else pieces
        if pieces is not None:
            parts += _set(pieces, *along(side, float(x), y), KERB_HEIGHT)
    return parts


def _corner(rng: Random, plan: StreetPlan, x: float, side: int) -> list[Primitive]:
    """Lights at a crossing, a sign at the side street, trees along it and a house that closes it."""
    before = x - ZEBRA - 2.2 if side < 0 else x - ZEBRA + 2.2
    parts = _set(traffic_light(rng), *along(side, before, plan.kerb + 0.45), KERB_HEIGHT)
    parts += _set(traffic_sign(rng), *along(side, x + side * 5.2, plan.kerb + 0.5), KERB_HEIGHT)
    for y in np.arange(8, 60, 9.0):
        for aside in SIDES:
            if rng.random() < 0.5:
                place = x + aside * (SIDE_STREET + 3.2), plan.edge + 14 + float(y)
                parts += _set(tree(rng), *along(side, *place), _GROUND)
    house, _ = building(rng, 16.0)
    return parts + _set(house, *along(side, x, plan.edge + 92), _GROUND)
