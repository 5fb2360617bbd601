"""Calibration files of KITTI and SemanticKITTI: projection matrices of rectified cameras, and where the LiDAR is.

    P2 = K [I | t],   x = P2 [R0] [Tr; 0 0 0 1] X                              (1)
                                                                  (Geiger et al., IJRR 2013, eq. 4 and 8)

A projection matrix that is not K [I | t] is refused. Calibration by OpenCV puts whole numbers on pixel centres, ours lie at
+0.5.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Float64
from ov3d.common.readers.sweep_photographs import usable
from ov3d.common.scenes.cameras import Camera, orthonormalised, pose_fault
from ov3d.common.scenes.images import ImageHeader
from ov3d.common.scenes.scene import Frame

Calibration: TypeAlias = "dict[str, Float64[Array, ' _']]"

CAMERAS = ("image_2", "image_3")
"""Folders of the colour cameras; image_0 and image_1 are grey."""


def read_calibration(path: Path) -> Calibration:
    """The lines of a calibration file: a name, a colon, numbers.

    Raises:
        DataError: it cannot be read, or a line holds something else.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise DataError(f"The calibration {path} cannot be read: {why}.", "Copy it from the data set again.") from None
    found: Calibration = {}
    for number, line in enumerate(lines, start=1):
        name, colon, values = line.partition(":")
        if not line.strip():
            continue
        try:
            found[name.strip()] = np.array([float(value) for value in values.split()])
        except ValueError:
            colon = ""
        if not colon:
            raise DataError(f"Line {number} of {path} is not a name and numbers.", "Copy it from the data set again.")
    return found


def matrix_of(lines: Calibration, names: tuple[str, ...], shape: tuple[int, int], path: Path) -> Float64[Array, "r c"]:
    """One matrix by any of its names.

    Raises:
        DataError: no line of these names, or one of another number of values.
    """
    name = next((name for name in names if name in lines), None)
    if name is None:
        raise DataError(f"{path} has no line {' or '.join(names)}.", f"It has: {', '.join(lines) or 'nothing'}.")
    values, size = lines[name], shape[0] * shape[1]
    if values.size != size or not np.isfinite(values).all():
        raise DataError(f"{name} of {path} is not {size} finite numbers.", "Copy it from the data set again.")
    return values.reshape(shape)


def rigid(matrix: Float64[Array, "r c"], what: str) -> Float64[Array, "4 4"]:
    """A 3x3 or 3x4 matrix as a 4x4 pose whose rotation is exactly one.

    Raises:
        DataError: it is not rigid.
    """
    pose = np.eye(4)
    pose[:3, : matrix.shape[1]] = matrix
    if fault := pose_fault(pose):
        raise DataError(f"{what} is not a rigid motion: {fault}.", "Copy the calibration from the data set again.")
    return orthonormalised(pose)


def frames_of(
    folder: Path,
    stem: str,
    lines: Calibration,
    lidar_from_rectified: Float64[Array, "4 4"],
    calib: Path,
) -> tuple[tuple[Frame, ...], list[str]]:
    """The colour photographs of a scan, each with its camera and pose in the LiDAR's frame, and notes on those left out.

    A data set that was downloaded with one camera, or none, is ordinary; a photograph that its camera's folder lacks, or that
    cannot be read, is worth a note.

    Args:
        folder: of the camera folders.
        stem: of the scan's files.
        lines: of the calibration.
        lidar_from_rectified: from the frame that the projection matrices project from.
        calib: the calibration's file, to name.

    Raises:
        DataError: a camera's line is missing, or is not K [I | t] with K of a pinhole camera.
    """
    paths = {name: _photograph(folder / name, stem) for name in CAMERAS if (folder / name).is_dir()}
    headers, notes = usable(paths, stem)
    frames = [_frame(paths[name], name, headers[name], lines, lidar_from_rectified, calib) for name in headers]
    return tuple(frames), notes


def _photograph(folder: Path, stem: str) -> Path:
    jpeg = folder / f"{stem}.jpg"
    return jpeg if jpeg.is_file() else folder / f"{stem}.png"


def _frame(
    path: Path,
    name: str,
    header: ImageHeader,
    lines: Calibration,
    lidar_from_rectified: Float64[Array, "4 4"],
    calib: Path,
) -> Frame:
    projection = matrix_of(lines, (f"P{name[-1]}",), (3, 4), calib)
    k = projection[:, :3]
    if abs(k[0, 1]) > 1e-6 * k[0, 0] or np.abs(k[[1, 2, 2], [0, 0, 1]]).max() > 1e-9 or abs(k[2, 2] - 1) > 1e-9:
        raise DataError(
            f"P{name[-1]} of {calib} is not the matrix of a rectified pinhole camera.", "Copy the calibration again."
        )
    camera = Camera(*header.size, float(k[0, 0]), float(k[1, 1]), float(k[0, 2]) + 0.5, float(k[1, 2]) + 0.5)
    rectified_from_camera = np.eye(4)
    rectified_from_camera[:3, 3] = -np.linalg.solve(k, projection[:, 3])
    return Frame(name, path, camera, lidar_from_rectified @ rectified_from_camera)
