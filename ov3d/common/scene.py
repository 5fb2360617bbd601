"""Scenes: named posed frames and/or a point cloud, and the facts of the world they stand in.

A NeRF capture is frames; a ScanNet room is frames and a cloud; a LiDAR keyframe is a cloud and camera frames. Frames hold
paths, not pixels: a scene of five thousand views costs a few megabytes until someone reads an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from ov3d.common.cameras import Camera
from ov3d.common.errors import DataError
from ov3d.common.shapes import Array, Float32, Float64, Int32, UInt8

IGNORE = -1
"""The label of a pixel or point whose class is unknown; metrics leave it out."""


@dataclass(frozen=True, slots=True)
class World:
    """Facts about the coordinates of a scene.

    Attributes:
        units: `metric` (metres), or `arbitrary`: sizes are then printed in "units" and thresholds follow the point spacing.
        up: unit vector against gravity.
        origin: fp64 offset that was subtracted from every coordinate; arrays are fp32 relative to it, exporters add it
            back, so that a cloud in UTM keeps its millimetres.
    """

    units: Literal["metric", "arbitrary"] = "metric"
    up: tuple[float, float, float] = (0.0, 0.0, 1.0)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def unit_name(self) -> str:
        """What a length is printed in: `m` or `units`."""
        return "m" if self.units == "metric" else "units"


@dataclass(frozen=True, slots=True)
class DepthImage:
    """A depth image on disk: 16-bit (or float) values times `scale` are depths along the optical axis; 0 is missing."""

    path: Path
    scale: float
    camera: Camera

    def load(self) -> Float32[Array, "h w"]:
        """Depth in scene units, 0 where missing.

        Raises:
            DataError: the file cannot be read or is not of the camera's size.
        """
        values = load_raster(self.path, "depth image")
        if values.ndim != 2 or values.shape != (self.camera.height, self.camera.width):
            raise DataError(
                f"Depth image {self.path} has shape {values.shape}, its camera {self.camera.height}x{self.camera.width}.",
                "Depth must be one channel of the size its intrinsics are for.",
            )
        depth = values.astype(np.float32) * np.float32(self.scale)
        return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


@dataclass(frozen=True, slots=True)
class LabelImage:
    """Class or instance ids a pixel, on disk; ids of `count` and beyond, and the id `void`, become `IGNORE`."""

    path: Path
    count: int
    void: int = IGNORE

    def load(self) -> Int32[Array, "h w"]:
        """Ids a pixel, `IGNORE` where unknown."""
        values = load_raster(self.path, "label image")
        if values.ndim != 2:
            raise DataError(f"Label image {self.path} has shape {values.shape}.", "Labels are one channel of ids.")
        ids = values.astype(np.int32)
        return np.where((ids >= 0) & (ids < self.count) & (ids != self.void), ids, np.int32(IGNORE))


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One posed photograph.

    Attributes:
        name: unique in its scene; files about the frame are named after it.
        image_path: the photograph.
        camera: its intrinsics, undistorted, at the size of the file.
        world_from_camera: 4x4 pose, fp64, relative to the world's origin.
        depth: measured depth, or none.
        labels: class ids a pixel, or none.
        instances: object ids a pixel, or none.
    """

    name: str
    image_path: Path
    camera: Camera
    world_from_camera: Float64[Array, "4 4"]
    depth: DepthImage | None = None
    labels: LabelImage | None = None
    instances: LabelImage | None = None

    def load_image(self) -> UInt8[Array, "h w 3"]:
        """The photograph as RGB, 8 bits a channel.

        Raises:
            DataError: it cannot be read, is cut short, or is not of the camera's size.
        """
        image = load_rgb(self.image_path)
        if image.shape[:2] != (self.camera.height, self.camera.width):
            raise DataError(
                f"Image {self.image_path} is {image.shape[1]}x{image.shape[0]}, "
                f"its intrinsics are for {self.camera.width}x{self.camera.height}.",
                "Resize one to the other.",
            )
        return image


@dataclass(frozen=True, slots=True, eq=False)
class PointCloud:
    """Points relative to the world's origin.

    Attributes:
        xyz: positions.
        rgb: colours, or none.
        labels: class ids, `IGNORE` where unknown, or none.
        instances: object ids, `IGNORE` where there is none, or none.
    """

    xyz: Float32[Array, "n 3"]
    rgb: UInt8[Array, "n 3"] | None = None
    labels: Int32[Array, " n"] | None = None
    instances: Int32[Array, " n"] | None = None

    def __post_init__(self) -> None:
        for name in ("rgb", "labels", "instances"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.xyz):
                raise DataError(f"A cloud of {len(self.xyz)} points has {len(values)} {name}.", "One a point.")

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
        cloud: points, or none: `ov3d.common.backproject.with_cloud` makes one from depth.
        world: units, up, origin.
        classes: names of the class ids in labels; empty when nothing is labelled.
        notes: what the reader found worth saying (frames left out, a guess it made).
    """

    name: str
    path: Path
    layout: str
    frames: tuple[Frame, ...] = ()
    cloud: PointCloud | None = None
    world: World = field(default_factory=World)
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

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
        return replace(self, frames=tuple(frame for frame in self.frames if frame.name in wanted))


@runtime_checkable
class SceneSource(Protocol):
    """A data set of scenes, each read only when it is asked for.

    Attributes:
        ids: scene ids in order.
        splits: names of splits to the ids in them; may be empty.
    """

    @property
    def ids(self) -> Sequence[str]: ...

    @property
    def splits(self) -> Mapping[str, Sequence[str]]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, idx: int) -> Scene: ...


@dataclass(frozen=True, slots=True)
class LazyScenes:
    """A `SceneSource` from ids and a function that reads one."""

    ids: tuple[str, ...]
    load: Callable[[str], Scene]
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, idx: int) -> Scene:
        return self.load(self.ids[idx])

    def __iter__(self) -> Iterator[Scene]:
        return (self.load(name) for name in self.ids)


def load_rgb(path: Path) -> UInt8[Array, "h w 3"]:
    """An image file as RGB, 8 bits a channel.

    Raises:
        DataError: no such file, no image, or cut short.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise DataError(f"There is no image at {path}.", "Put it back, or take its pose out.") from None
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for broken files
        raise DataError(f"Image {path} cannot be read: {_one_line(error)}.", "Replace the file.") from None


def load_raster(path: Path, what: str) -> Array:
    """An image of ids or depths, in the type it is stored in; `what` names it in the error."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except FileNotFoundError:
        raise DataError(f"There is no {what} at {path}.", "Put it back.") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"The {what} {path} cannot be read: {_one_line(error)}.", "Replace the file.") from None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
