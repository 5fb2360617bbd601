"""SemanticKITTI: every scan of every sequence is a scene of one sweep, with the photographs that are there.

    ROOT/sequences/XX/velodyne/000000.bin     fp32 x 4: x, y, z, intensity
    ROOT/sequences/XX/labels/000000.label     optional
    ROOT/sequences/XX/image_2, image_3/000000.png    optional: the label download has none, and most people one camera
    ROOT/sequences/XX/calib.txt, poses.txt, times.txt

A sequence's folder, or that of the sequences, may be opened itself. Poses in the file are those of camera 0 (Behley et al.,
ICCV 2019), a scene's are the LiDAR's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Float64
from ov3d.common.datasets import load_dataset
from ov3d.common.readers.kitti_calibration import CAMERAS, Calibration, frames_of, matrix_of, read_calibration, rigid
from ov3d.common.readers.layout import Layout, folder_name
from ov3d.common.readers.sweep_labels import class_names, read_semantickitti, scene_labels
from ov3d.common.readers.sweep_points import read_sweep
from ov3d.common.scenes.cameras import invert_pose
from ov3d.common.scenes.scene import Frame, LazyScenes, PointCloud, Scene
from ov3d.common.scenes.sweep import Sweep

DATASET = "semantickitti"
COLUMNS = 4


class Sequence:
    """One drive. Its calibration, times and poses are read once, at the first scan that needs them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder_name(folder)

    def scans(self) -> list[str]:
        """Names of the scans, in order."""
        return sorted(file.stem for file in (self.folder / "velodyne").glob("*.bin"))

    @cached_property
    def calibration(self) -> Calibration:
        """The lines of calib.txt."""
        return read_calibration(self.folder / "calib.txt")

    @cached_property
    def rectified_from_lidar(self) -> Float64[Array, "4 4"]:
        """Tr: from the LiDAR's frame to that of camera 0."""
        path = self.folder / "calib.txt"
        return rigid(matrix_of(self.calibration, ("Tr", "Tr_velo_to_cam"), (3, 4), path), f"Tr of {path}")

    @cached_property
    def times(self) -> Float64[Array, " n"]:
        """Seconds of each scan since the first; empty where nobody wrote them down."""
        return _rows(self.folder / "times.txt", 1)[:, 0]

    @cached_property
    def poses(self) -> Float64[Array, "n 3 4"]:
        """Poses of camera 0 at each scan, in its own frame at the first; empty where nobody knows them."""
        return _rows(self.folder / "poses.txt", 12).reshape(-1, 3, 4)

    def time(self, scan: str) -> int:
        """Microseconds since the first scan; 0 where unknown."""
        number = _number(scan)
        return round(float(self.times[number]) * 1e6) if number < len(self.times) else 0

    def pose(self, scan: str) -> Float64[Array, "4 4"] | None:
        """The LiDAR's pose at a scan, in its own frame at the first; None if unknown."""
        number = _number(scan)
        if number >= len(self.poses):
            return None
        camera = np.vstack([self.poses[number], (0, 0, 0, 1)])
        return invert_pose(self.rectified_from_lidar) @ camera @ self.rectified_from_lidar

    def frames(self, scan: str) -> tuple[tuple[Frame, ...], list[str]]:
        """The photographs of a scan, and notes on those left out."""
        if not any((self.folder / name).is_dir() for name in CAMERAS):
            return (), []
        lidar_from_rectified = invert_pose(self.rectified_from_lidar)
        return frames_of(self.folder, scan, self.calibration, lidar_from_rectified, self.folder / "calib.txt")


def open_scans(root: Path, say: Callable[[str], None] | None = None) -> LazyScenes:
    """All scans of a data set or of one sequence; splits are train, val and test by sequence.

    Raises:
        DataError: the data set has no scans.
    """
    scans = {f"{one.name}-{scan}": (one, scan) for one in map(Sequence, _sequences(root)) for scan in one.scans()}
    if not scans:
        raise DataError(f"{root} holds no scan (sequences/XX/velodyne/*.bin).", "Check the path.")
    splits = {
        split: ids
        for split, numbers in load_dataset(DATASET).subsets.items()
        if (ids := tuple(name for name, (one, _) in scans.items() if one.name in numbers))
    }
    return LazyScenes(tuple(scans), lambda name: load_scan(root, *scans[name]), splits)


def load_scan(root: Path, sequence: Sequence, scan: str) -> Scene:
    """A scan with its labels and photographs.

    Raises:
        DataError: the scan, its labels or the calibration cannot be read.
    """
    points = read_sweep(sequence.folder / "velodyne" / f"{scan}.bin", columns=COLUMNS)
    spec = load_dataset(DATASET)
    labels = instances = None
    file = sequence.folder / "labels" / f"{scan}.label"
    if file.is_file():
        raw, numbers = read_semantickitti(file, points.num_rows)
        labels, instances = scene_labels(spec, points.kept(raw), points.kept(numbers), file)
    frames, notes = sequence.frames(scan)
    time, pose = sequence.time(scan), sequence.pose(scan)
    if pose is None and len(sequence.poses):  # a sequence without poses is ordinary
        notes.append(f"{sequence.folder / 'poses.txt'} has no pose of scan {scan}; that of the first is taken")
    return Scene(
        name=f"{sequence.name}-{scan}",
        path=root,
        layout=LAYOUT.name,
        frames=frames,
        cloud=PointCloud(points.xyz, None, labels, instances, points.intensity),
        classes=class_names(spec) if labels is not None else (),
        notes=(*points.notes, *notes),
        sweep=Sweep(
            token=scan,
            sequence=sequence.name,
            time=time,
            global_from_lidar=np.eye(4) if pose is None else pose,
            camera_times={frame.name: time for frame in frames},  # taken as the LiDAR faces forward
            file_rows=points.rows,
            num_file_rows=points.num_rows,
        ),
    )


def _number(scan: str) -> int:
    """Row of a scan in the files of its sequence; beyond all of them where its name is not a number."""
    return int(scan) if scan.isascii() and scan.isdigit() else 1 << 62


def _rows(path: Path, columns: int) -> Float64[Array, "n c"]:
    """Rows of numbers; empty if the file does not exist."""
    if not path.is_file():
        return np.zeros((0, columns))
    try:
        values = np.array(path.read_text(encoding="utf-8-sig").split(), np.float64)
    except (ValueError, OSError, UnicodeDecodeError):
        values = np.array([np.nan])
    if values.size % columns or not np.isfinite(values).all():
        raise DataError(f"{path} is not rows of {columns} finite numbers.", "Copy it from the data set again.")
    return values.reshape(-1, columns)


def _sequences(root: Path) -> list[Path]:
    """Folders of sequences at a path: itself, or those of its folder `sequences`."""
    if (root / "velodyne").is_dir() and (root / "calib.txt").is_file():
        return [root]
    base = root if folder_name(root) == "sequences" else root / "sequences"
    return sorted(folder.parent for folder in base.glob("*/velodyne") if folder.is_dir())


LAYOUT = Layout(
    name="semantickitti",
    looks_for="SemanticKITTI's sequences (sequences/XX/velodyne, or velodyne beside calib.txt)",
    matches=lambda path: path.is_dir() and bool(_sequences(path)),
    open=open_scans,
)
