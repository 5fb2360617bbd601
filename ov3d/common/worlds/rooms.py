"""Rooms: four walls, photographs on them, and things on the floor that do not touch each other.

x and y lie in the floor with the room's middle at the origin, z is up, metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ov3d.common.base.shapes import Array, Float64
from ov3d.common.scenes.scene import IGNORE
from ov3d.common.worlds.furniture import AGAINST_WALL, FURNITURE, PAINTS, WOODS, Random
from ov3d.common.worlds.photographs import PHOTOGRAPHS, gravel, photograph
from ov3d.common.worlds.places import footprint_of, overlap, pose_anywhere, pose_at_wall
from ov3d.common.worlds.primitives import Primitive, bounds, placed, solid
from ov3d.common.worlds.textures import (
    Material,
    Texture,
    bricks,
    fabric,
    panels,
    planks,
    plaster,
    stripes,
    tiles,
    wood,
)
from ov3d.common.worlds.walls import Picture, wall_length, wall_pose

WALLS = ("plain", "brick", "gravel", "striped", "panelled")
"""Kinds of wall."""

CLASSES = ("wall", "floor", "ceiling", "box", "pedestal", *PHOTOGRAPHS, *FURNITURE)
"""Names of the class ids, the same in every room."""

PICTURE_DEPTH = 0.025

_WALL_TINTS = ((0.86, 0.84, 0.79), (0.70, 0.77, 0.80), (0.80, 0.75, 0.66), (0.74, 0.79, 0.71), (0.83, 0.76, 0.76))
_BRICK_TINTS = ((0.62, 0.36, 0.28), (0.66, 0.52, 0.42), (0.58, 0.56, 0.54))
_CARDBOARD = (0.72, 0.56, 0.38)


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    """A piece on the floor.

    Attributes:
        name: its class.
        instance: its object id.
        parts: its solids, in the world.
        footprint: corners of its floor rectangle, in order around it.
        height: metres.
    """

    name: str
    instance: int
    parts: list[Primitive]
    footprint: Float64[Array, "4 2"]
    height: float


@dataclass(frozen=True, slots=True, eq=False)
class Room:
    """A furnished room.

    Attributes:
        size: along x, y and z, metres.
        pictures: photographs on the walls.
        things: the pieces on the floor.
        primitives: all visible solids.
    """

    size: tuple[float, float, float]
    pictures: list[Picture]
    things: list[Thing]
    primitives: list[Primitive]


def furnish(
    rng: Random,
    *,
    wall: str,
    photographs: tuple[str, ...],
    num_boxes: int,
    num_pedestals: int,
    furniture: tuple[str, ...],
) -> Room | None:
    """Draw a room.

    Args:
        rng: source of all random choices.
        wall: one of `WALLS`.
        photographs: names of photographs, each hung once.
        num_boxes, num_pedestals: number of each.
        furniture: kinds of furniture, one piece per mention.

    Returns:
        The room, or None if the drawn things did not fit into it.
    """
    grown = np.sqrt(1 + 0.06 * len(furniture))
    size = (
        float(rng.uniform(4.6, 5.8) * grown),
        float(rng.uniform(4.4, 5.4) * grown),
        float(rng.uniform(2.6, 3.0)),
    )
    pictures = _hang(rng, size, photographs)
    if pictures is None:
        return None
    things: list[Thing] = []
    kinds = [*(k for k in furniture if k in AGAINST_WALL), *["pedestal"] * num_pedestals]
    kinds += [*(k for k in furniture if k not in AGAINST_WALL), *["box"] * num_boxes]
    for kind in kinds:
        thing = _stand(rng, kind, len(pictures) + len(things) + 1, size, pictures, things)
        if thing is None:
            return None
        things.append(thing)
    primitives = _shell(rng, size, wall) + [_picture_solid(picture, size) for picture in pictures]
    return Room(size, pictures, things, primitives + [part for thing in things for part in thing.parts])


def _shell(rng: Random, size: tuple[float, float, float], kind: str) -> list[Primitive]:
    """Four walls with skirting boards, floor, ceiling."""
    width, depth, height = size
    material = _wall_material(rng, kind)
    skirting = Material((0.90, 0.89, 0.86) if rng.random() < 0.6 else WOODS[1])
    solids = []
    for wall in range(4):
        length = wall_length(size, wall)
        to_rectangle = np.diag([length / 2, height / 2, 1.0, 1.0])
        to_rectangle[1, 3] = height / 2
        label = CLASSES.index("wall")
        pose = wall_pose(size, wall)
        solids.append(Primitive("rectangle", pose @ to_rectangle, material, label, IGNORE))
        solids += placed([solid("box", (0, 0.04, 0.006), (length, 0.08, 0.012), skirting)], pose, label, IGNORE)
    boards: tuple[tuple[Texture, float], ...] = ((planks(), 1.2), (tiles(), 0.8), (fabric(), 0.3))
    texture, scale = boards[rng.integers(3)]
    colour = WOODS[rng.integers(3)] if scale == 1.2 else ((0.66, 0.65, 0.62), (0.50, 0.48, 0.46))[rng.integers(2)]
    flat = np.diag([width / 2, depth / 2, 1.0, 1.0])
    overhead = flat.copy()
    overhead[2, 3] = height
    ceiling = Material((0.93, 0.93, 0.91), plaster(), 2.0)
    solids.append(Primitive("rectangle", flat, Material(colour, texture, scale), CLASSES.index("floor"), IGNORE))
    solids.append(Primitive("rectangle", overhead, ceiling, CLASSES.index("ceiling"), IGNORE))
    return solids


def _wall_material(rng: Random, kind: str) -> Material:
    tint = _WALL_TINTS[rng.integers(len(_WALL_TINTS))]
    brick = _BRICK_TINTS[rng.integers(len(_BRICK_TINTS))]
    matte = 0.8
    if kind == "brick":
        return Material(brick, bricks(), 0.9, matte)
    if kind == "gravel":
        return Material((0.55, 0.53, 0.50), gravel(), 2.4, matte)
    if kind == "striped":
        return Material(tint, stripes(), 0.8, matte)
    if kind == "panelled":
        return Material(WOODS[rng.integers(len(WOODS))], panels(), 0.9, matte)
    return Material(tint, plaster(), 2.0, matte)


def _hang(rng: Random, size: tuple[float, float, float], names: tuple[str, ...]) -> list[Picture] | None:
    """Photographs in a random order on random walls, apart from each other and from the corners."""
    pictures: list[Picture] = []
    order = [names[k] for k in rng.permutation(len(names))]
    for name in order:
        aspect = photograph(name).aspect
        long_side = rng.uniform(0.8, 1.2)
        width, height = long_side * min(aspect, 1.0), long_side / max(aspect, 1.0)
        for _ in range(60):
            wall = int(rng.integers(4))
            free = wall_length(size, wall) / 2 - width / 2 - 0.3
            along, above = float(rng.uniform(-free, free)), float(rng.uniform(1.4, 1.6))
            if all(
                other.wall != wall or abs(other.along - along) > (other.width + width) / 2 + 0.25 for other in pictures
            ):
                pictures.append(Picture(name, len(pictures) + 1, wall, along, above, float(width), float(height)))
                break
        else:
            return None
    return pictures


def _picture_solid(picture: Picture, size: tuple[float, float, float]) -> Primitive:
    material = Material((0.16, 0.14, 0.12), photograph(picture.name), 0.0, matte=0.9)
    centre = (picture.along, picture.above, PICTURE_DEPTH / 2)
    board = solid("box", centre, (picture.width, picture.height, PICTURE_DEPTH), material)
    label = CLASSES.index(picture.name)
    return placed([board], wall_pose(size, picture.wall), label, picture.instance)[0]


def _box(rng: Random) -> list[Primitive]:
    """A parcel with a strip of tape, or a painted crate."""
    x, y, z = rng.uniform(0.35, 0.65, 3)
    if rng.random() < 0.6:
        tape = Material((0.82, 0.74, 0.58))
        parcel = Material(_CARDBOARD, plaster(), 0.5)
        return [solid("box", (0, 0, z / 2), (x, y, z), parcel), solid("box", (0, 0, z), (x + 0.002, 0.06, 0.002), tape)]
    return [
        solid("box", (0, 0, z / 2), (x, y, z), Material(PAINTS[rng.integers(len(PAINTS))], wood(), 0.6, grain=True))
    ]


def _pedestal(rng: Random) -> list[Primitive]:
    """Base, shaft and slab, as in a museum."""
    width, height = rng.uniform(0.30, 0.42), rng.uniform(0.75, 1.1)
    stone = Material(((0.90, 0.89, 0.86), (0.75, 0.74, 0.72), (0.62, 0.58, 0.55))[rng.integers(3)], plaster(), 0.5)
    round_shaft = rng.random() < 0.5
    shaft = (width * 0.75, width * 0.75, height - 0.12)
    middle = solid("frustum" if round_shaft else "box", (0, 0, height / 2), shaft, stone, taper=0.9)
    base = solid("box", (0, 0, 0.04), (width, width, 0.08), stone)
    return [base, middle, solid("box", (0, 0, height - 0.03), (width, width, 0.06), stone)]


def _stand(
    rng: Random,
    kind: str,
    instance: int,
    size: tuple[float, float, float],
    pictures: list[Picture],
    others: list[Thing],
) -> Thing | None:
    """One piece at a free place where it hides no photograph; None if no such place was found."""
    for _ in range(80):
        parts = {"box": _box, "pedestal": _pedestal, **FURNITURE}[kind](rng)
        low, high = bounds(parts)
        find = pose_at_wall if kind in AGAINST_WALL else pose_anywhere
        pose = find(rng, size, low, high, pictures)
        if pose is None:
            continue
        footprint = footprint_of(pose, low, high)
        if not any(overlap(footprint, other.footprint) for other in others):
            moved = placed(parts, pose, CLASSES.index(kind), instance)
            return Thing(kind, instance, moved, footprint, float(high[2]))
    return None
