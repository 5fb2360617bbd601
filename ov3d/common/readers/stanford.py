"""2D-3D-S, the photographs of S3DIS's areas.

    data/pose/camera_<id>_<room>_<n>_frame_<m>_domain_pose.json: camera_k_matrix 3x3, camera_rt_matrix 3x4 (world to camera)
    data/rgb/…_domain_rgb.png   data/depth/…_domain_depth.png (16 bits, 1/512 m along the optical axis, 65535 is missing)

Axes are OpenCV's; the principal point is the image centre, so pixel centres are at +0.5. Metres, z up.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Float64
from ov3d.common.readers.layout import Layout, origin_of_cameras
from ov3d.common.readers.posed import Lens, Shot, add_note, frames_from, natural_order
from ov3d.common.scenes.cameras import Camera, invert_pose
from ov3d.common.scenes.images import ImageHeader
from ov3d.common.scenes.scene import Frame, Scene, World

DEPTH_STEP, NO_DEPTH = 1 / 512, 65535
PLACES = ("data", "")
ENDING = "_domain_pose.json"


def load(path: Path) -> Scene:
    """Read a scene of this layout; raises `DataError` naming the faulty file."""
    files = pose_files(path)
    if not files:
        raise DataError(f"{path / 'data' / 'pose'}/*{ENDING} not found.", "Check the path.")
    notes: list[str] = []
    frames = frames_of(files, notes)
    return LAYOUT.scene(path, frames, World(origin=origin_of_cameras(frames)), notes)


def pose_files(path: Path) -> list[Path]:
    """The pose files of a folder, by number; empty if it has another layout."""
    for place in PLACES:
        found = [file for file in (path / place / "pose").glob(f"*{ENDING}") if not file.name.startswith(".")]
        if found:
            return sorted(found, key=lambda file: natural_order(file.name))
    return []


def frames_of(files: list[Path], notes: list[str]) -> list[Frame]:
    """The photographs of pose files; those left out are counted in `notes`.

    Raises:
        DataError: a pose file is not valid JSON or lacks a key, or no photograph is usable.
    """
    shots = [_shot(file) for file in files]
    without = [shot for shot in shots if shot.depth_path is not None and not shot.depth_path.is_file()]
    add_note(notes, len(without), "photographs", "without depth", [shot.path.name for shot in without])
    lacking = {shot.name for shot in without}
    shots = [replace(shot, depth_path=None) if shot.name in lacking else shot for shot in shots]
    return frames_from(shots, files[0].parent, notes)


def _shot(file: Path) -> Shot:
    stem = file.name.removesuffix(ENDING)
    matrix, camera_from_world = _matrices(file)
    folder = file.parent.parent

    def lens(header: ImageHeader) -> Lens:
        width, height = header.stored_size
        return Lens(
            Camera(width, height, float(matrix[0, 0]), float(matrix[1, 1]), float(matrix[0, 2]), float(matrix[1, 2]))
        )

    finite = bool(np.isfinite(camera_from_world).all())
    return Shot(
        name=stem.removeprefix("camera_"),
        path=folder / "rgb" / f"{stem}_domain_rgb.png",
        lens=lens,
        world_from_camera=invert_pose(camera_from_world) if finite else camera_from_world,
        stated_in=str(file),
        depth_path=folder / "depth" / f"{stem}_domain_depth.png",
        depth_scale=DEPTH_STEP,
        depth_missing=NO_DEPTH,
    )


def _matrices(file: Path) -> tuple[Float64[Array, "3 3"], Float64[Array, "4 4"]]:
    """Intrinsics, and the pose from world to camera."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        intrinsic = np.array(data["camera_k_matrix"], dtype=np.float64)
        pose = np.array(data["camera_rt_matrix"], dtype=np.float64)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{file} has no camera_k_matrix and camera_rt_matrix of numbers ({type(error).__name__}: {error}).",
            "It is truncated or of another format: download it again.",
        ) from None
    if intrinsic.shape != (3, 3) or not np.isfinite(intrinsic).all() or pose.shape not in ((3, 4), (4, 4)):
        raise DataError(
            f"{file} has a camera_k_matrix of shape {intrinsic.shape} and a camera_rt_matrix of shape {pose.shape}.",
            "They should be 3x3 and 3x4 (world to camera).",
        )
    return intrinsic, pose if len(pose) == 4 else np.vstack([pose, (0, 0, 0, 1)])


def _among_rooms(path: Path) -> bool:
    """Whether a folder is an area that also has S3DIS rooms (or its data/): then it is a data set of rooms."""
    return _holds_rooms(path) or _holds_rooms(path.resolve().parent)


def _holds_rooms(path: Path) -> bool:
    return any(inner.is_dir() and (inner / "Annotations").is_dir() for inner in path.iterdir())


LAYOUT = Layout(
    name="2d3ds",
    looks_for=f"data/pose/*{ENDING}",
    matches=lambda path: path.is_dir() and bool(pose_files(path)),
    load=load,
    yields_to=_among_rooms,
)
