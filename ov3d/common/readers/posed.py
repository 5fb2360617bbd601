"""From a capture's description of a photograph to a `Frame`: for readers whose poses were computed from the images.

A structure-from-motion tool sees pixels as stored in the file; ov3d sees them upright. If EXIF rotates an image, the camera
is rotated with it (x right, y down in the upright image), so intrinsics, lens and pose change together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.npy_files import UNREADABLE
from ov3d.common.base.shapes import Array, Float64
from ov3d.common.scenes.cameras import Camera, orthonormalised, pose_fault
from ov3d.common.scenes.distortion import Distortion
from ov3d.common.scenes.images import IMAGE_ENDINGS, QUARTER_TURNS, ImageHeader, read_header
from ov3d.common.scenes.scene import DepthImage, Frame

OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
"""Camera axes: OpenGL's y is up and z backward, OpenCV's y is down and z forward. The matrix is its own inverse."""

SNAP_COSINE = np.cos(np.radians(10))
"""A world whose cameras are upright to within this keeps its layout's up direction."""

_EXACT = 1e-9
_TURNED_ABOUT = 0.02  # mean square of the right axes' second direction: headings that differ by about 15 degrees
_AGREEING = 0.3
_QUARTER = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # (x, y) -> (-y, x): clockwise, as y is down
_CLOCKWISE = np.block([[_QUARTER, np.zeros((3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]])


@dataclass(frozen=True, slots=True)
class Lens:
    """Intrinsics as a capture states them.

    Attributes:
        camera: focal lengths and principal point (pixel centres at +0.5) for its stated size.
        model: `pinhole`, or a model of `ov3d.common.scenes.distortion`.
        coefficients: of that model.
        of_stored_pixels: whether they are for the pixels as stored, before EXIF rotation.
    """

    camera: Camera
    model: Literal["pinhole", "opencv", "fisheye"] = "pinhole"
    coefficients: tuple[float, ...] = ()
    of_stored_pixels: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """One photograph as a capture states it.

    Attributes:
        name: of the frame.
        path: the photograph.
        lens: intrinsics for an image of the header's size; called only for images that exist.
        world_from_camera: converted to OpenCV axes; otherwise as in the file.
        stated_in: the file and place to name in an error.
        depth_path, depth_scale: a depth image of the same lens, and scene units per depth step.
        depth_missing: a stored value that, like 0, means no depth.
        mask_path: an image that is black where the photograph must not be used.
        depth_range: near and far.
    """

    name: str
    path: Path
    lens: Callable[[ImageHeader], Lens]
    world_from_camera: Float64[Array, "4 4"]
    stated_in: str
    depth_path: Path | None = None
    depth_scale: float = 0.001
    depth_missing: int | None = None
    mask_path: Path | None = None
    depth_range: tuple[float, float] | None = None


def frames_from(shots: Sequence[Shot], listed_in: Path, notes: list[str]) -> list[Frame]:
    """Frames of the usable photographs, in the given order; those left out are counted in `notes`.

    Args:
        shots: the capture's photographs.
        listed_in: the file that lists them.
        notes: appended to.

    Raises:
        DataError: no photograph is usable, or intrinsics or a pose contradict an image; the message names it.
    """
    if not shots:
        raise DataError(f"{listed_in} lists no photograph.", "Export the capture again.")
    missing = [shot for shot in shots if not shot.path.is_file()]
    there = [shot for shot in shots if shot.path.is_file()]
    if not there:
        raise DataError(
            f"None of the {len(shots)} photographs listed in {listed_in} exists (first: {shots[0].path}).",
            "Move the images to the listed paths, or correct the paths.",
        )
    add_note(
        notes, len(missing), f"of {len(shots)} listed photographs", "missing", [shot.path.name for shot in missing]
    )
    lost = [shot for shot in there if not np.isfinite(shot.world_from_camera).all()]
    add_note(notes, len(lost), "photographs with non-finite poses", "left out", [s.path.name for s in lost])
    headers = [(shot, read_header(shot.path)) for shot in there if np.isfinite(shot.world_from_camera).all()]
    broken = [shot.path.name for shot, header in headers if header is None]
    add_note(notes, len(broken), "photographs that cannot be read", "left out", broken)
    frames = [_frame(shot, header, notes) for shot, header in headers if header is not None]
    if not frames:
        raise DataError(
            f"None of the {len(there)} photographs of {listed_in} can be used: {'; '.join(notes)}.",
            "Export the capture again.",
        )
    masked = sum(frame.mask_path is not None for frame in frames)
    if masked:
        notes.append(f"{masked} photographs have masks: training rays respect them, lifting ignores them")
    return frames


def _frame(shot: Shot, header: ImageHeader, notes: list[str]) -> Frame:
    pose = _clean_pose(shot)
    lens = shot.lens(header)
    camera, distortion, turns = _fitted(shot, lens, header)
    for _ in range(turns):
        pose = pose @ _CLOCKWISE.T
    depth_path, mask_path = shot.depth_path, shot.mask_path
    if turns and (depth_path or mask_path):
        depth_path = mask_path = None
        notes.append(f"{shot.path.name} is rotated by EXIF: its depth and mask, which have no EXIF, are left out")
    if mask_path is not None and not mask_path.is_file():
        raise DataError(
            f"{shot.stated_in} names the mask {mask_path}, which does not exist.", "Restore it, or remove the entry."
        )
    return Frame(
        name=shot.name,
        image_path=shot.path,
        camera=camera,
        world_from_camera=pose,
        depth=None if depth_path is None else _depth(shot, depth_path, camera, distortion),
        distortion=distortion,
        mask_path=mask_path,
        depth_range=shot.depth_range,
    )


def _clean_pose(shot: Shot) -> Float64[Array, "4 4"]:
    pose = np.asarray(shot.world_from_camera, dtype=np.float64)
    if fault := pose_fault(pose):
        raise DataError(
            f"The pose of {shot.path.name} in {shot.stated_in} is invalid: {fault}.", "Export the poses again."
        )
    rounding = np.abs(pose[:3, :3] @ pose[:3, :3].T - np.eye(3)).max()
    return orthonormalised(pose) if rounding > _EXACT else pose


def _fitted(shot: Shot, lens: Lens, header: ImageHeader) -> tuple[Camera, Distortion | None, int]:
    """The pinhole camera, the distortion, and the number of clockwise quarter turns applied."""
    stated = (lens.camera.width, lens.camera.height)
    upright, stored = header.size, header.stored_size
    fits_upright, fits_stored = same_shape(stated, upright), same_shape(stated, stored)
    if not (fits_upright or fits_stored):
        raise DataError(
            f"Image {shot.path} is {upright[0]}x{upright[1]}, its intrinsics in {shot.stated_in} are for "
            f"{stated[0]}x{stated[1]}.",
            "Resize the image to that aspect ratio (without cropping), or correct w and h.",
        )
    turned = header.orientation != 1 and fits_stored and (lens.of_stored_pixels or not fits_upright)
    if turned and header.orientation not in QUARTER_TURNS:
        raise DataError(
            f"Image {shot.path} is mirrored by its EXIF orientation ({header.orientation}).",
            "Store the pixels upright: magick mogrify -auto-orient.",
        )
    model: Literal["opencv", "fisheye"] = "fisheye" if lens.model == "fisheye" else "opencv"
    whole = Distortion(model, lens.coefficients, lens.camera.resized(*(stored if turned else upright)))
    turns = QUARTER_TURNS[header.orientation] if turned else 0
    for _ in range(turns):
        whole = whole.turned()
    if lens.model == "pinhole" or (lens.model == "opencv" and not any(lens.coefficients)):
        return whole.camera, None, turns
    return whole.pinhole(), whole, turns


def same_shape(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether one size is the other one resized, its sides rounded to whole pixels."""
    (small_w, small_h), (w, h) = sorted((a, b))
    return abs(small_w * h / w - small_h) < 1.5 or abs(small_h * w / h - small_w) < 1.5


def _depth(shot: Shot, path: Path, camera: Camera, distortion: Distortion | None) -> DepthImage:
    size = _raster_size(path)
    if size is None:
        raise DataError(f"{shot.stated_in} names the depth image {path}, which cannot be read.", "Export it again.")
    if not same_shape(size, (camera.width, camera.height)):
        raise DataError(
            f"Depth image {path} is {size[0]}x{size[1]}, its photograph {camera.width}x{camera.height}: "
            "their aspect ratios differ.",
            "Depth may have any size, but needs the photograph's aspect ratio.",
        )
    lens = distortion.resized(*size) if distortion else None
    return DepthImage(path, shot.depth_scale, camera.resized(*size), lens, shot.depth_missing)


def _raster_size(path: Path) -> tuple[int, int] | None:
    if path.suffix.lower() != ".npy":
        header = read_header(path)
        return header.stored_size if header else None
    try:
        shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
    except UNREADABLE:
        return None
    return (shape[1], shape[0]) if len(shape) == 2 else None


# ------------------------------------------------------------------------------------------------------------- names


def natural_order(name: str) -> tuple[Any, ...]:
    """A sort key under which frame_2 comes before frame_10."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((int(part), "") if part.isascii() and part.isdigit() else (-1, part) for part in parts)


def unique_names(paths: Sequence[str], listed_in: Path) -> list[str]:
    """A frame's name for each relative path: its stem, or if stems repeat, the whole path with _ for /.

    Raises:
        DataError: a path occurs twice.
    """
    plain = [path.replace("\\", "/").removeprefix("./").strip("/") for path in paths]
    seen: set[str] = set()
    for path in plain:
        if path in seen:
            raise DataError(f"{listed_in} lists {path} twice.", "Remove one of them.")
        seen.add(path)
    for choice in (
        lambda p: Path(p).stem,
        lambda p: "_".join(Path(p).with_suffix("").parts),
        lambda p: p.replace("/", "_"),
    ):
        names = [choice(path) for path in plain]
        if len(set(names)) == len(names):
            return names
    return [f"{idx}_{Path(path).stem}" for idx, path in enumerate(plain)]


def list_images(folder: Path) -> list[Path]:
    """The photographs in a folder, sorted by file name; hidden files are ignored."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_ENDINGS and not p.name.startswith("."))


def add_note(notes: list[str], count: int, what: str, state: str, names: Iterable[str]) -> None:
    """Append "COUNT WHAT: STATE" with the first three names; nothing if the count is 0."""
    if count:
        first = list(names)[:3]
        more = ", …" if count > len(first) else ""
        notes.append(f"{count} {what}: {state} ({', '.join(first)}{more})")


def estimated_up(frames: Sequence[Frame], nominal: tuple[float, float, float]) -> tuple[float, float, float]:
    """Estimate which way is up if it was not measured.

    Cameras are tilted but seldom rolled: if they look around, up is the direction perpendicular to all their right axes x,
    the eigenvector of the sum of x x^T with the least eigenvalue. If they all face one way, it is the mean of their own up.

    Args:
        frames: posed photographs.
        nominal: the layout's up direction: kept if the estimate is close to it, or if the cameras disagree.
    """
    mean = np.mean([-frame.world_from_camera[:3, 1] for frame in frames], axis=0)
    rights = np.array([frame.world_from_camera[:3, 0] for frame in frames])
    values, vectors = np.linalg.eigh(rights.T @ rights / len(rights))  # ascending
    if values[1] > _TURNED_ABOUT and values[0] < values[1] / 4:
        mean = vectors[:, 0] * np.copysign(1.0, vectors[:, 0] @ mean)
    length = float(np.linalg.norm(mean))
    if length < _AGREEING or float(mean @ np.asarray(nominal)) / length > SNAP_COSINE:
        return nominal
    x, y, z = (mean / length).tolist()
    return (x, y, z)
