"""A world in which some solids move: where each is at a time, and which of them a sensor can hit at all.

Positions are given at time 0. A solid moves in a straight line at constant speed between two times and is at rest before
and after. It never rotates, so a ray at time t hits it where the same ray, shifted back by the solid's displacement, hits it
at time 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ov3d.common.base.shapes import Array, Float64, Int64
from ov3d.common.scenes.cameras import Camera
from ov3d.common.worlds.primitives import Primitive, all_corners
from ov3d.common.worlds.raycast import outlines_on_screen


@dataclass(frozen=True, slots=True)
class Motion:
    """How a thing moves.

    Attributes:
        velocity: metres per second in the world.
        start, stop: seconds between which it moves.
    """

    velocity: tuple[float, float, float] = (0.0, 0.0, 0.0)
    start: float = -np.inf
    stop: float = np.inf

    @property
    def moves(self) -> bool:
        """Whether it ever moves."""
        return any(self.velocity) and self.stop > self.start

    def displacement(self, times: Float64[Array, " t"]) -> Float64[Array, "t 3"]:
        """Displacements at given times relative to time 0, metres."""
        moved = np.clip(times, self.start, self.stop) - np.clip(0.0, self.start, self.stop)
        return moved[:, None] * np.array(self.velocity)


STILL = Motion()


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    """One object.

    Attributes:
        name: its class.
        instance: its object id, from 1.
        parts: its solids, in the world at time 0.
        motion: how they move together.
        world_from_box: pose of the middle of its box at time 0, x ahead and z up.
        size: of its box along x, y and z, metres.
    """

    name: str
    instance: int
    parts: tuple[Primitive, ...]
    motion: Motion
    world_from_box: Float64[Array, "4 4"]
    size: tuple[float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class MovingWorld:
    """Scenery and things.

    Attributes:
        things: the objects, by ascending instance.
        primitives: all solids at time 0, the scenery's first.
        motions: how each of them moves.
    """

    things: tuple[Thing, ...]
    primitives: tuple[Primitive, ...]
    motions: tuple[Motion, ...]
    _corners: Float64[Array, "n 8 3"] = field(repr=False)
    _moving: Int64[Array, " m"] = field(repr=False)
    _velocities: Float64[Array, "m 3"] = field(repr=False)
    _spans: Float64[Array, "m 2"] = field(repr=False)

    @classmethod
    def of(cls, scenery: Sequence[Primitive], things: Sequence[Thing]) -> MovingWorld:
        """Build a world from scenery and things."""
        primitives, motions = list(scenery), [STILL] * len(scenery)
        for thing in things:
            primitives += thing.parts
            motions += [thing.motion] * len(thing.parts)
        moving = [number for number, motion in enumerate(motions) if motion.moves]
        velocities = np.array([motions[number].velocity for number in moving]).reshape(-1, 3)
        spans = np.array([(motions[number].start, motions[number].stop) for number in moving]).reshape(-1, 2)
        corners = all_corners(primitives)
        return cls(
            tuple(things), tuple(primitives), tuple(motions), corners, np.array(moving, np.int64), velocities, spans
        )

    def corners_at(self, time: float) -> Float64[Array, "n 8 3"]:
        """Corners of every solid's box at a time."""
        start, stop = self._spans.T
        seconds = np.clip(time, start, stop) - np.clip(0.0, start, stop)
        corners = self._corners.copy()
        corners[self._moving] += (seconds[:, None] * self._velocities)[:, None]
        return corners

    def seen_by(
        self, camera: Camera, world_from_camera: Float64[Array, "4 4"], reach: float, time: float
    ) -> list[Primitive]:
        """The solids that a camera may see within `reach` metres, at their positions at a time."""
        corners = self.corners_at(time)
        outlines = outlines_on_screen(corners, camera, world_from_camera)
        middle = corners.mean(axis=1)
        radius = np.linalg.norm(corners[:, 0] - middle, axis=1)
        near = np.linalg.norm(middle - world_from_camera[:3, 3], axis=1) - radius < reach
        return [self.moved(int(number), time) for number in np.flatnonzero(near & (outlines[:, 0] <= outlines[:, 2]))]

    def moved(self, number: int, time: float) -> Primitive:
        """One solid at its position at a time."""
        primitive, motion = self.primitives[number], self.motions[number]
        if not motion.moves:
            return primitive
        pose = primitive.world_from_local.copy()
        pose[:3, 3] += motion.displacement(np.array([time]))[0]
        return replace(primitive, world_from_local=pose)
