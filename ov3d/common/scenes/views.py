"""ViewSet: the posed views of a scene, stored beside its LanguageIndex in `views.safetensors`, for overlays and masks.

It holds paths and content hashes, not pixels. Paths inside the scene's folder are stored relative to it, and the folder both
absolute and relative to the file, so a capture moved together with its runs is found; changed images are detected.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.files import hash_file
from ov3d.common.base.shapes import Array, Float16, Float64, Int32, UInt8
from ov3d.common.base.tensor_files import read_tensors, write_tensors
from ov3d.common.scenes.cameras import Camera
from ov3d.common.scenes.distortion import Distortion
from ov3d.common.scenes.scene import Frame, Scene, load_photograph

KIND = "view-set"
VERSION = 1
FILE_NAME = "views.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class ViewSet:
    """Posed views of a scene.

    Attributes:
        scene: the scene's name.
        scene_path: its folder (or the folder of its file).
        names: one per view, unique.
        image_paths: relative to `scene_path` if the image is inside it, else absolute; with forward slashes.
        image_hashes: xxh3-128 of each image file.
        intrinsics: fx, fy, cx, cy in pixels.
        sizes: width, height in pixels.
        world_from_camera: poses, relative to the world's origin.
        code: language codes of pixels, the views' grids concatenated, in the basis of the index beside it; or None.
        code_sizes: width, height of each view's grid of codes, or None.
        distortions: each view's lens distortion, or None; empty if no view has any.
        fallback_path: another possible place of the scene's folder; set when the set is read.
    """

    scene: str
    scene_path: str
    names: tuple[str, ...]
    image_paths: tuple[str, ...]
    image_hashes: tuple[str, ...]
    intrinsics: Float64[Array, "v 4"]
    sizes: Int32[Array, "v 2"]
    world_from_camera: Float64[Array, "v 4 4"]
    code: Float16[Array, "p r"] | None = None
    code_sizes: Int32[Array, "v 2"] | None = None
    distortions: tuple[Distortion | None, ...] = ()
    fallback_path: str = ""

    def __post_init__(self) -> None:
        lengths = {len(getattr(self, name)) for name in ("image_paths", "image_hashes", "intrinsics", "sizes")}
        if lengths | {len(self.world_from_camera)} != {len(self.names)} or len(set(self.names)) != len(self.names):
            raise DataError(f"The views of {self.scene} are inconsistent: {len(self.names)} names, {lengths} values.")
        if len(self.distortions) not in (0, len(self.names)):
            raise DataError(
                f"The views of {self.scene} have {len(self.distortions)} distortions, not {len(self.names)}."
            )
        if (self.code is None) != (self.code_sizes is None):
            raise DataError(f"The views of {self.scene} have codes without sizes, or sizes without codes.")
        if self.code is not None and self.code_sizes is not None and len(self.code) != self.code_sizes.prod(1).sum():
            raise DataError(
                f"The views of {self.scene} have {len(self.code)} codes, which does not match the size of their grids."
            )

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def from_scene(cls, scene: Scene, *, hashes: Mapping[str, str] | None = None) -> ViewSet:
        """The views of a scene's frames.

        Args:
            scene: only its frames are needed.
            hashes: known xxh3-128 hashes of image files by frame name; the others are computed.

        Raises:
            DataError: an image is missing.
        """
        folder = (scene.path if scene.path.is_dir() else scene.path.parent).resolve()
        known = hashes or {}
        cameras = [frame.camera for frame in scene.frames]
        poses = [frame.world_from_camera for frame in scene.frames]
        lenses = [frame.distortion for frame in scene.frames]
        return cls(
            scene=scene.name,
            scene_path=folder.as_posix(),
            names=tuple(frame.name for frame in scene.frames),
            image_paths=tuple(_stored_path(frame.image_path, folder) for frame in scene.frames),
            image_hashes=tuple(known.get(frame.name) or _hash(frame) for frame in scene.frames),
            intrinsics=np.array([(c.fx, c.fy, c.cx, c.cy) for c in cameras], np.float64).reshape(-1, 4),
            sizes=np.array([(c.width, c.height) for c in cameras], np.int32).reshape(-1, 2),
            world_from_camera=np.array(poses, np.float64).reshape(-1, 4, 4),
            distortions=tuple(lenses) if any(lenses) else (),
        )

    def camera(self, idx: int) -> Camera:
        """The camera of a view, at the size of its image file."""
        width, height = (int(value) for value in self.sizes[idx])
        fx, fy, cx, cy = (float(value) for value in self.intrinsics[idx])
        return Camera(width, height, fx, fy, cx, cy)

    def image_path(self, idx: int) -> Path:
        """The current path of a view's image.

        Raises:
            DataError: it is in none of the expected places.
        """
        stored = Path(self.image_paths[idx])
        places = [stored] if stored.is_absolute() else [Path(self.scene_path) / stored]
        if self.fallback_path and not stored.is_absolute():
            places.append(Path(self.fallback_path) / stored)
        for place in places:
            if place.is_file():
                return place
        raise DataError(
            f"The image of view {self.names[idx]} of {self.scene} is not at {' or '.join(map(str, places))}.",
            "Move the capture back, or move it together with its runs.",
        )

    def load_image(self, idx: int) -> UInt8[Array, "h w 3"]:
        """The image of a view as its camera sees it, upright and without distortion.

        Raises:
            DataError: it is missing, cannot be read, or has changed since the index was made.
        """
        path = self.image_path(idx)
        if hash_file(path) != self.image_hashes[idx]:
            raise DataError(
                f"Image {path} has changed since the index of {self.scene} was made.",
                "Restore the old image, or train again.",
            )
        return load_photograph(path, self.camera(idx), self.distortions[idx] if self.distortions else None)

    def view_code(self, idx: int) -> Float16[Array, "h w r"] | None:
        """The language codes of a view's pixels, or None."""
        if self.code is None or self.code_sizes is None:
            return None
        ends = np.cumsum(self.code_sizes.astype(np.int64).prod(axis=1))
        width, height = self.code_sizes[idx]
        return self.code[ends[idx] - int(width) * int(height) : ends[idx]].reshape(height, width, -1)


def write_views(path: str | Path, views: ViewSet) -> Path:
    """Write a view set; see docs/formats.md for the layout."""
    tensors = {name: getattr(views, name) for name in ("intrinsics", "sizes", "world_from_camera")}
    for name in ("code", "code_sizes"):
        if getattr(views, name) is not None:
            tensors[name] = getattr(views, name)
    metadata: dict[str, Any] = {
        "scene": views.scene,
        "scene_path": views.scene_path,
        "scene_from_file": _relative(views.scene_path, Path(path).resolve().parent),
        "names": list(views.names),
        "image_paths": list(views.image_paths),
        "image_hashes": list(views.image_hashes),
    }
    if views.distortions:
        metadata["distortions"] = [lens.to_json() if lens else None for lens in views.distortions]
    return write_tensors(path, tensors, kind=KIND, version=VERSION, metadata=metadata)


def read_views(path: str | Path) -> ViewSet:
    """Read and verify a view set; raises like `tensor_files.read_tensors`."""
    file = read_tensors(path, kind=KIND, version=VERSION)
    meta, tensors = file.metadata, file.tensors
    views = ViewSet(
        scene=meta["scene"],
        scene_path=meta["scene_path"],
        names=tuple(meta["names"]),
        image_paths=tuple(meta["image_paths"]),
        image_hashes=tuple(meta["image_hashes"]),
        intrinsics=tensors["intrinsics"],
        sizes=tensors["sizes"],
        world_from_camera=tensors["world_from_camera"],
        code=tensors.get("code"),
        code_sizes=tensors.get("code_sizes"),
        distortions=tuple(lens and Distortion.from_json(lens) for lens in meta.get("distortions", ())),
    )
    beside = meta["scene_from_file"]
    return (
        replace(views, fallback_path=(Path(path).resolve().parent / beside).resolve().as_posix()) if beside else views
    )


def _stored_path(image: Path, folder: Path) -> str:
    # Resolve both: the path may go through a symbolic link.
    resolved = image.resolve()
    return resolved.relative_to(folder).as_posix() if resolved.is_relative_to(folder) else resolved.as_posix()


def _relative(target: str, start: Path) -> str:
    try:
        return Path(os.path.relpath(target, start)).as_posix()
    except ValueError:  # no relative path leads to another drive
        return ""


def _hash(frame: Frame) -> str:
    try:
        return hash_file(frame.image_path)
    except OSError as error:
        raise DataError(f"Image {frame.image_path} cannot be read: {error.strerror}.", "Restore it.") from None
