"""How a LiDAR and cameras are mounted on a vehicle, and when each camera triggers: as the sweep passes its direction.

Vehicle frames have x ahead, y left and z up, with the origin on the ground.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ov3d.common.base.shapes import Array, Float64
from ov3d.common.scenes.cameras import Camera
from ov3d.common.worlds.ego_motion import rotations
from ov3d.common.worlds.spinning_lidar import SpinningLidar

ELEVATIONS = {16: (-15.0, 15.0), 32: (-30.67, 10.67), 64: (-24.9, 2.0)}
"""Lowest and highest beam, degrees, by number of beams (Velodyne's VLP-16, HDL-32E and HDL-64E)."""

_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""Right, down and ahead of a forward-looking camera, as columns in the vehicle's frame."""


@dataclass(frozen=True, slots=True, eq=False)
class CameraMount:
    """One camera on the vehicle.

    Attributes:
        name: its channel.
        camera: its intrinsics.
        ego_from_camera: its pose.
        trigger: seconds from the start of a sweep to the trigger.
    """

    name: str
    camera: Camera
    ego_from_camera: Float64[Array, "4 4"]
    trigger: float


@dataclass(frozen=True, slots=True, eq=False)
class SensorRig:
    """A vehicle's sensors.

    Attributes:
        lidar: the spinning sensor.
        ego_from_lidar: its pose.
        period: duration of a sweep, seconds.
        reference: seconds from a sweep's start to its nominal time and pose.
        cameras: in the order in which they are written.
    """

    lidar: SpinningLidar
    ego_from_lidar: Float64[Array, "4 4"]
    period: float
    reference: float
    cameras: tuple[CameraMount, ...]


def nuscenes_rig(beams: int, columns: int, size: tuple[int, int], rng: np.random.Generator) -> SensorRig:
    """Six cameras around, and a LiDAR on the roof whose y axis points ahead; a sweep takes 50 ms and its time is its end.

    Args:
        beams, columns: of the LiDAR.
        size: width and height of the images, pixels.
        rng: varies the mounting slightly per vehicle.
    """
    # Name, yaw in degrees, focal length over image width, place.
    mounts = (
        ("CAM_FRONT", 0.0, 0.79, (1.70, 0.02, 1.51)),
        ("CAM_FRONT_RIGHT", -55.0, 0.79, (1.55, -0.49, 1.50)),
        ("CAM_FRONT_LEFT", 55.0, 0.79, (1.52, 0.49, 1.51)),
        ("CAM_BACK", 180.0, 0.505, (0.03, 0.00, 1.58)),
        ("CAM_BACK_LEFT", 110.0, 0.79, (1.04, 0.48, 1.59)),
        ("CAM_BACK_RIGHT", -110.0, 0.79, (1.01, -0.48, 1.56)),
    )
    period, start = 0.05, 105.0
    cameras = tuple(
        CameraMount(
            name,
            _camera(size, focal, rng),
            _mounted(place, yaw, rng) @ _rigid(_OPTICAL),
            period * ((start - yaw) % 360) / 360,
        )
        for name, yaw, focal, place in mounts
    )
    lidar = _lidar(beams, columns, start + 90)
    return SensorRig(lidar, _mounted((0.94, 0.0, 1.84), -90.0, rng), period, period, cameras)


def kitti_rig(beams: int, columns: int, size: tuple[int, int], rng: np.random.Generator) -> SensorRig:
    """One camera ahead, and a LiDAR whose x axis points ahead; a sweep takes 100 ms and its time is when both look ahead.

    Args:
        beams, columns: of the LiDAR.
        size: width and height of the image, pixels.
        rng: varies the mounting slightly per vehicle.
    """
    place = _mounted((0.27, 0.06, 1.65), 0.0, rng) @ _rigid(_OPTICAL)
    camera = CameraMount("image_2", _camera(size, 0.58, rng), place, 0.05)
    return SensorRig(_lidar(beams, columns, 180.0), _mounted((0.0, 0.0, 1.73), 0.0, rng), 0.1, 0.05, (camera,))


def _lidar(beams: int, columns: int, start: float) -> SpinningLidar:
    lowest, highest = ELEVATIONS[beams]
    return SpinningLidar(beams=beams, lowest=lowest, highest=highest, columns=columns, start=float(np.radians(start)))


def _camera(size: tuple[int, int], focal: float, rng: np.random.Generator) -> Camera:
    width, height = size
    focal, middle = width * focal * rng.uniform(0.99, 1.01), rng.uniform(0.48, 0.52, 2)
    return Camera(width, height, float(focal), float(focal), float(width * middle[0]), float(height * middle[1]))


def _mounted(place: tuple[float, float, float], yaw: float, rng: np.random.Generator) -> Float64[Array, "4 4"]:
    """A pose within half a degree and two centimetres of the nominal one; `yaw` in degrees."""
    turn = np.radians(rng.uniform(-0.5, 0.5, 3) + (yaw, 0, 0))
    pose = _rigid(rotations(*turn[:, None])[0])
    pose[:3, 3] = np.array(place) + rng.uniform(-0.02, 0.02, 3)
    return pose


def _rigid(rotation: Float64[Array, "3 3"]) -> Float64[Array, "4 4"]:
    pose = np.eye(4)
    pose[:3, :3] = rotation
    return pose
