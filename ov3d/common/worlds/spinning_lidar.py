"""A LiDAR of several beams that spins clockwise while its carrier moves: each column is fired at its own time and place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ov3d.common.base.shapes import Array, Bool, Float32, Float64, Int32, Int64
from ov3d.common.scenes.cameras import invert_pose
from ov3d.common.worlds.moving_world import MovingWorld
from ov3d.common.worlds.primitives import normals
from ov3d.common.worlds.raycast import Hits, nearest

NOISE_HIT = -1
"""Primitive index of a return that is not from a surface."""

_MARGIN = 0.006
"""Radians by which the window of a solid is widened: the carrier rotates by less within half a sweep."""

_FAINT = 0.02
"""Signal at which a pulse is lost in 37 of 100 cases; 1 is what a white board sends back from 40 m."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpinningLidar:
    """The sensor. Its frame has z up; azimuth is counted anticlockwise from its x axis.

    Attributes:
        beams: number of beams, evenly spread between `lowest` and `highest`; ring 0 is the lowest.
        lowest, highest: elevations, degrees.
        columns: firings in a sweep.
        start: azimuth of the first column's leading edge, radians; the sensor spins clockwise.
        max_range, min_range: metres within which a surface is measured.
        range_noise: standard deviation along the beam, metres.
        dropout: share of pulses lost at random; more are lost if little light comes back.
        noise: share of returns from somewhere in front of the surface (dust, rain).
    """

    beams: int
    lowest: float
    highest: float
    columns: int
    start: float
    max_range: float = 80.0
    min_range: float = 1.0
    range_noise: float = 0.02
    dropout: float = 0.03
    noise: float = 0.001

    def elevations(self) -> Float64[Array, " b"]:
        """Elevation of every ring, radians."""
        return np.radians(np.linspace(self.lowest, self.highest, self.beams))

    def azimuths(self) -> Float64[Array, " c"]:
        """Azimuth of every column, radians, decreasing."""
        return self.start - 2 * np.pi * (np.arange(self.columns) + 0.5) / self.columns

    def directions(self) -> Float64[Array, "c b 3"]:
        """Unit vectors of every firing in the sensor's frame."""
        azimuth, elevation = self.azimuths()[:, None], self.elevations()[None]
        flat = np.cos(elevation)
        x, y = flat * np.cos(azimuth), flat * np.sin(azimuth)
        return np.stack([x, y, np.broadcast_to(np.sin(elevation), x.shape)], axis=-1)


@dataclass(frozen=True, slots=True, eq=False)
class Returns:
    """Returns of a sweep, by column and ring.

    Attributes:
        xyz: positions in the world, with range noise.
        column, ring: the firing.
        primitive: index of the solid hit, `NOISE_HIT` for none.
        intensity: in [0, 1], in steps of 1/255.
    """

    xyz: Float64[Array, "n 3"]
    column: Int64[Array, " n"]
    ring: Int64[Array, " n"]
    primitive: Int32[Array, " n"]
    intensity: Float32[Array, " n"]


def scan(
    world: MovingWorld,
    lidar: SpinningLidar,
    world_from_lidar: Float64[Array, "c 4 4"],
    times: Float64[Array, " c"],
    rng: np.random.Generator,
) -> Returns:
    """One sweep.

    Args:
        world: the world.
        lidar: the sensor.
        world_from_lidar: its pose when each column is fired.
        times: firing time of each column, seconds, increasing.
        rng: noise and losses.
    """
    directions = np.einsum("cij,cbj->cbi", world_from_lidar[:, :3, :3], lidar.directions()).reshape(-1, 3)
    origins = np.repeat(world_from_lidar[:, :3, 3], lidar.beams, axis=0)
    hits = first_hits(world, lidar, world_from_lidar, times, origins, directions)
    reached = (hits.t >= lidar.min_range) & (hits.t <= lidar.max_range)
    rays = np.flatnonzero(reached)
    distance, primitive = hits.t[rays], hits.primitive[rays]
    on_surface = origins[rays] + distance[:, None] * directions[rays]
    moved = _displacements(world, primitive, times[rays // lidar.beams])
    intensity, spread = _brightness(world, primitive, on_surface - moved, directions[rays], rng)
    signal = intensity * (40.0 / distance) ** 2
    kept = rng.random(len(rays)) < (1 - lidar.dropout) * -np.expm1(-signal / _FAINT)
    measured = distance + rng.normal(0, lidar.range_noise, len(rays)) + spread * rng.random(len(rays))
    stray = rng.random(len(rays)) < lidar.noise
    measured = np.where(stray, rng.uniform(lidar.min_range, np.maximum(distance, lidar.min_range)), measured)
    shine = np.where(stray, 0.3 * rng.random(len(rays)), intensity)
    return Returns(
        xyz=(origins[rays] + measured[:, None] * directions[rays])[kept],
        column=(rays // lidar.beams)[kept],
        ring=(rays % lidar.beams)[kept],
        primitive=np.where(stray, np.int32(NOISE_HIT), primitive)[kept],
        intensity=(np.rint(255 * shine[kept]) / 255).astype(np.float32),
    )


def first_hits(
    world: MovingWorld,
    lidar: SpinningLidar,
    world_from_lidar: Float64[Array, "c 4 4"],
    times: Float64[Array, " c"],
    origins: Float64[Array, "r 3"],
    directions: Float64[Array, "r 3"],
) -> Hits:
    """First hits of all firings, column by column; each solid is tested only on firings that can hit its box."""
    first, num_columns, low, high = _windows(world, lidar, world_from_lidar, times)

    def rays_of(number: int) -> tuple[slice | Int64[Array, " _m"], Float64[Array, "_k 3"], Float64[Array, "_m 3"]]:
        columns = (first[number] + np.arange(num_columns[number])) % lidar.columns
        mine = (columns[:, None] * lidar.beams + np.arange(low[number], high[number])).reshape(-1)
        eyes, motion = origins[mine], world.motions[number]
        if motion.moves:
            eyes = eyes - np.repeat(motion.displacement(times[columns]), high[number] - low[number], axis=0)
        return mine, eyes, directions[mine]

    return nearest(world.primitives, len(directions), rays_of)


def _windows(
    world: MovingWorld, lidar: SpinningLidar, world_from_lidar: Float64[Array, "c 4 4"], times: Float64[Array, " c"]
) -> tuple[Int64[Array, " n"], Int64[Array, " n"], Int64[Array, " n"], Int64[Array, " n"]]:
    """First column, number of columns, first ring and ring after the last in which each solid may be hit.

    The union of what the solids' boxes cover at the start, middle and end of the sweep.
    """
    moments = [0, lidar.columns // 2, lidar.columns - 1]
    seen = [_extent(world.corners_at(float(times[k])), world_from_lidar[k]) for k in moments]
    middle = seen[0][0]
    turned = [(centre - middle + np.pi) % (2 * np.pi) - np.pi for centre, *_ in seen]
    left = np.max([shift + extent[2] for shift, extent in zip(turned, seen, strict=True)], axis=0) + _MARGIN
    right = np.min([shift + extent[1] for shift, extent in zip(turned, seen, strict=True)], axis=0) - _MARGIN
    around = np.any([extent[5] for extent in seen], axis=0)
    out_of_reach = np.min([extent[6] for extent in seen], axis=0) > lidar.max_range
    step = 2 * np.pi / lidar.columns
    first = np.floor((lidar.start - middle - left) / step - 0.5).astype(np.int64)
    last = np.ceil((lidar.start - middle - right) / step - 0.5).astype(np.int64)
    num = np.where(around, lidar.columns, np.minimum(last - first + 1, lidar.columns))
    elevations = lidar.elevations()
    low = np.searchsorted(elevations, np.min([extent[3] for extent in seen], axis=0) - _MARGIN)
    high = np.searchsorted(elevations, np.max([extent[4] for extent in seen], axis=0) + _MARGIN, side="right")
    return first, np.where(out_of_reach | (high <= low), 0, num), low, np.maximum(high, low)


def _extent(
    corners: Float64[Array, "n 8 3"], world_from_lidar: Float64[Array, "4 4"]
) -> tuple[
    Float64[Array, " n"],
    Float64[Array, " n"],
    Float64[Array, " n"],
    Float64[Array, " n"],
    Float64[Array, " n"],
    Bool[Array, " n"],
    Float64[Array, " n"],
]:
    """How boxes appear to the sensor.

    Returns:
        Azimuth of the middle, least and greatest azimuth relative to it, least and greatest elevation (all radians), whether
        the box may surround the sensor (making the azimuths meaningless), and a lower bound on its distance.
    """
    lidar_from_world = invert_pose(world_from_lidar)
    local = np.einsum("ij,nkj->nki", lidar_from_world[:3, :3], corners) + lidar_from_world[:3, 3]
    middle = local.mean(axis=1)
    azimuth = np.arctan2(middle[:, 1], middle[:, 0])
    aside = np.arctan2(local[..., 1], local[..., 0]) - azimuth[:, None]
    aside = (aside + np.pi) % (2 * np.pi) - np.pi
    around = (np.abs(aside) > 1.5).any(axis=1)
    # A box that does not surround the sensor is behind the plane through its nearest corner normal to the line of sight.
    ahead = local[..., 0] * np.cos(azimuth)[:, None] + local[..., 1] * np.sin(azimuth)[:, None]
    near = np.where(around, 0.0, np.maximum(ahead.min(axis=1), 1e-6))
    far = np.hypot(local[..., 0], local[..., 1]).max(axis=1)
    bottom, top = local[..., 2].min(axis=1), local[..., 2].max(axis=1)
    lowest = np.arctan2(bottom, np.where(bottom < 0, near, far))
    highest = np.arctan2(top, np.where(top > 0, near, far))
    return azimuth, aside.min(axis=1), aside.max(axis=1), lowest, highest, around, near


def _displacements(
    world: MovingWorld, primitive: Int32[Array, " n"], times: Float64[Array, " n"]
) -> Float64[Array, "n 3"]:
    """Displacement of each hit solid since time 0 when it was hit."""
    moved = np.zeros((len(primitive), 3))
    for number in np.unique(primitive):
        motion = world.motions[number]
        if motion.moves:
            rows = primitive == number
            moved[rows] = motion.displacement(times[rows])
    return moved


def _brightness(
    world: MovingWorld,
    primitive: Int32[Array, " n"],
    points: Float64[Array, "n 3"],
    directions: Float64[Array, "n 3"],
    rng: np.random.Generator,
) -> tuple[Float64[Array, " n"], Float64[Array, " n"]]:
    """Intensity by material and angle of incidence, and how far pulses may penetrate behind the surface.

    Args:
        points: hits, moved to their solids' positions at time 0.
    """
    intensity, spread = np.empty(len(points)), np.empty(len(points))
    order = np.argsort(primitive, kind="stable")
    numbers, starts = np.unique(primitive[order], return_index=True)
    for number, rows in zip(numbers, np.split(order, starts[1:]), strict=True):
        solid = world.primitives[number]
        across, _ = normals(solid, points[rows])
        facing = np.abs((across * directions[rows]).sum(axis=1))
        intensity[rows] = solid.material.reflectance * (0.2 + 0.8 * facing)
        spread[rows] = solid.material.spread
    return np.clip(intensity * rng.normal(1, 0.06, len(points)), 0, 1), spread
