"""SemanticKITTI: every scan of every sequence is a scene of one sweep, with the photographs that are there.

    ROOT/sequences/XX/velodyne/000000.bin     fp32 x 4: x, y, z, intensity
    ROOT/sequences/XX/labels/000000.label     optional
    ROOT/sequences/XX/image_2, image_3/000000.png    optional: the label download has none, and most people one camera
    ROOT/sequences/XX/calib.txt, poses.txt, times.txt

A sequence's folder may be named itself. Poses are those of camera 0 (Behley et al., ICCV 2019); a scene's are the LiDAR's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Float64
from ov3d.common.datasets import load_dataset
from ov3d.common.readers.kitti_calibration import (
    frame_of,
    matrix_of,
    missing_note,
    photographs,
    read_calibration,
    rigid,
)
from ov3d.common.readers.layout import Layout
from ov3d.common.readers.sweep_labels import class_names, read_semantickitti, scene_labels
from ov3d.common.readers.sweep_points import read_sweep
from ov3d.common.scenes.cameras import invert_pose
from ov3d.common.scenes.scene import Frame, LazyScenes, PointCloud, Scene
from ov3d.common.scenes.sweep import Sweep

DATASET = "semantickitti"
COLUMNS = 4
CAMERAS = ("image_2", "image_3")
"""Folders of the colour cameras; image_0 and image_1 are grey."""


@dataclass(slots=True)
class Sequence:
    """One drive: its calibration is read once, at the first scan that is asked for."""

    folder: Path
    _calibration: dict[str, Float64[Array, " _"]] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Its number, as `08`."""
        return self.folder.name

    def scans(self) -> list[str]:
        """Names of the scans, in order."""
        return sorted(file.stem for file in (self.folder / "velodyne").glob("*.bin"))

    @property
    def calibration(self) -> dict[str, Float64[Array, " _"]]:
        """The lines of calib.txt."""
        if self._calibration is None:
            self._calibration = read_calibration(self.folder / "calib.txt")
        return self._calibration

    def rectified_from_lidar(self) -> Float64[Array, "4 4"]:
        """Tr: from the LiDAR's frame to that of camera 0."""
        path = self.folder / "calib.txt"
        return rigid(matrix_of(self.calibration, ("Tr", "Tr_velo_to_cam"), (3, 4), path), f"Tr of {path}")


def open_scans(root: Path) -> LazyScenes:
    """All scans of a data set or of one sequence; splits are train, val and test by sequence.

    Raises:
        DataError: there is no scan.
    """
    scans = {f"{one.name}-{scan}": (one, scan) for one in _sequences(root) for scan in one.scans()}
    if not scans:
        raise DataError(f"{root} holds no scan (sequences/XX/velodyne/*.bin).", "Check the path.")
    subsets = load_dataset(DATASET).subsets
    splits = {
        split: ids
        for split, numbers in subsets.items()
        if (ids := tuple(name for name, (one, _) in scans.items() if one.name in numbers))
    }
    return LazyScenes(tuple(scans), lambda name: load_scan(root, *scans[name]), splits)


def load(path: Path) -> Scene:
    """The one scan of a data set that has just one.

    Raises:
        DataError: it has several.
    """
    source = open_scans(path)
    if len(source) != 1:
        raise DataError(f"{path} holds {len(source):,} scans ({source.ids[0]}, …).", "Open it as a data set.")
    return source[0]


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
    found, missing = photographs(sequence.folder, scan, CAMERAS)
    frames = _frames(sequence, found)
    time, pose = _when_and_where(sequence, scan)
    return Scene(
        name=f"{sequence.name}-{scan}",
        path=root,
        layout=LAYOUT.name,
        frames=frames,
        cloud=PointCloud(points.xyz, None, labels, instances, points.intensity),
        classes=class_names(spec) if labels is not None else (),
        notes=(*([points.note] if points.note else []), *missing_note(missing, scan)),
        sweep=Sweep(
            token=scan,
            sequence=sequence.name,
            time=time,
            global_from_lidar=pose,
            camera_times=dict.fromkeys(
                (frame.name for frame in frames), time
            ),  # triggered when the LiDAR faces forward
            file_rows=points.rows,
            num_file_rows=points.num_rows,
        ),
    )


def _frames(sequence: Sequence, found: Mapping[str, Path]) -> tuple[Frame, ...]:
    frames, calib = [], sequence.folder / "calib.txt"
    for folder, path in found.items():
        name = f"P{folder[-1]}"
        projection = matrix_of(sequence.calibration, (name,), (3, 4), calib)
        lidar_from_rectified = invert_pose(sequence.rectified_from_lidar())
        frames.append(frame_of(path, folder, projection, lidar_from_rectified, f"{name} of {calib}"))
    return tuple(frames)


def _when_and_where(sequence: Sequence, scan: str) -> tuple[int, Float64[Array, "4 4"]]:
    """Microseconds since the sequence began, and the LiDAR's pose in its own frame at the first scan; zeros where unknown."""
    number = int(scan) if scan.isdigit() else -1
    times, poses = (_rows(sequence.folder / name) for name in ("times.txt", "poses.txt"))
    time = round(float(times[number][0]) * 1e6) if 0 <= number < len(times) else 0
    if not 0 <= number < len(poses):
        return time, np.eye(4)
    tr = sequence.rectified_from_lidar()
    camera = np.vstack([poses[number].reshape(3, 4), (0, 0, 0, 1)])
    return time, invert_pose(tr) @ camera @ tr


def _rows(path: Path) -> Float64[Array, "n c"]:
    if not path.is_file():
        return np.zeros((0, 12))
    try:
        return np.loadtxt(path, ndmin=2)
    except (ValueError, OSError, UnicodeDecodeError):
        raise DataError(f"{path} is not rows of numbers.", "Copy it from the data set again.") from None


def _sequences(root: Path) -> list[Sequence]:
    if (root / "velodyne").is_dir():
        return [Sequence(root)]
    base = root / "sequences" if (root / "sequences").is_dir() else root
    return [Sequence(folder) for folder in sorted(base.iterdir()) if (folder / "velodyne").is_dir()]


def _matches(path: Path) -> bool:
    if not path.is_dir():
        return False
    inner = path / "sequences"
    if inner.is_dir():
        return any((folder / "velodyne").is_dir() for folder in inner.iterdir())
    return (path / "velodyne").is_dir() and (path / "calib.txt").is_file()


LAYOUT = Layout(
    name="semantickitti",
    looks_for="SemanticKITTI's sequences (sequences/XX/velodyne, or velodyne beside calib.txt)",
    matches=_matches,
    load=load,
    open=open_scans,
)
