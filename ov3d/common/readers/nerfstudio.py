"""nerfstudio's `transforms.json`, and instant-ngp's, from which it grew.

    transforms.json: fl_x fl_y cx cy w h k1 k2 k3 k4 p1 p2 (for all frames, or per frame), camera_angle_x in place of fl_x;
    frames: [{file_path, transform_matrix (camera-to-world, OpenGL axes), depth_file_path, mask_path}]
    ply_file_path (a cloud), train_filenames, val_filenames, test_filenames (all optional)

Pixel centres are at +0.5. `applied_transform` and `applied_scale` record what was already done to both poses and points, so
they are ignored. Depth is in thousandths (`depth_unit_scale_factor`, 0.001) of the poses' units, so a capture with depth is
metric; others have the arbitrary units of structure from motion.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Float64
from ov3d.common.readers.annotated_views import with_annotations
from ov3d.common.readers.layout import Layout, origin_of_cameras, scene_name
from ov3d.common.readers.ply import read_ply
from ov3d.common.readers.posed import (
    OPENCV_FROM_OPENGL,
    Lens,
    Shot,
    add_note,
    estimated_up,
    frames_from,
    natural_order,
    unique_names,
)
from ov3d.common.scenes.cameras import Camera
from ov3d.common.scenes.images import IMAGE_ENDINGS, ImageHeader
from ov3d.common.scenes.scene import Frame, PointCloud, Scene, World

FILE_NAME = "transforms.json"

_UP = (0.0, 0.0, 1.0)
_MODELS: dict[str, Literal["pinhole", "opencv", "fisheye"]] = {
    "OPENCV": "opencv",
    "SIMPLE_RADIAL": "opencv",
    "RADIAL": "opencv",
    "FULL_OPENCV": "opencv",
    "PINHOLE": "pinhole",
    "SIMPLE_PINHOLE": "pinhole",
    "OPENCV_FISHEYE": "fisheye",
}


def load(path: Path) -> Scene:
    """Read a scene of this layout; raises `DataError` naming the faulty file."""
    file = path if path.is_file() else path / FILE_NAME
    data = read_transforms(file)
    shots = shots_of(data, file)
    notes: list[str] = []
    frames = sorted(frames_from(shots, file, notes), key=lambda frame: natural_order(frame.name))
    cloud, world = _cloud(data, file, frames, notes)
    metric = any(frame.depth is not None for frame in frames)
    world = replace(world, units="metric" if metric else "arbitrary", up=estimated_up(frames, _UP))
    name, splits = scene_name(path if path.is_dir() else path.parent), _splits(data, shots, frames, file)
    return with_annotations(
        LAYOUT.scene(path, frames, world, notes, name=name, cloud=cloud, splits=splits), file.parent
    )


def read_transforms(path: Path) -> dict[str, Any]:
    """The JSON object of a transforms file, with at least a list of frames.

    Raises:
        DataError: the file is missing, is not valid JSON, or lists no frames.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.", "Check the path.") from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path} is not valid JSON: {error.msg} in line {error.lineno}.",
            "It is truncated or damaged: export it again.",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.", "Export it again.") from None
    if not isinstance(data, dict) or not isinstance(data.get("frames"), list):
        raise DataError(f"{path} has no list `frames`.", "It should be a transforms file from nerfstudio or Blender.")
    return data


def shots_of(data: Mapping[str, Any], file: Path) -> list[Shot]:
    """The photographs that a transforms file lists.

    Args:
        data: the result of `read_transforms`.
        file: where it was read from; paths are relative to its folder.

    Raises:
        DataError: a frame lacks a key, or has one of the wrong type; the message names it.
    """
    frames = data["frames"]
    for idx, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise DataError(f"Frame {idx} of {file} has no file_path.", "Each frame must name its image as a string.")
    names = unique_names([frame["file_path"] for frame in frames], file)
    return [_shot(data, frame, name, file) for frame, name in zip(frames, names, strict=True)]


def _shot(data: Mapping[str, Any], frame: Mapping[str, Any], name: str, file: Path) -> Shot:
    stated_in = f"{file} (frame {frame['file_path']})"
    scale = _number({"depth_unit_scale_factor": 0.001, **data}, "depth_unit_scale_factor", str(file))
    return Shot(
        name=name,
        path=_image_path(file.parent, frame["file_path"]),
        lens=lambda header: _lens({**data, **frame}, header, stated_in),
        world_from_camera=_matrix(frame, stated_in) @ OPENCV_FROM_OPENGL,
        stated_in=stated_in,
        depth_path=_side_path(file.parent, frame, "depth_file_path", stated_in),
        depth_scale=scale,
        mask_path=_side_path(file.parent, frame, "mask_path", stated_in),
    )


def _lens(stated: Mapping[str, Any], header: ImageHeader, where: str) -> Lens:
    """Intrinsics of a frame; sizes that are not stated are taken from the image."""
    sized = "w" in stated and "h" in stated
    width, height = (_number(stated, key, where) for key in ("w", "h")) if sized else map(float, header.size)
    focal_x = _focal(stated, "x", width, where)
    if focal_x is None:
        focal_x = _focal(stated, "y", height, where)
    if focal_x is None:
        raise DataError(f"{where} has no focal length: neither fl_x nor camera_angle_x.", "Add one of them.")
    focal_y = _focal(stated, "y", height, where)
    cx, cy = (
        _number(stated, key, where) if key in stated else half for key, half in (("cx", width / 2), ("cy", height / 2))
    )
    camera = Camera(round(width), round(height), focal_x, focal_x if focal_y is None else focal_y, cx, cy)
    name = stated.get("camera_model", "OPENCV_FISHEYE" if stated.get("is_fisheye") is True else "OPENCV")
    if name not in _MODELS:
        raise DataError(
            f"{where} has camera_model {name!r}.", f"Known: {', '.join(_MODELS)}. Undistort the images first."
        )
    model = _MODELS[name]
    keys = ("k1", "k2", "k3", "k4") if model == "fisheye" else ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
    values = tuple(_number(stated, key, where) if key in stated else 0.0 for key in keys)
    if name != "FULL_OPENCV" and model == "opencv" and any(values[5:]):
        raise DataError(
            f"{where} has k4 to k6 with camera_model {name}.",
            "Use camera_model FULL_OPENCV, or calibrate without them.",
        )
    return Lens(camera, model, () if model == "pinhole" else values, of_stored_pixels=sized)


def _focal(stated: Mapping[str, Any], axis: str, extent: float, where: str) -> float | None:
    """A focal length in pixels, as stated or from the angle of view: extent / 2 = f tan(angle / 2)."""
    if f"fl_{axis}" in stated:
        return _number(stated, f"fl_{axis}", where)
    if f"camera_angle_{axis}" not in stated:
        return None
    angle = _number(stated, f"camera_angle_{axis}", where)
    if not 0 < angle < math.pi:
        raise DataError(
            f"{where} has camera_angle_{axis} {angle:g}.", "It should be the full angle of view, in radians."
        )
    return extent / 2 / math.tan(angle / 2)


def _number(stated: Mapping[str, Any], key: str, where: str) -> float:
    value = stated[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise DataError(f"{where} has {key} = {value!r}.", "It should be a finite number.")
    return float(value)


def _matrix(frame: Mapping[str, Any], where: str) -> Float64[Array, "4 4"]:
    try:
        matrix = np.array(frame.get("transform_matrix"), dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.shape == (3, 4):
        matrix = np.vstack([matrix, (0, 0, 0, 1)])
    if matrix.shape != (4, 4):
        raise DataError(f"{where} has no 4x4 transform_matrix.", "Poses should be camera-to-world, OpenGL axes.")
    return matrix


def _image_path(folder: Path, stated: str) -> Path:
    """Path of an image; one without an extension (Blender writes those) gets that of the existing file."""
    path = folder / stated.replace("\\", "/")
    if path.is_file() or path.suffix.lower() in IMAGE_ENDINGS:
        return path
    endings = [*IMAGE_ENDINGS, *(ending.upper() for ending in IMAGE_ENDINGS)]
    candidates = (path.with_name(path.name + ending) for ending in endings)
    return next((candidate for candidate in candidates if candidate.is_file()), path)


def _side_path(folder: Path, frame: Mapping[str, Any], key: str, where: str) -> Path | None:
    stated = frame.get(key)
    if stated is None:
        return None
    if not isinstance(stated, str):
        raise DataError(f"{where} has {key} = {stated!r}.", "It should be a path.")
    return folder / stated.replace("\\", "/")


def _cloud(
    data: Mapping[str, Any], file: Path, frames: list[Frame], notes: list[str]
) -> tuple[PointCloud | None, World]:
    path = _side_path(file.parent, data, "ply_file_path", str(file))
    if path is not None and path.is_file():
        cloud, world, cloud_notes = read_ply(path, num_classes=0)
        notes += cloud_notes
        return cloud, world
    add_note(notes, int(path is not None), "cloud", "missing", [path.name] if path else [])
    return None, World(origin=origin_of_cameras(frames))


def _splits(data: Mapping[str, Any], shots: list[Shot], frames: list[Frame], file: Path) -> dict[str, tuple[str, ...]]:
    """Frame names of train_filenames, val_filenames and test_filenames, if the file has them."""
    name_of = {shot.path: shot.name for shot in shots}
    used = {frame.name for frame in frames}
    splits = {}
    for split in ("train", "val", "test"):
        stated = data.get(f"{split}_filenames")
        if stated is None:
            continue
        if not isinstance(stated, list) or not all(isinstance(name, str) for name in stated):
            raise DataError(
                f"{split}_filenames in {file} is not a list of strings.", "List image paths, or leave it out."
            )
        members = []
        for name in stated:
            found = name_of.get(_image_path(file.parent, name))
            if found is None:
                raise DataError(f"{split}_filenames in {file} lists {name}, which is not a frame.", "Correct it.")
            members.append(found)
        splits[split] = tuple(sorted((name for name in members if name in used), key=natural_order))
    return splits


LAYOUT = Layout(
    name="nerfstudio",
    looks_for="transforms.json",
    matches=lambda path: (path / FILE_NAME).is_file() or (path.is_file() and path.name == FILE_NAME),
    load=load,
)
