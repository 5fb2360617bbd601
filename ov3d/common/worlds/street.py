"""Streets: seeded generated worlds through which a vehicle drives with a LiDAR and cameras, with exact truth.

A drive is a sequence of sweeps of one street, fully determined by its `StreetConfig`; any sweep can be generated on its own
with the same result. `nuscenes_writer` and `semantickitti_writer` write drives in the layouts of those data sets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ov3d.common.base.errors import UsageError
from ov3d.common.base.shapes import Array, Float32, Float64, Int32, Int64
from ov3d.common.scenes.cameras import invert_pose
from ov3d.common.scenes.scene import IGNORE
from ov3d.common.worlds.ego_motion import EgoMotion
from ov3d.common.worlds.moving_world import Motion, MovingWorld, Thing
from ov3d.common.worlds.primitives import bounds, placed, pose_at
from ov3d.common.worlds.raycast import View, render
from ov3d.common.worlds.sensor_rig import ELEVATIONS, CameraMount, SensorRig, kitti_rig, nuscenes_rig
from ov3d.common.worlds.spinning_lidar import NOISE_HIT, Returns, scan
from ov3d.common.worlds.street_classes import NOISE, class_id
from ov3d.common.worlds.street_plan import draw_plan, scenery
from ov3d.common.worlds.street_traffic import Placement, Ride, Traffic, lane_middle, traffic

Rig = Literal["nuscenes", "semantickitti"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreetConfig:
    """The configuration of a drive.

    Attributes:
        seed: another seed, another street.
        num_sweeps: number of sweeps to keep.
        rig: the data set whose sensors the vehicle carries: `nuscenes` (six cameras) or `semantickitti` (one camera ahead).
        interval: seconds between kept sweeps.
        speed: mean speed of the vehicle, m/s.
        beams: of the LiDAR: 16, 32 or 64.
        columns: firings in a sweep.
        width, height: of the photographs, pixels.
        reach: metres around the vehicle that are furnished and photographed.
        motion_compensated: transform the points of a sweep to the LiDAR's pose at the sweep's nominal time, as both data sets
            do, instead of leaving each in the frame of its measurement. Moving things are smeared either way.
        traffic: how busy the street is.
    """

    seed: int = 0
    num_sweeps: int = 10
    rig: Rig = "nuscenes"
    interval: float = 0.5
    speed: float = 8.0
    beams: int = 32
    columns: int = 1084
    width: int = 400
    height: int = 225
    reach: float = 110.0
    motion_compensated: bool = True
    traffic: Traffic = field(default_factory=Traffic)

    def __post_init__(self) -> None:
        if self.beams not in ELEVATIONS:
            raise UsageError(
                f"A LiDAR with {self.beams} beams is not supported.", f"Use {', '.join(map(str, ELEVATIONS))}."
            )
        least = {
            "seed": 0,
            "num_sweeps": 1,
            "interval": 0.1,
            "speed": 0,
            "columns": 16,
            "reach": 20,
            "width": 32,
            "height": 18,
        }
        for name, low in least.items():
            if getattr(self, name) < low:
                raise UsageError(f"Street setting {name} must be at least {low}, got {getattr(self, name)}.")


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """One photograph.

    Attributes:
        mount: the camera that took it.
        timestamp: microseconds.
        world_from_ego: the vehicle's pose at that time.
        view: the photograph, and depth, classes and objects of its pixels.
    """

    mount: CameraMount
    timestamp: int
    world_from_ego: Float64[Array, "4 4"]
    view: View


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """One sweep of the LiDAR with the photographs taken meanwhile.

    Attributes:
        number: which sweep of the drive.
        timestamp: microseconds; the time of `world_from_ego`.
        world_from_ego, ego_from_lidar: poses.
        xyz: points in the LiDAR's frame.
        intensity: in [0, 1], in steps of 1/255.
        ring: the beam of each point, 0 the lowest.
        time: seconds after the sweep's time at which each point was measured; negative before it.
        labels: indices into `STREET_CLASSES`; noise if no surface was hit.
        instances: object ids, `IGNORE` for points without an object.
        primitives: index of the solid that each point is on, `NOISE_HIT` for none.
        shots: photographs, in the order of the rig's cameras.
    """

    number: int
    timestamp: int
    world_from_ego: Float64[Array, "4 4"]
    ego_from_lidar: Float64[Array, "4 4"]
    xyz: Float32[Array, "n 3"]
    intensity: Float32[Array, " n"]
    ring: Int64[Array, " n"]
    time: Float64[Array, " n"]
    labels: Int32[Array, " n"]
    instances: Int32[Array, " n"]
    primitives: Int32[Array, " n"]
    shots: tuple[Shot, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Drive:
    """A street and a vehicle driving through it; nothing is measured yet.

    Attributes:
        config: its configuration.
        world: the world at the start of the drive.
        ego: the vehicle's motion.
        rig: its sensors.
        start: timestamp of the start of the drive, microseconds.
    """

    config: StreetConfig
    world: MovingWorld
    ego: EgoMotion
    rig: SensorRig
    start: int

    def timestamp(self, number: int) -> int:
        """Time of a sweep, microseconds."""
        return self.start + round(1e6 * (self.rig.period + number * self.config.interval))

    def world_from_ego(self, timestamp: int) -> Float64[Array, "4 4"]:
        """The vehicle's pose at a time."""
        return self.ego.poses(np.array([self.seconds(timestamp)]))[0]

    def seconds(self, timestamp: int) -> float:
        """A time as seconds since the start of the drive."""
        return (timestamp - self.start) / 1e6

    def sweep(self, number: int, *, photographs: bool = True) -> Sweep:
        """Measure one sweep and take its photographs, which takes most of the time."""
        timestamp, rig = self.timestamp(number), self.rig
        begin = self.seconds(timestamp) - rig.reference
        columns = self.config.columns
        times = begin + rig.period * (np.arange(columns) + 0.5) / columns
        world_from_lidar = self.ego.poses(times) @ rig.ego_from_lidar
        rng = np.random.default_rng([self.config.seed, 2, number])
        returns = scan(self.world, rig.lidar, world_from_lidar, times, rng)
        pose = self.world_from_ego(timestamp)
        labels, instances = self._truth(returns.primitive)
        return Sweep(
            number=number,
            timestamp=timestamp,
            world_from_ego=pose,
            ego_from_lidar=rig.ego_from_lidar,
            xyz=self._in_lidar(returns, world_from_lidar, pose @ rig.ego_from_lidar).astype(np.float32),
            intensity=returns.intensity,
            ring=returns.ring,
            time=times[returns.column] - self.seconds(timestamp),
            labels=labels,
            instances=instances,
            primitives=returns.primitive,
            shots=tuple(self._shot(mount, timestamp) for mount in rig.cameras if photographs),
        )

    def sweeps(self) -> Iterator[Sweep]:
        """All sweeps in order."""
        return (self.sweep(number) for number in range(self.config.num_sweeps))

    def _shot(self, mount: CameraMount, sweep_timestamp: int) -> Shot:
        timestamp = sweep_timestamp + round(1e6 * (mount.trigger - self.rig.reference))
        pose = self.world_from_ego(timestamp)
        world_from_camera = pose @ mount.ego_from_camera
        visible = self.world.seen_by(mount.camera, world_from_camera, self.config.reach, self.seconds(timestamp))
        return Shot(mount, timestamp, pose, render(visible, mount.camera, world_from_camera))

    def _in_lidar(
        self, returns: Returns, world_from_lidar: Float64[Array, "c 4 4"], reference: Float64[Array, "4 4"]
    ) -> Float64[Array, "n 3"]:
        if self.config.motion_compensated:
            lidar_from_world = invert_pose(reference)
            return np.einsum("ij,nj->ni", lidar_from_world[:3, :3], returns.xyz) + lidar_from_world[:3, 3]
        fired = world_from_lidar[returns.column]
        return np.einsum("nji,nj->ni", fired[:, :3, :3], returns.xyz - fired[:, :3, 3])

    def _truth(self, primitive: Int32[Array, " n"]) -> tuple[Int32[Array, " n"], Int32[Array, " n"]]:
        solids = self.world.primitives
        labels = np.array([*(one.label for one in solids), NOISE], np.int32)  # NOISE_HIT (-1) reads the last
        instances = np.array([*(one.instance for one in solids), IGNORE], np.int32)
        assert NOISE_HIT == -1
        return labels[primitive], instances[primitive]


def build_drive(config: StreetConfig) -> Drive:
    """Draw a street, its contents, and the vehicle's sensors and path."""
    rng = np.random.default_rng([config.seed, 1])
    rig = (nuscenes_rig if config.rig == "nuscenes" else kitti_rig)(
        config.beams, config.columns, (config.width, config.height), rng
    )
    duration = rig.period + config.num_sweeps * config.interval
    plan = draw_plan(rng, -config.reach, config.speed * duration + config.reach)
    ride = Ride(
        speed=config.speed, lane=lane_middle(-1, int(rng.integers(plan.lanes))), duration=duration, reach=config.reach
    )
    # Somewhere far from the origin of a map, in some direction.
    world_from_street = pose_at(*(float(value) for value in rng.uniform((300, 300, 0), (1500, 1500, 2 * np.pi))))
    ego = EgoMotion(
        world_from_street,
        config.speed,
        ride.lane,
        surge=min(1.0, config.speed / 4),
        sway=min(0.3, config.speed / 10),
        phase=float(rng.uniform(0, 2 * np.pi)),
    )
    still = [placed([one], world_from_street, one.label, one.instance)[0] for one in scenery(rng, plan)]
    things = [_thing(one, k + 1, world_from_street) for k, one in enumerate(traffic(rng, plan, ride, config.traffic))]
    start = 1_530_000_000_000_000 + int(rng.integers(0, 10**13))
    return Drive(config, MovingWorld.of(still, things), ego, rig, start)


def _thing(placement: Placement, instance: int, world_from_street: Float64[Array, "4 4"]) -> Thing:
    low, high = bounds(placement.parts)
    pose, motion = world_from_street @ placement.pose, placement.motion
    x, y, z = (float(value) for value in world_from_street[:3, :3] @ motion.velocity)
    middle = np.eye(4)
    middle[:3, 3] = (low + high) / 2
    length, width, height = (float(value) for value in high - low)
    return Thing(
        name=placement.name,
        instance=instance,
        parts=tuple(placed(placement.parts, pose, class_id(placement.name), instance)),
        motion=Motion((x, y, z), motion.start, motion.stop),
        world_from_box=pose @ middle,
        size=(length, width, height),
    )
