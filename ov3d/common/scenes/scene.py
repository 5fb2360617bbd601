"""Scenes: named posed frames and/or a point cloud, and facts about their coordinates.

A NeRF capture has frames; a ScanNet room has frames and a cloud; a LiDAR keyframe has a cloud and camera frames. Frames hold
paths, not pixels: a scene of five thousand views takes a few megabytes until an image is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.files import hash_text
from ov3d.common.base.shapes import Array, Bool, Float32, Float64, Int32, UInt8
from ov3d.common.scenes.cameras import Camera
from ov3d.common.scenes.distortion import Distortion, straighten, straighten_nearest
from ov3d.common.scenes.images import load_raster, load_rgb
from ov3d.common.scenes.sweep import Sweep
from ov3d.common.scenes.truth import IGNORE as IGNORE
from ov3d.common.scenes.truth import ClassMasks as ClassMasks
from ov3d.common.scenes.truth import LabelImage as LabelImage
from ov3d.common.scenes.truth import PolygonMasks as PolygonMasks


@dataclass(frozen=True, slots=True)
class World:
    """Facts about the coordinates of a scene.

    Attributes:
        units: `metric` (metres), or `arbitrary`: sizes are then printed in "units" and thresholds follow the point spacing.
        up: unit vector against gravity.
        origin: fp64 offset subtracted from every coordinate; arrays are fp32 relative to it, and exporters add it
            back, so that a cloud in UTM keeps its millimetres.
    """

    units: Literal["metric", "arbitrary"] = "metric"
    up: tuple[float, float, float] = (0.0, 0.0, 1.0)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def unit_name(self) -> str:
        """The unit to print lengths in: `m` or `units`."""
        return "m" if self.units == "metric" else "units"


@dataclass(frozen=True, slots=True)
class DepthImage:
    """A depth image on disk: 16-bit (or float) values times `scale` are depths along the optical axis; 0 is missing.

    Attributes:
        path: an image of one channel, or a .npy array.
        scale: scene units per step.
        camera: its intrinsics, undistorted; its pose is the photograph's.
        distortion: lens distortion of the file, or None; the file then has the size of its camera.
        missing: a stored value that, like 0, means no measurement; or None.
    """

    path: Path
    scale: float
    camera: Camera
    distortion: Distortion | None = None
    missing: int | None = None

    def load(self) -> Float32[Array, "h w"]:
        """Depth in scene units, 0 where missing.

        Raises:
            DataError: the file cannot be read or does not have the camera's size.
        """
        values = load_raster(self.path, "depth image")
        stored = self.distortion.camera if self.distortion else self.camera
        if values.shape != (stored.height, stored.width) or values.dtype.kind not in "fiu":
            raise DataError(
                f"Depth image {self.path} has shape {values.shape} of {values.dtype}, "
                f"its camera {stored.height}x{stored.width}.",
                "Depth must be one channel of numbers with the size of its intrinsics.",
            )
        if self.missing is not None:
            values = np.where(values == self.missing, values.dtype.type(0), values)
        if self.distortion is not None:
            values = straighten_nearest(values, self.distortion, self.camera, outside=0)
        depth = values.astype(np.float32) * np.float32(self.scale)
        return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One posed photograph.

    Attributes:
        name: unique in its scene; files about the frame are named after it.
        image_path: the photograph.
        camera: its intrinsics, undistorted, at the size of the upright file.
        world_from_camera: 4x4 pose, fp64, relative to the world's origin.
        depth: measured depth, or None.
        labels: class id per pixel, or None.
        instances: object id per pixel, or None.
        distortion: lens distortion of the file, or None: `load_image` removes it.
        mask_path: an image that is black where training must ignore the photograph, or None.
        depth_range: least and greatest visible depth, scene units, if the capture states them.
    """

    name: str
    image_path: Path
    camera: Camera
    world_from_camera: Float64[Array, "4 4"]
    depth: DepthImage | None = None
    labels: LabelImage | ClassMasks | PolygonMasks | None = None
    instances: LabelImage | None = None
    distortion: Distortion | None = None
    mask_path: Path | None = None
    depth_range: tuple[float, float] | None = None

    def load_image(self) -> UInt8[Array, "h w 3"]:
        """The photograph as the pinhole `camera` sees it: RGB, 8 bits per channel, upright, without distortion.

        Raises:
            DataError: it cannot be read, is truncated, or does not have the camera's size.
        """
        return load_photograph(self.image_path, self.camera, self.distortion)

    @property
    def pixels_key(self) -> str:
        """What determines the pixels of `load_image` besides the file's bytes; empty if the file alone does.

        Caches of anything made from the pixels are keyed by the file's content and this.
        """
        if self.distortion is None:
            return ""
        return hash_text("straightened-1", repr(self.distortion), repr(self.camera))

    def load_mask(self) -> Bool[Array, "h w"]:
        """Which pixels of `load_image` may be used; all if the frame has no mask.

        Raises:
            DataError: the mask cannot be read or does not have the photograph's size.
        """
        if self.mask_path is None:
            return np.ones((self.camera.height, self.camera.width), np.bool_)
        mask = load_photograph(self.mask_path, self.distortion.camera if self.distortion else self.camera, None)
        used = mask.max(axis=2) > 0
        if self.distortion is None:
            return used
        return straighten_nearest(used, self.distortion, self.camera, outside=False)


@dataclass(frozen=True, slots=True, eq=False)
class PointCloud:
    """Points relative to the world's origin.

    Attributes:
        xyz: positions.
        rgb: colours, or None.
        labels: class ids, `IGNORE` where unknown, or None.
        instances: object ids, `IGNORE` for points without an object, or None.
        intensity: strength of the laser's return in the file's own unit and range (KITTI 0 to 1, nuScenes 0 to 255, LAS 0 to
            65535), or None if the file has no such column.
    """

    xyz: Float32[Array, "n 3"]
    rgb: UInt8[Array, "n 3"] | None = None
    labels: Int32[Array, " n"] | None = None
    instances: Int32[Array, " n"] | None = None
    intensity: Float32[Array, " n"] | None = None

    def __post_init__(self) -> None:
        for name in ("rgb", "labels", "instances", "intensity"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.xyz):
                raise DataError(
                    f"A cloud of {len(self.xyz)} points has {len(values)} values of {name}.", "Give one per point."
                )

    def __len__(self) -> int:
        return len(self.xyz)


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Posed frames and/or a cloud.

    Attributes:
        name: the scene's id, used in paths.
        path: where it was read from.
        layout: the reader that read it.
        frames: posed photographs, in the order of their names.
        cloud: points, or None: `ov3d.common.scenes.cloud_from_depth.with_cloud` makes one from depth.
        world: units, up, origin.
        classes: names of the class ids in labels; empty when nothing is labelled.
        splits: names of splits (`train`, `test`, …) to the names of the frames in them, where the capture says so.
        notes: what the reader found worth saying (frames left out, a guess it made).
        sweep: of a LiDAR sweep, where and when it was taken; none for other scenes.
    """

    name: str
    path: Path
    layout: str
    frames: tuple[Frame, ...] = ()
    cloud: PointCloud | None = None
    world: World = field(default_factory=World)
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sweep: Sweep | None = None

    def frame(self, name: str) -> Frame:
        """The frame of that name."""
        for frame in self.frames:
            if frame.name == name:
                return frame
        raise DataError(f"Scene {self.name} has no frame {name!r}.", f"It has {len(self.frames)} frames.")

    def with_frames(self, names: Sequence[str]) -> Scene:
        """The same scene with only the named frames, in the scene's order."""
        wanted = set(names)
        missing = wanted - {frame.name for frame in self.frames}
        if missing:
            raise DataError(f"Scene {self.name} has no frame {sorted(missing)[0]!r}.", "See: ov3d doctor SCENE")
        frames = tuple(frame for frame in self.frames if frame.name in wanted)
        splits = {split: tuple(name for name in members if name in wanted) for split, members in self.splits.items()}
        return replace(self, frames=frames, splits=splits)


@runtime_checkable
class SceneSource(Protocol):
    """A data set of scenes, each read only on access.

    Attributes:
        ids: scene ids in order.
        splits: names of splits to their scene ids; may be empty.
    """

    @property
    def ids(self) -> Sequence[str]: ...

    @property
    def splits(self) -> Mapping[str, Sequence[str]]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, idx: int) -> Scene: ...


@dataclass(frozen=True, slots=True)
class LazyScenes:
    """A `SceneSource` from ids and a function that reads one scene."""

    ids: tuple[str, ...]
    load: Callable[[str], Scene]
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, idx: int) -> Scene:
        return self.load(self.ids[idx])

    def __iter__(self) -> Iterator[Scene]:
        return (self.load(name) for name in self.ids)


def load_photograph(path: Path, camera: Camera, distortion: Distortion | None) -> UInt8[Array, "h w 3"]:
    """An image file as a pinhole camera sees it.

    Args:
        path: the file.
        camera: the pinhole.
        distortion: lens distortion of the file, or None.

    Raises:
        DataError: it cannot be read, is truncated, or does not have the camera's size.
    """
    image = load_rgb(path)
    stored = distortion.camera if distortion is not None else camera
    if image.shape[:2] != (stored.height, stored.width):
        raise DataError(
            f"Image {path} is {image.shape[1]}x{image.shape[0]}, but its intrinsics are for {stored.width}x{stored.height}.",
            "Resize the image or scale the intrinsics.",
        )
    return image if distortion is None else straighten(image, distortion, camera)
