"""Cloud files: the known formats, finding the clouds in a folder, and reading them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ov3d.common.base.errors import DataError
from ov3d.common.readers.arrays import read_npy_points
from ov3d.common.readers.las import read_las
from ov3d.common.readers.lidar_bin import read_bin
from ov3d.common.readers.pcd import read_pcd
from ov3d.common.readers.ply import read_ply_points
from ov3d.common.readers.raw_points import RawPoints, finished
from ov3d.common.scenes.scene import PointCloud, World

READERS: dict[str, Callable[[Path], RawPoints]] = {
    ".ply": read_ply_points,
    ".las": read_las,
    ".laz": read_las,
    ".pcd": read_pcd,
    ".bin": read_bin,
    ".npy": read_npy_points,
}
"""By lower-case extension."""

_SURELY_CLOUDS = (".ply", ".las", ".laz", ".pcd")
_OTHERS = {"cameras.bin", "images.bin", "points3d.bin", "rigs.bin", "frames.bin", "poses_bounds.npy"}
"""Files of other layouts that share a cloud's extension."""


def is_cloud_file(path: Path) -> bool:
    """Whether a file is a cloud, judging by its name."""
    return path.suffix.lower() in READERS and path.name.lower() not in _OTHERS and not path.name.startswith(".")


def cloud_files(folder: Path) -> list[Path]:
    """The clouds in a folder, sorted by name; .bin and .npy, which may be anything, count only without others."""
    found = sorted(path for path in folder.iterdir() if is_cloud_file(path) and path.is_file())
    return [path for path in found if path.suffix.lower() in _SURELY_CLOUDS] or found


def read_cloud(path: Path, *, num_classes: int) -> tuple[PointCloud, World, list[str]]:
    """Read a file as a cloud; see `raw_points.finished` for what is left out and noted.

    Raises:
        DataError: the file is not a cloud, or is faulty; the message names the fault.
        MissingModelError: reading it needs a package that is not installed.
    """
    if not is_cloud_file(path):
        raise DataError(f"{path} is not a known type of point cloud.", f"Known: {', '.join(READERS)}.")
    return finished(READERS[path.suffix.lower()](path), path, num_classes=num_classes)
