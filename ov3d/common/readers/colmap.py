"""COLMAP sparse models with their photographs.

    images/…  sparse/0/{cameras,images,points3D}.bin or .txt   (or sparse/, colmap/sparse/0/, or the model's own folder)

Poses are world-to-camera with OpenCV axes, pixel centres at +0.5. points3D becomes the cloud. Of several sub-models the
first is read. Photographs may have been resized since: intrinsics are scaled to match. Units are arbitrary.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Float64, UInt8
from ov3d.common.readers.annotated_views import with_annotations
from ov3d.common.readers.colmap_model import (
    ColmapCamera,
    ColmapImage,
    model_format,
    read_cameras,
    read_images,
    read_points,
)
from ov3d.common.readers.layout import Layout, choose_origin, scene_name
from ov3d.common.readers.posed import Lens, Shot, add_note, estimated_up, frames_from, natural_order, unique_names
from ov3d.common.readers.raw_points import usable
from ov3d.common.scenes.cameras import Camera, invert_pose
from ov3d.common.scenes.images import ImageHeader
from ov3d.common.scenes.scene import PointCloud, Scene, World

MODEL_FOLDERS = ("sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse", "")
IMAGE_FOLDERS = ("images", "input", "rgb", "image", "imgs", "", "images_2", "images_4", "images_8")

_UP = (0.0, -1.0, 0.0)
"""COLMAP's world frame starts as that of its first camera: y down."""


def load(path: Path) -> Scene:
    """Read a scene of this layout; raises `DataError` naming the faulty file."""
    model, root = _folders(path)
    ending = model_format(model)
    if ending is None:
        raise DataError(f"{path} has no COLMAP model: looked for cameras and images, .bin or .txt.", "Check the path.")
    notes: list[str] = []
    _note_other_models(model, notes)
    cameras, images = read_cameras(model / f"cameras.{ending}"), read_images(model / f"images.{ending}")
    images_path = model / f"images.{ending}"
    shots = _shots(root, images_path, images, cameras)
    frames = sorted(frames_from(shots, images_path, notes), key=lambda frame: natural_order(frame.name))
    points_path = model / f"points3D.{ending}"
    xyz, rgb = _points(points_path, notes)
    centres = np.stack([frame.world_from_camera[:3, 3] for frame in frames])
    world = World("arbitrary", estimated_up(frames, _UP), choose_origin(np.concatenate([xyz, centres])))
    cloud = PointCloud((xyz - np.asarray(world.origin)).astype(np.float32), rgb) if len(xyz) else None
    return with_annotations(LAYOUT.scene(path, frames, world, notes, name=scene_name(root), cloud=cloud), root)


def lens_of(camera: ColmapCamera) -> Lens:
    """Intrinsics of a COLMAP camera; parameters are in the order of COLMAP's camera models."""
    p = camera.parameters
    single = camera.model in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
    fx, fy, cx, cy = (p[0], p[0], p[1], p[2]) if single else p[:4]
    rest = p[3:] if single else p[4:]
    pinhole = Camera(camera.width, camera.height, fx, fy, cx, cy)
    if not rest:
        return Lens(pinhole)
    return Lens(pinhole, "fisheye" if "FISHEYE" in camera.model else "opencv", rest)


def has_model(path: Path) -> bool:
    """Whether a COLMAP model is in one of the expected places."""
    return path.is_dir() and any(model_format(path / folder) for folder in MODEL_FOLDERS)


def _folders(path: Path) -> tuple[Path, Path]:
    """The model's folder and the scene's, given either."""
    model = next((path / folder for folder in MODEL_FOLDERS if model_format(path / folder)), path)
    if model == path:  # the path is the model itself: the scene is the folder above sparse/, or above sparse/0/
        above = path.resolve().parents
        if path.resolve().name == "sparse":
            return model, above[0]
        if above[0].name == "sparse":
            return model, above[1]
    return model, path


def _shots(root: Path, listed_in: Path, images: list[ColmapImage], cameras: dict[int, ColmapCamera]) -> list[Shot]:
    names = unique_names([image.name for image in images], listed_in)
    folder = _images_folder(root, images)
    shots = []
    for image, name in zip(images, names, strict=True):
        if image.camera_id not in cameras:
            raise DataError(
                f"{listed_in} gives {image.name} camera {image.camera_id}, which is not in cameras{listed_in.suffix}.",
                "The two files belong to different models: export them together.",
            )
        camera = cameras[image.camera_id]

        def lens(header: ImageHeader, camera: ColmapCamera = camera) -> Lens:
            return lens_of(camera)

        pose = image.camera_from_world
        finite = bool(np.isfinite(pose).all())
        shots.append(Shot(name, folder / image.name, lens, invert_pose(pose) if finite else pose, str(listed_in)))
    return shots


def _images_folder(root: Path, images: list[ColmapImage]) -> Path:
    """The folder with the most photographs; ties go to the first in `IMAGE_FOLDERS`."""
    sample = images[:: max(1, len(images) // 64)]
    found = [sum((root / folder / image.name).is_file() for image in sample) for folder in IMAGE_FOLDERS]
    return root / IMAGE_FOLDERS[int(np.argmax(found))]


def _points(path: Path, notes: list[str]) -> tuple[Float64[Array, "n 3"], UInt8[Array, "n 3"]]:
    if not path.is_file():
        notes.append(f"there is no {path.name}: the scene has no points")
        return np.zeros((0, 3)), np.zeros((0, 3), np.uint8)
    xyz, rgb = read_points(path)
    finite = usable(xyz)
    if not finite.all():
        notes.append(f"{int((~finite).sum())} of {len(xyz)} points in {path.name} are not finite and are left out")
    return xyz[finite], rgb[finite]


def _note_other_models(model: Path, notes: list[str]) -> None:
    if model.name == "0":
        others = [other for other in model.parent.iterdir() if other != model and model_format(other)]
        what = "other sub-models, each in its own coordinates"
        add_note(notes, len(others), what, "left out", sorted(other.name for other in others))


LAYOUT = Layout(
    name="colmap",
    looks_for="a COLMAP model (sparse/0/cameras.bin or .txt)",
    matches=has_model,
    load=load,
)
