"""Traffic in a generated street: vehicles in lanes and at the kerb, people on pavements and crossings.

Within a lane, and on a track of the pavement, all have the same speed, so they never collide; people cross the street
when no vehicle is coming.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ov3d.common.base.shapes import Array, Float64
from ov3d.common.worlds.moving_world import STILL, Motion
from ov3d.common.worlds.primitives import Primitive, bounds, pose_at
from ov3d.common.worlds.street_people import pedestrian
from ov3d.common.worlds.street_plan import (
    CYCLE_STRIP,
    KERB_HEIGHT,
    LANE,
    SIDE_STREET,
    SIDES,
    ZEBRA,
    StreetPlan,
)
from ov3d.common.worlds.street_vehicles import bicycle, bus, car, motorcycle, truck

Random = np.random.Generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """How busy a street is.

    Attributes:
        vehicles: driving, per 100 m of lane.
        parked: share of the kerb in use.
        cyclists: per 100 m of cycle strip.
        bicycles: parked on the pavement, bicycles and motorcycles, per 100 m of kerb.
        walkers: people who walk or stand on the pavement, per 100 m of a side.
        crossing: people at a crossing.
    """

    vehicles: float = 2.2
    parked: float = 0.55
    cyclists: float = 2.0
    bicycles: float = 4.0
    walkers: float = 9.0
    crossing: int = 4


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """A thing in the plan's frame.

    Attributes:
        name: its class.
        parts: its solids in its own frame.
        pose: the plan from its frame, at time 0.
        motion: in the plan's frame.
    """

    name: str
    parts: list[Primitive]
    pose: Float64[Array, "4 4"]
    motion: Motion = STILL


@dataclass(frozen=True, slots=True, kw_only=True)
class Ride:
    """The motion of the sensor vehicle, so that traffic can keep out of its way.

    Attributes:
        speed: m/s along +x, from x = 0 at time 0.
        lane: its y.
        duration: seconds.
        reach: metres around it that matter.
    """

    speed: float
    lane: float
    duration: float
    reach: float

    def meets(self, speed: float) -> tuple[float, float]:
        """Range of x at time 0 from which something at a given speed comes within reach at some time."""
        drift = (speed - self.speed) * self.duration
        return min(-self.reach, -self.reach - drift), max(self.reach, self.reach - drift)


def traffic(rng: Random, plan: StreetPlan, ride: Ride, busy: Traffic) -> list[Placement]:
    """All things of a street."""
    driving = [one for side in SIDES for lane in range(plan.lanes) for one in _lane(rng, ride, busy, side, lane)]
    driving += [one for side in SIDES for one in _cyclists(rng, plan, ride, busy, side)]
    things, vehicles = list(driving), [_crossed(one) for one in driving] + [(0.0, ride.lane, ride.speed, 7.0)]
    for side in SIDES:
        things += _walkers(rng, plan, ride, busy, side)
        for block in plan.blocks():
            things += _parked(rng, plan, busy, block, side) if plan.parking else []
            things += _on_pavement(rng, plan, busy, block, side)
    for x in plan.junctions:
        things += _crossing(rng, plan, ride, busy, x, vehicles)
        things += _side_street(rng, plan, busy, x)
    return things


def lane_middle(side: int, lane: int) -> float:
    """y of a lane, counted from the street's middle."""
    return side * (lane + 0.5) * LANE


def _vehicle(rng: Random, kinds: tuple[str, ...], shares: tuple[float, ...]) -> tuple[str, list[Primitive]]:
    name = kinds[rng.choice(len(kinds), p=shares)]
    if name == "motorcyclist":
        return name, motorcycle(rng, ridden=True)
    return name, {"car": car, "truck": truck, "bus": bus, "motorcycle": motorcycle}[name](rng)


def _size(parts: list[Primitive]) -> tuple[float, float]:
    """Length and width, metres."""
    low, high = bounds(parts)
    return float(high[0] - low[0]), float(high[1] - low[1])


def _ahead(side: int) -> float:
    """Yaw of vehicles driving on a side."""
    return 0.0 if side < 0 else np.pi


def _lane(rng: Random, ride: Ride, busy: Traffic, side: int, lane: int) -> Iterator[Placement]:
    y = lane_middle(side, lane)
    own = y == ride.lane
    speed = ride.speed if own else -side * float(rng.uniform(0.55, 1.25)) * max(ride.speed, 4.0)
    x, end = ride.meets(speed)
    x += float(rng.uniform(0, 25))
    while x < end and busy.vehicles > 0:
        name, parts = _vehicle(rng, ("car", "truck", "bus", "motorcyclist"), (0.66, 0.12, 0.11, 0.11))
        length, _ = _size(parts)
        middle = x + length / 2
        if not own or abs(middle) > 10 + length / 2:
            yield Placement(
                name, parts, pose_at(middle, y + float(rng.uniform(-0.2, 0.2)), _ahead(side)), Motion((speed, 0.0, 0.0))
            )
        x += length + 5 + float(rng.exponential(max(100 / busy.vehicles - length - 5, 3)))


def _cyclists(rng: Random, plan: StreetPlan, ride: Ride, busy: Traffic, side: int) -> Iterator[Placement]:
    speed, y = -side * float(rng.uniform(3.5, 5.5)), plan.lanes * LANE + CYCLE_STRIP / 2
    x, end = ride.meets(speed)
    while x < end and busy.cyclists > 0:
        x += 3 + float(rng.exponential(100 / busy.cyclists))
        # Away from the parked ones, of which buses stand out.
        place = pose_at(x, side * (y - float(rng.uniform(0.0, 0.3))), _ahead(side))
        yield Placement("bicyclist", bicycle(rng, ridden=True), place, Motion((speed, 0.0, 0.0)))


def _walkers(rng: Random, plan: StreetPlan, ride: Ride, busy: Traffic, side: int) -> Iterator[Placement]:
    """Two tracks on which people walk back and forth, and one beside the houses on which they stand."""
    tracks = np.linspace(plan.strip + 0.5, plan.pavement - 0.4, 3)
    for y, speed in zip(tracks, (rng.uniform(0.9, 1.6), -rng.uniform(0.9, 1.6), 0.0), strict=True):
        x, end = ride.meets(float(speed))
        while x < end and busy.walkers > 0:
            x += 1.2 + float(rng.exponential(max(300 / busy.walkers - 1.2, 0.1)))
            child = rng.random() < 0.15
            yaw = (0.0 if speed > 0 else np.pi) if speed else float(rng.uniform(0, 2 * np.pi))
            pose = pose_at(x, side * (plan.kerb + float(y)), yaw + float(rng.uniform(-0.1, 0.1)), KERB_HEIGHT)
            parts = pedestrian(rng, child=child)
            yield Placement("child" if child else "pedestrian", parts, pose, Motion((float(speed), 0.0, 0.0)))


def _parked(rng: Random, plan: StreetPlan, busy: Traffic, block: tuple[float, float], side: int) -> Iterator[Placement]:
    # Nothing stands on the crossing, which lies at the far end of the block before a junction.
    x, end = block[0] + 4.0, block[1] - ZEBRA - 3.0
    while x < end - 5:
        name, parts = _vehicle(rng, ("car", "truck", "bus", "motorcycle"), (0.74, 0.09, 0.08, 0.09))
        length, width = _size(parts)
        if rng.random() < busy.parked and x + length < end:
            yaw = _ahead(side) + float(rng.uniform(-0.03, 0.03)) + (np.pi / 3 if name == "motorcycle" else 0)
            y = plan.kerb - max(plan.parking / 2, width / 2 + 0.15) + float(rng.uniform(-0.12, 0.12))
            yield Placement(name, parts, pose_at(x + length / 2, side * y, yaw))
        x += length + float(rng.uniform(0.8, 1.8))


def _on_pavement(
    rng: Random, plan: StreetPlan, busy: Traffic, block: tuple[float, float], side: int
) -> Iterator[Placement]:
    """Bicycles and motorcycles between the trees and poles of the kerb."""
    for x in np.arange(block[0] + 8.5, block[1] - 5, 7.0):
        if rng.random() < busy.bicycles * 0.07 / 1.5:
            name = "bicycle" if rng.random() < 0.75 else "motorcycle"
            for k in range(int(rng.integers(1, 3))):
                parts = bicycle(rng) if name == "bicycle" else motorcycle(rng)
                yaw = float(rng.uniform(-0.35, 0.35)) + np.pi * int(rng.integers(2))
                y = side * (plan.kerb + plan.strip / 2)
                yield Placement(name, parts, pose_at(float(x) + 2.3 * k - 1.2, y, yaw, KERB_HEIGHT))


def _side_street(rng: Random, plan: StreetPlan, busy: Traffic, x: float) -> Iterator[Placement]:
    """Cars parked along a side street."""
    for side in SIDES:
        for y in np.arange(plan.edge + 9, plan.edge + 55, 6.5):
            if rng.random() < 0.6 * busy.parked:
                place = pose_at(x + side * (SIDE_STREET - 1.1), side * float(y), side * np.pi / 2)
                yield Placement("car", car(rng), place)


Crossed = tuple[float, float, float, float]
"""A vehicle that drives past a crossing: x at time 0, y, speed along x, length."""


def _crossed(one: Placement) -> Crossed:
    return float(one.pose[0, 3]), float(one.pose[1, 3]), one.motion.velocity[0], _size(one.parts)[0]


def _crossing(
    rng: Random, plan: StreetPlan, ride: Ride, busy: Traffic, junction: float, vehicles: list[Crossed]
) -> Iterator[Placement]:
    """People who cross while the sensor vehicle is near, and people who wait for a gap in traffic."""
    arrival = junction / ride.speed if ride.speed > 0 else ride.duration / 2
    for abreast in (np.arange(busy.crossing) - (busy.crossing - 1) / 2) * 0.9:
        side, pace = int(rng.choice(SIDES)), float(rng.uniform(1.1, 1.7))
        x, start, yaw = junction - ZEBRA + float(abreast), side * (plan.kerb + 0.2), -side * np.pi / 2
        child = rng.random() < 0.15
        name, parts = "child" if child else "pedestrian", pedestrian(rng, child=child)
        seconds = (2 * plan.kerb + 0.4) / pace
        for departure in arrival + rng.uniform(-16, 4, 12):
            motion = Motion((0.0, -side * pace, 0.0), float(departure), float(departure) + seconds)
            if _is_free(x, start, motion, vehicles):
                # The pose is at time 0, when the walk may already have started.
                y = start - float(motion.displacement(np.array([motion.start]))[0, 1])
                yield Placement(name, parts, pose_at(x, y, yaw, KERB_HEIGHT / 2), motion)
                break
        else:
            yield Placement(name, parts, pose_at(x, start, yaw, KERB_HEIGHT))


def _is_free(x: float, start: float, motion: Motion, vehicles: list[Crossed]) -> bool:
    """Whether no vehicle comes near someone who crosses at x."""
    times = np.arange(motion.start, motion.stop, 0.1)
    y = start + motion.velocity[1] * (times - motion.start)
    for middle, lane, speed, length in vehicles:
        close = np.abs(middle + speed * times - x) < length / 2 + 2.0
        if (close & (np.abs(y - lane) < 2.0)).any():
            return False
    return True
