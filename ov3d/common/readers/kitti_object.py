"""KITTI's object data set: every frame is a scene of one sweep and its photograph.

    ROOT/training/velodyne/000001.bin, image_2/000001.png, calib/000001.txt      (or ROOT/testing; or either folder itself)

Boxes of `label_2` are not read: they label no point.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.readers.kitti_calibration import frames_of, matrix_of, read_calibration, rigid
from ov3d.common.readers.layout import Layout, folder_name
from ov3d.common.readers.sweep_points import read_sweep
from ov3d.common.scenes.cameras import invert_pose
from ov3d.common.scenes.scene import LazyScenes, PointCloud, Scene
from ov3d.common.scenes.sweep import Sweep

COLUMNS = 4
SETS = ("training", "testing")


def open_frames(root: Path, say: Callable[[str], None] | None = None) -> LazyScenes:
    """All frames; `training` and `testing` are splits.

    Raises:
        DataError: the data set has no frames.
    """
    frames: dict[str, tuple[Path, str]] = {}
    splits: dict[str, tuple[str, ...]] = {}
    for folder in _folders(root):
        numbers = sorted(file.stem for file in (folder / "velodyne").glob("*.bin"))
        ids = tuple(f"{folder_name(folder)}-{number}" for number in numbers)
        frames |= {name: (folder, number) for name, number in zip(ids, numbers, strict=True)}
        splits[folder_name(folder)] = ids
    if not frames:
        raise DataError(f"{root} holds no frame (training/velodyne/*.bin).", "Check the path.")
    return LazyScenes(tuple(frames), lambda name: load_frame(root, *frames[name]), splits)


def load_frame(root: Path, folder: Path, number: str) -> Scene:
    """A sweep and the photographs that are there.

    Raises:
        DataError: the sweep or its calibration cannot be read.
    """
    points = read_sweep(folder / "velodyne" / f"{number}.bin", columns=COLUMNS)
    calib = folder / "calib" / f"{number}.txt"
    lines = read_calibration(calib)
    rectified = rigid(matrix_of(lines, ("R0_rect", "R_rect"), (3, 3), calib), f"R0_rect of {calib}")
    camera_from_lidar = rigid(matrix_of(lines, ("Tr_velo_to_cam", "Tr"), (3, 4), calib), f"Tr_velo_to_cam of {calib}")
    frames, notes = frames_of(folder, number, lines, invert_pose(rectified @ camera_from_lidar), calib)
    return Scene(
        name=f"{folder_name(folder)}-{number}",
        path=root,
        layout=LAYOUT.name,
        frames=frames,
        cloud=PointCloud(points.xyz, intensity=points.intensity),
        notes=(*points.notes, *notes),
        # No clock, and no pose: frames were picked from different drives.
        sweep=Sweep(
            number,
            folder_name(folder),
            0,
            np.eye(4),
            {frame.name: 0 for frame in frames},
            points.rows,
            points.num_rows,
        ),
    )


def _folders(root: Path) -> list[Path]:
    found = [root, *(root / name for name in SETS)]
    return [folder for folder in found if (folder / "velodyne").is_dir() and (folder / "calib").is_dir()]


LAYOUT = Layout(
    name="kitti-object",
    looks_for="KITTI's object frames (training/velodyne beside training/calib)",
    matches=lambda path: path.is_dir() and bool(_folders(path)),
    open=open_frames,
)
