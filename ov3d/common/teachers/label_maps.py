"""Label maps of a scene's frames: their files, and their ids as class numbers.

Maps in a folder are PNG files of one channel, named after the frames or their photographs: `[SCENE/]NAME.png`. They have the
size of the upright photograph; if the photograph is undistorted, so is the map, by nearest neighbour.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.files import hash_text
from ov3d.common.base.shapes import Array, Int32
from ov3d.common.features.content_hash import ContentHasher
from ov3d.common.scenes.distortion import straighten_nearest
from ov3d.common.scenes.images import load_raster, read_header
from ov3d.common.scenes.scene import Frame, Scene
from ov3d.common.teachers.label_names import MAX_ID, UNNAMED, VOID, LabelNames, scene_names


class LabelMaps(ABC):
    """The label maps of one scene.

    Attributes:
        names: classes of its ids.
        frames: the scene's frames that have a map.
    """

    names: LabelNames
    frames: tuple[Frame, ...]

    @abstractmethod
    def key(self, frame: Frame) -> str:
        """Identifies the content of a frame's map."""

    @abstractmethod
    def load(self, frame: Frame) -> Int32[Array, "h w"]:
        """Class numbers at the pixels of the frame's camera, `VOID` without a class.

        Raises:
            DataError: the map cannot be read, has the wrong size, or has an id without a name.
        """


class FolderMaps(LabelMaps):
    """Maps in a folder, from a segmenter.

    Args:
        folder: folder of the maps, or of one folder of maps per scene.
        names: classes of the ids.
        scene: the scene of the frames.
        hasher: hashes files.

    Raises:
        DataError: a frame has no map, two share one, or a map does not have the size of its photograph.
    """

    def __init__(self, folder: Path, names: LabelNames, scene: Scene, hasher: ContentHasher) -> None:
        self.names, self.frames, self._hasher = names, scene.frames, hasher
        own = folder / scene.name
        self._folder = own if own.is_dir() else folder
        self._table = names.table()
        self._paths = self._found(scene)

    def _found(self, scene: Scene) -> dict[str, Path]:
        paths: dict[str, Path] = {}
        missing: list[Frame] = []
        owners: dict[Path, str] = {}
        for frame in self.frames:
            # Try the whole name first: photographs of several cameras may share stems.
            places = (self._folder / f"{frame.name}.png", self._folder / f"{frame.image_path.stem}.png")
            path = next((place for place in places if place.is_file()), None)
            if path is None:
                missing.append(frame)
            elif path in owners:
                raise DataError(
                    f"The frames {owners[path]} and {frame.name} of {scene.name} would share the label map {path}.",
                    f"Name it after the frame: {places[0]}",
                )
            else:
                owners[path] = frame.name
                paths[frame.name] = path
                _check_size(path, frame)
        if missing:
            looked = self._folder / f"{missing[0].image_path.stem}.png"
            raise DataError(
                f"No label map for {len(missing)} of {len(self.frames)} frames of {scene.name} (first: {looked}).",
                "Run the segmenter on every photograph, and name the maps after them.",
            )
        return paths

    def key(self, frame: Frame) -> str:
        return hash_text("label-map-1", self._hasher.hash(self._paths[frame.name]), frame.pixels_key)

    def load(self, frame: Frame) -> Int32[Array, "h w"]:
        path = self._paths[frame.name]
        values = load_raster(path, "label map")
        _check_size(path, frame)  # it may have been replaced since
        if values.ndim != 2 or values.dtype.kind not in "iub":
            raise DataError(
                f"Label map {path} must have one channel of integers, got shape {values.shape} of {values.dtype}.",
                "Write ids, not colours.",
            )
        if values.size and not 0 <= int(values.min()) <= int(values.max()) <= MAX_ID:
            raise self._unnamed(path, int(values.max() if values.max() > MAX_ID else values.min()))
        classes = self._table[values.astype(np.uint16)]
        if (classes == UNNAMED).any():
            raise self._unnamed(path, int(values[classes == UNNAMED][0]))
        if frame.distortion is None:
            return classes
        return straighten_nearest(classes, frame.distortion, frame.camera, outside=VOID)

    def _unnamed(self, path: Path, idx: int) -> DataError:
        return DataError(
            f"Label map {path} holds the id {idx}, which has no name.",
            "Name it in names.yaml or classes.txt; use `id: null` for void.",
        )


class SceneMaps(LabelMaps):
    """A scene's own label images; frames without one are left out.

    Args:
        scene: at least one frame with labels.
        hasher: hashes files.

    Raises:
        DataError: no frame has labels, or their ids have no names.
    """

    def __init__(self, scene: Scene, hasher: ContentHasher) -> None:
        self.frames = tuple(frame for frame in scene.frames if frame.labels is not None)
        if not self.frames or not scene.classes:
            raise DataError(
                f"Scene {scene.name} has no label images with names.", "Provide a folder of maps: labels:DIR"
            )
        self.names, self._hasher = scene_names(scene), hasher
        self._table = self.names.table()

    def key(self, frame: Frame) -> str:
        parts = ["scene-labels-1", type(frame.labels).__name__]
        for field in dataclasses.fields(frame.labels):  # type: ignore[arg-type]
            value = getattr(frame.labels, field.name)
            for one in value if isinstance(value, tuple) else (value,):
                parts.append(self._hasher.hash(one) if isinstance(one, Path) else repr(one))
        return hash_text(*parts)

    def load(self, frame: Frame) -> Int32[Array, "h w"]:
        assert frame.labels is not None
        ids = frame.labels.load()
        expected = (frame.camera.height, frame.camera.width)
        if ids.shape != expected:
            raise DataError(
                f"The labels of frame {frame.name} are {ids.shape[1]}x{ids.shape[0]}, "
                f"its photograph {expected[1]}x{expected[0]}.",
                "Label images must have the size of their photographs.",
            )
        return np.where(ids < 0, np.int32(VOID), self._table[np.maximum(ids, 0)])


def _check_size(path: Path, frame: Frame) -> None:
    header = read_header(path)
    stored = frame.camera if frame.distortion is None else frame.distortion.camera
    if header is None:
        raise DataError(f"Label map {path} is not an image, or is truncated.", "Write it again.")
    if header.stored_size != (stored.width, stored.height):
        raise DataError(
            f"Label map {path} is {header.stored_size[0]}x{header.stored_size[1]}, "
            f"the photograph of frame {frame.name} {stored.width}x{stored.height}.",
            "Maps must have the size of the upright photographs.",
        )
