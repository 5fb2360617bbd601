"""Calibration files of KITTI and SemanticKITTI: projection matrices of rectified cameras, and where the LiDAR is.

    P2 = K [I | t],   x = P2 [R0] [Tr; 0 0 0 1] X                              (Geiger et al., IJRR 2013, eq. 4 and 8)

A projection matrix that is not K [I | t] is refused. Calibration by OpenCV puts whole numbers on pixel centres, ours lie at
+0.5.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Float64
from ov3d.common.scenes.cameras import Camera, invert_pose, orthonormalised, pose_fault
from ov3d.common.scenes.images import read_header
from ov3d.common.scenes.scene import Frame


def read_calibration(path: Path) -> dict[str, Float64[Array, " _"]]:
    """The lines of a calibration file: a name, a colon, numbers.

    Raises:
        DataError: it cannot be read, or a line holds something else.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise DataError(f"The calibration {path} cannot be read: {why}.", "Copy it from the data set again.") from None
    found: dict[str, Float64[Array, " _"]] = {}
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


def matrix_of(
    lines: dict[str, Float64[Array, " _"]], names: tuple[str, ...], shape: tuple[int, int], path: Path
) -> Float64[Array, "r c"]:
    """One matrix by any of its names.

    Raises:
        DataError: no line of these names, or one of another number of values.
    """
    values = next((lines[name] for name in names if name in lines), None)
    if values is None:
        raise DataError(f"{path} has no line {' or '.join(names)}.", f"It has: {', '.join(lines) or 'nothing'}.")
    if values.size != shape[0] * shape[1] or not np.isfinite(values).all():
        raise DataError(f"{names[0]} of {path} has {values.size} values, not {shape[0] * shape[1]}.", "Copy it again.")
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


def frame_of(
    path: Path, name: str, projection: Float64[Array, "3 4"], lidar_from_rectified: Float64[Array, "4 4"], what: str
) -> Frame:
    """A photograph with the camera and pose (`lidar_from_camera`) of a rectified projection matrix.

    Args:
        path: the photograph.
        name: the frame's.
        projection: P of equation (1).
        lidar_from_rectified: from the frame that P projects from.
        what: the matrix, to name in an error.

    Raises:
        DataError: the photograph cannot be read, or the matrix is not K [I | t] with K of a pinhole camera.
    """
    header = read_header(path)
    if header is None:
        raise DataError(f"Image {path} cannot be read.", "Copy it from the data set again, or take it out.")
    k = projection[:, :3]
    if abs(k[0, 1]) > 1e-6 * k[0, 0] or np.abs(k[[1, 2, 2], [0, 0, 1]]).max() > 1e-9 or abs(k[2, 2] - 1) > 1e-9:
        raise DataError(f"{what} is not the matrix of a rectified pinhole camera.", "Copy the calibration again.")
    camera_from_rectified = np.eye(4)
    camera_from_rectified[:3, 3] = np.linalg.solve(k, projection[:, 3])
    camera = Camera(*header.size, float(k[0, 0]), float(k[1, 1]), float(k[0, 2]) + 0.5, float(k[1, 2]) + 0.5)
    return Frame(name, path, camera, lidar_from_rectified @ invert_pose(camera_from_rectified))


def photographs(folder: Path, stem: str, cameras: tuple[str, ...]) -> tuple[dict[str, Path], list[str]]:
    """Photographs of a scan by camera folder, and the cameras that have a folder but not this photograph.

    A data set that was downloaded with one camera, or none, is ordinary; a hole in a folder is worth a note.
    """
    found: dict[str, Path] = {}
    missing = []
    for camera in cameras:
        files = [folder / camera / f"{stem}{ending}" for ending in (".png", ".jpg")]
        path = next((file for file in files if file.is_file()), None)
        if path is not None:
            found[camera] = path
        elif (folder / camera).is_dir():
            missing.append(camera)
    return found, missing


def missing_note(missing: list[str], stem: str) -> list[str]:
    """The note on photographs that are not there."""
    return [f"no photograph {stem} in {', '.join(missing)}; the other cameras are used"] if missing else []
