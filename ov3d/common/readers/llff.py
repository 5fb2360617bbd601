"""LLFF folders, and 3D-OVS scenes, which are LLFF folders with masks.

    images/*  poses_bounds.npy (N x 17: 3x5 [R | t | h w f] row by row, then near, far; axes down, right, backward)
    segmentations/classes.txt (one class per line), segmentations/<id>/<class>.png (one mask per class)

The i-th row belongs to the i-th image by name, and a mask folder <id> to the image at that position: ids are positions,
not names. Classes are sorted by code point. Frames with masks form the split `test`, the others `train`. Arbitrary units.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.npy_files import read_npy
from ov3d.common.base.shapes import Array, Float64
from ov3d.common.readers.colmap import has_model
from ov3d.common.readers.layout import Layout, origin_of_cameras
from ov3d.common.readers.posed import Lens, Shot, add_note, estimated_up, frames_from, list_images, unique_names
from ov3d.common.scenes.cameras import Camera
from ov3d.common.scenes.images import IMAGE_ENDINGS, ImageHeader
from ov3d.common.scenes.scene import ClassMasks, Frame, Scene, World

POSES_NAME = "poses_bounds.npy"
MASKS_FOLDER = "segmentations"
IMAGE_FOLDERS = ("images", "images_2", "images_4", "images_8")

_UP = (0.0, 0.0, 1.0)


def load(path: Path) -> Scene:
    """Read a scene of this layout; raises `DataError` naming the faulty file."""
    poses_path = path / POSES_NAME
    rows = _read_rows(poses_path)
    folder = next((path / name for name in IMAGE_FOLDERS if list_images(path / name)), path / "images")
    images = list_images(folder)
    if len(images) != len(rows):
        raise DataError(
            f"{poses_path} has {len(rows)} poses, but {folder} has {len(images)} images.",
            "They are paired by position: restore the missing images or remove the extra ones.",
        )
    names = unique_names([image.name for image in images], folder)
    shots = [_shot(row, image, name, poses_path) for row, image, name in zip(rows, images, names, strict=True)]
    notes: list[str] = []
    frames = frames_from(shots, poses_path, notes)
    classes, masks = _read_masks(path / MASKS_FOLDER, names, notes)
    frames = [_with_masks(frame, masks.get(frame.name)) for frame in frames]
    world = World("arbitrary", estimated_up(frames, _UP), origin_of_cameras(frames))
    return LAYOUT.scene(path, frames, world, notes, classes=classes, splits=_splits(frames))


def _read_rows(path: Path) -> Float64[Array, "n 17"]:
    rows = read_npy(path)
    if rows.ndim != 2 or rows.shape[1] != 17 or rows.dtype.kind not in "fiu":
        raise DataError(
            f"{path} holds {rows.dtype} of shape {rows.shape}, not rows of 17 numbers.",
            "It should hold LLFF's poses and bounds.",
        )
    return rows.astype(np.float64)


def _shot(row: Float64[Array, " 17"], image: Path, name: str, listed_in: Path) -> Shot:
    matrix = row[:15].reshape(3, 5)
    height, width, focal = matrix[:, 4].tolist()
    pose = np.eye(4)
    # Columns are the camera's down, right and backward axes; OpenCV's are right, down, forward.
    pose[:3] = np.column_stack([matrix[:, 1], matrix[:, 0], -matrix[:, 2], matrix[:, 3]])
    near, far = row[15:].tolist()

    def lens(header: ImageHeader) -> Lens:
        if not np.isfinite(matrix[:, 4]).all():
            raise DataError(
                f"The size or focal length of {image.name} in {listed_in} is not finite.", "Export it again."
            )
        return Lens(Camera(round(width), round(height), focal, focal, width / 2, height / 2))

    depth_range = (near, far) if 0 < near < far < np.inf else None
    return Shot(name, image, lens, pose, str(listed_in), depth_range=depth_range)


def _read_masks(
    folder: Path, names: list[str], notes: list[str]
) -> tuple[tuple[str, ...], dict[str, tuple[Path | None, ...]]]:
    """Class names, and for each frame with masks one path per class."""
    if not folder.is_dir():
        return (), {}
    classes = _read_classes(folder / "classes.txt")
    found: dict[str, tuple[Path | None, ...]] = {}
    lacking, strange = [], []
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        if not (inner.name.isascii() and inner.name.isdigit()):
            strange.append(inner.name)
            continue
        position = int(inner.name)
        if position >= len(names):
            raise DataError(
                f"{inner} has masks for image {position}, but there are only {len(names)} images (counted from 0).",
                "Name each folder after its image's position in the sorted list.",
            )
        files = {path.stem: path for path in sorted(inner.iterdir()) if path.suffix.lower() in IMAGE_ENDINGS}
        unknown = sorted(files.keys() - set(classes))
        if unknown:
            raise DataError(
                f"The class of mask {files[unknown[0]]} is not in classes.txt.", "Add the class, or rename the mask."
            )
        lacking += [f"{inner.name}/{name}" for name in classes if name not in files]
        found[names[position]] = tuple(files.get(name) for name in classes)
        if names[position].isdigit() and int(names[position]) != position:
            notes.append(
                f"masks {inner.name} belong to image {names[position]}: folders are matched by position, not by name"
            )
    add_note(notes, len(lacking), "masks", "missing, treated as empty", lacking)
    add_note(notes, len(strange), f"folders in {folder.name}/ that are not numbers", "left out", strange)
    return classes, found


def _read_classes(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise DataError(f"{path} cannot be read.", "It should be plain text with one class name per line.") from None
    classes = sorted(line.strip() for line in lines if line.strip())
    if not classes or len(set(classes)) != len(classes):
        raise DataError(
            f"{path} names {'a class twice' if classes else 'no class'}.", "It should hold one class per line."
        )
    return tuple(classes)


def _with_masks(frame: Frame, paths: tuple[Path | None, ...] | None) -> Frame:
    if paths is None:
        return frame
    return replace(frame, labels=ClassMasks(paths, frame.camera.width, frame.camera.height))


def _splits(frames: list[Frame]) -> dict[str, tuple[str, ...]]:
    test = tuple(frame.name for frame in frames if frame.labels is not None)
    if not test:
        return {}
    return {"train": tuple(frame.name for frame in frames if frame.labels is None), "test": test}


def is_llff(path: Path) -> bool:
    """Whether a folder has this layout."""
    return (path / POSES_NAME).is_file()


LAYOUT = Layout(
    name="llff",
    looks_for=POSES_NAME,
    matches=is_llff,
    load=load,
    # Captures often have a COLMAP model beside the poses made from it: it also has the lens and the points.
    yields_to=lambda path: has_model(path) and not (path / MASKS_FOLDER).is_dir(),
)
