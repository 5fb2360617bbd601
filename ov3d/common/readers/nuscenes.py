"""nuScenes in its official layout: every LiDAR keyframe is a scene of one sweep and its photographs.

    ROOT/v1.0-*/*.json                  tables; see `ov3d.common.readers.nuscenes_tables`
    ROOT/samples/…                      LIDAR_TOP/*.pcd.bin (fp32 x 5: x, y, z, intensity, ring), CAM_*/*.jpg
    ROOT/panoptic/…, ROOT/lidarseg/…    labels, where their packages are installed
    ROOT/splits.json                    optional: names of drives by split, beside the official splits

Points are in the LiDAR's frame at the time of the sweep. The pose of a photograph takes into account that the car has moved
between the two (Caesar et al., *nuScenes*, CVPR 2020):

    lidar -> ego at the sweep -> global -> ego at the photograph -> camera                                          (1)

OpenCV's calibration puts whole numbers on pixel centres, ours lie at +0.5.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ov3d.common.base.errors import DataError, did_you_mean
from ov3d.common.base.shapes import Array, Float64, Int32
from ov3d.common.datasets import load_dataset
from ov3d.common.datasets.nuscenes_splits import scenes_of_split, split_names
from ov3d.common.readers.layout import Layout
from ov3d.common.readers.nuscenes_keyframes import Keyframe, Keyframes, SensorData
from ov3d.common.readers.nuscenes_tables import read_keyframes
from ov3d.common.readers.posed import same_shape
from ov3d.common.readers.sweep_labels import class_names, read_lidarseg, read_nuscenes_panoptic, scene_labels
from ov3d.common.readers.sweep_photographs import usable
from ov3d.common.readers.sweep_points import SweepPoints, read_sweep
from ov3d.common.scenes.cameras import Camera, invert_pose
from ov3d.common.scenes.images import ImageHeader
from ov3d.common.scenes.scene import Frame, LazyScenes, PointCloud, Scene
from ov3d.common.scenes.sweep import Sweep

COLUMNS = 5
DATASET = "nuscenes-panoptic"

SPLITS = "splits.json"
"""Beside the tables or in the data set's folder: names of drives by split."""


def open_keyframes(path: Path, say: Callable[[str], None] | None = None) -> LazyScenes:
    """All keyframes of a data set, each read when it is asked for; splits are those of the drives.

    Args:
        path: of the data set, or the folder of one version's tables in it.
        say: is told of tables that take a while to read.

    Raises:
        DataError: no tables, several versions, or tables with a fault.
    """
    folder = _version_folder(path)
    keyframes = read_keyframes(folder, say=say)
    if not len(keyframes):
        raise DataError(f"{folder} lists no LiDAR keyframe.", "Check that the tables are complete.")
    names = keyframes.names()
    place = {name: number for number, name in enumerate(names)}
    return LazyScenes(
        names,
        lambda name: load_keyframe(path, folder.parent, keyframes[place[name]]),
        _splits(folder, names, keyframes),
    )


def load_keyframe(path: Path, root: Path, keyframe: Keyframe) -> Scene:
    """A sweep, its photographs and its labels.

    Args:
        path: what was opened.
        root: of the data set.
        keyframe: from `read_keyframes`.

    Raises:
        DataError: the sweep or its labels cannot be read. Photographs that are missing or broken are left out with a note.
    """
    points = read_sweep(root / keyframe.lidar.file, columns=COLUMNS)
    labels, instances = _labels(root, keyframe, points)
    frames, notes = _frames(root, keyframe)
    return Scene(
        name=keyframe.name,
        path=path,
        layout=LAYOUT.name,
        frames=frames,
        cloud=PointCloud(points.xyz, None, labels, instances, points.intensity),
        classes=class_names(load_dataset(DATASET)) if labels is not None else (),
        notes=(*points.notes, *notes),
        sweep=_sweep(keyframe, points, frames),
    )


def _labels(
    root: Path, keyframe: Keyframe, points: SweepPoints
) -> tuple[Int32[Array, " n"] | None, Int32[Array, " n"] | None]:
    """Classes and objects of the panoptic package, else the classes of lidarseg, else nothing."""
    spec = load_dataset(DATASET)
    if keyframe.panoptic is not None:
        file = root / keyframe.panoptic
        raw, numbers = read_nuscenes_panoptic(file, points.num_rows)
        return scene_labels(spec, points.kept(raw), points.kept(numbers), file)
    if keyframe.lidarseg is not None:
        file = root / keyframe.lidarseg
        return scene_labels(spec, points.kept(read_lidarseg(file, points.num_rows)), None, file)
    return None, None


def _sweep(keyframe: Keyframe, points: SweepPoints, frames: tuple[Frame, ...]) -> Sweep:
    used = {frame.name for frame in frames}
    return Sweep(
        token=keyframe.lidar.token,
        sequence=keyframe.drive,
        time=keyframe.lidar.time,
        global_from_lidar=_global_from(keyframe.lidar),
        camera_times={data.channel: data.time for data in keyframe.cameras if data.channel in used},
        file_rows=points.rows,
        num_file_rows=points.num_rows,
    )


def _frames(root: Path, keyframe: Keyframe) -> tuple[tuple[Frame, ...], list[str]]:
    paths = {data.channel: root / data.file for data in keyframe.cameras}
    headers, notes = usable(paths, keyframe.name)
    lidar_from_global = invert_pose(_global_from(keyframe.lidar))
    frames = tuple(
        # Equation (1), from the camera's end.
        Frame(
            name=data.channel,
            image_path=paths[data.channel],
            camera=_camera(data, headers[data.channel], paths[data.channel]),
            world_from_camera=lidar_from_global @ _global_from(data),
        )
        for data in keyframe.cameras
        if data.channel in headers
    )
    return frames, notes


def _global_from(data: SensorData) -> Float64[Array, "4 4"]:
    return data.global_from_ego @ data.ego_from_sensor


def _camera(data: SensorData, header: ImageHeader, path: Path) -> Camera:
    """The camera of a photograph, resized with it where the file has been made smaller since."""
    k = data.intrinsics
    if k is None:
        raise DataError(f"Camera {data.channel} has no intrinsics in calibrated_sensor.json.", "Download it again.")
    width, height = data.size if all(data.size) else header.size
    camera = Camera(width, height, float(k[0, 0]), float(k[1, 1]), float(k[0, 2]) + 0.5, float(k[1, 2]) + 0.5)
    if header.size == (width, height):
        return camera
    if not same_shape(header.size, (width, height)):
        raise DataError(
            f"Image {path} is {header.size[0]}x{header.size[1]}, its intrinsics are for {width}x{height}.",
            "Resize it without cropping.",
        )
    return camera.resized(*header.size)


def _splits(folder: Path, names: tuple[str, ...], keyframes: Keyframes) -> dict[str, tuple[str, ...]]:
    """Keyframes of the official splits, and of those in splits.json, which go first."""
    version, drives = folder.name, keyframes.drive_of_each()
    members = {split: scenes_of_split(version, split) for split in split_names(version)}
    for path in (folder.parent / SPLITS, folder / SPLITS):
        members |= _own_splits(path, keyframes.drives)
    found = {
        split: tuple(name for name, drive in zip(names, drives, strict=True) if drive in inside)
        for split, inside in members.items()
    }
    return {split: ids for split, ids in found.items() if ids}


def _own_splits(path: Path, drives: tuple[str, ...]) -> dict[str, frozenset[str]]:
    """Drives by the name of a split, from a file of the user's."""
    if not path.is_file():
        return {}
    try:
        found = {str(split): frozenset(map(str, listed)) for split, listed in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        raise DataError(f"{path} is not a JSON object of lists of drives.", 'As {"train": ["scene-0001"]}.') from None
    for split, listed in found.items():
        for drive in sorted(listed - set(drives)):
            raise DataError(
                f"Split {split} of {path} names {drive!r}, which it does not hold.", did_you_mean(drive, drives)
            )
    return found


def _version_folder(path: Path) -> Path:
    found = _version_folders(path)  # one at least, as the layout matched
    if len(found) > 1:
        names = ", ".join(folder.name for folder in found)
        raise DataError(f"{path} holds the tables of several versions: {names}.", f"Name one of them: {found[0]}")
    return found[0]


def _version_folders(path: Path) -> list[Path]:
    """Folders of tables: the path itself, or those in it."""
    if (path / "sample_data.json").is_file():
        return [path]
    return [folder for folder in sorted(path.glob("v1.0*")) if (folder / "sample_data.json").is_file()]


LAYOUT = Layout(
    name="nuscenes",
    looks_for="nuScenes' tables (v1.0-*/sample_data.json)",
    matches=lambda path: path.is_dir() and bool(_version_folders(path)),
    open=open_keyframes,
)
