"""nuScenes in its official layout: every LiDAR keyframe is a scene of one sweep and its photographs.

    ROOT/v1.0-*/*.json      tables; see `ov3d.common.readers.nuscenes_tables`
    ROOT/samples/…          LIDAR_TOP/*.pcd.bin (fp32 x 5: x, y, z, intensity, ring), CAM_*/*.jpg
    ROOT/panoptic/…, ROOT/lidarseg/…    labels, where their packages are installed

Points are in the LiDAR's frame at the time of the sweep. Poses of the photographs take the car's motion between sweep and
photograph into account. OpenCV's calibration puts whole numbers on pixel centres, ours lie at +0.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ov3d.common.base.errors import DataError
from ov3d.common.datasets import load_dataset
from ov3d.common.datasets.nuscenes_splits import scenes_of_split, split_names
from ov3d.common.readers.layout import Layout
from ov3d.common.readers.nuscenes_tables import Keyframe, SensorData, read_keyframes
from ov3d.common.readers.sweep_labels import class_names, read_lidarseg, read_nuscenes_panoptic, scene_labels
from ov3d.common.readers.sweep_points import SweepPoints, read_sweep
from ov3d.common.scenes.cameras import Camera, invert_pose
from ov3d.common.scenes.scene import Frame, LazyScenes, PointCloud, Scene
from ov3d.common.scenes.sweep import Sweep

COLUMNS = 5
DATASET = "nuscenes-panoptic"


def open_keyframes(root: Path) -> LazyScenes:
    """All keyframes of a data set, each read when it is asked for; splits are those of the drives.

    Raises:
        DataError: no tables, several versions, or tables with a fault.
    """
    folder = _version_folder(root)
    keyframes = {frame.name: frame for frame in read_keyframes(folder)}
    if not keyframes:
        raise DataError(f"{folder} lists no LiDAR keyframe.", "Check that the tables are complete.")
    return LazyScenes(
        tuple(keyframes), lambda name: load_keyframe(root, keyframes[name]), _splits(folder.name, keyframes)
    )


def load(path: Path) -> Scene:
    """The one keyframe of a data set that has just one.

    Raises:
        DataError: it has several.
    """
    source = open_keyframes(path)
    if len(source) != 1:
        raise DataError(f"{path} holds {len(source):,} keyframes ({source.ids[0]}, …).", "Open it as a data set.")
    return source[0]


def load_keyframe(root: Path, keyframe: Keyframe) -> Scene:
    """A sweep, its photographs and its labels.

    Args:
        root: of the data set.
        keyframe: from `read_keyframes`.

    Raises:
        DataError: the sweep or its labels cannot be read. Photographs that are missing are left out and named in a note.
    """
    lidar = keyframe.lidar
    points = read_sweep(root / lidar.file, columns=COLUMNS)
    spec = load_dataset(DATASET)
    labels = instances = None
    if keyframe.panoptic is not None:
        file = root / keyframe.panoptic
        raw, numbers = read_nuscenes_panoptic(file, points.num_rows)
        labels, instances = scene_labels(spec, points.kept(raw), points.kept(numbers), file)
    elif keyframe.lidarseg is not None:
        file = root / keyframe.lidarseg
        labels, instances = scene_labels(spec, points.kept(read_lidarseg(file, points.num_rows)), None, file)
    frames, missing = _frames(root, keyframe)
    notes = [points.note] if points.note else []
    if missing:
        notes.append(f"{len(missing)} of {len(keyframe.cameras)} photographs are not there: {', '.join(missing)}")
    return Scene(
        name=keyframe.name,
        path=root,
        layout=LAYOUT.name,
        frames=frames,
        cloud=PointCloud(points.xyz, None, labels, instances, points.intensity),
        classes=class_names(spec) if labels is not None else (),
        notes=tuple(notes),
        sweep=_sweep(keyframe, points, frames),
    )


def _sweep(keyframe: Keyframe, points: SweepPoints, frames: tuple[Frame, ...]) -> Sweep:
    lidar, names = keyframe.lidar, {frame.name for frame in frames}
    return Sweep(
        token=lidar.token,
        sequence=keyframe.scene,
        time=lidar.time,
        global_from_lidar=lidar.global_from_ego @ lidar.ego_from_sensor,
        camera_times={data.channel: data.time for data in keyframe.cameras if data.channel in names},
        file_rows=points.rows,
        num_file_rows=points.num_rows,
    )


def _frames(root: Path, keyframe: Keyframe) -> tuple[tuple[Frame, ...], list[str]]:
    lidar_from_global = invert_pose(keyframe.lidar.global_from_ego @ keyframe.lidar.ego_from_sensor)
    frames, missing = [], []
    for data in keyframe.cameras:
        if not (root / data.file).is_file():
            missing.append(data.channel)
            continue
        # Equation (1) of nuscenes_tables, from the camera's end.
        pose = lidar_from_global @ data.global_from_ego @ data.ego_from_sensor
        frames.append(Frame(data.channel, root / data.file, _camera(data), pose))
    return tuple(frames), missing


def _camera(data: SensorData) -> Camera:
    if data.intrinsics is None:
        raise DataError(f"Camera {data.channel} has no intrinsics in calibrated_sensor.json.", "Download it again.")
    k = data.intrinsics
    return Camera(*data.size, float(k[0, 0]), float(k[1, 1]), float(k[0, 2]) + 0.5, float(k[1, 2]) + 0.5)


def _splits(version: str, keyframes: Mapping[str, Keyframe]) -> dict[str, tuple[str, ...]]:
    found = {}
    for split in split_names(version):
        drives = scenes_of_split(version, split)
        ids = tuple(name for name, frame in keyframes.items() if frame.scene in drives)
        if ids:
            found[split] = ids
    return found


def _version_folder(root: Path) -> Path:
    found = _version_folders(root)
    if len(found) != 1:
        names = ", ".join(folder.name for folder in found) or "none"
        raise DataError(
            f"{root} should hold the tables of one version (v1.0-mini, ...), it holds: {names}.", "Move the others."
        )
    return found[0]


def _version_folders(root: Path) -> list[Path]:
    return [folder for folder in sorted(root.glob("v1.0*")) if (folder / "sample_data.json").is_file()]


def _matches(path: Path) -> bool:
    return path.is_dir() and bool(_version_folders(path))


LAYOUT = Layout(
    name="nuscenes",
    looks_for="nuScenes' tables (v1.0-*/sample_data.json)",
    matches=_matches,
    load=load,
    open=open_keyframes,
)
