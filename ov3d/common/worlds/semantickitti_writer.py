"""Write drives through generated streets in the layout of SemanticKITTI.

sequences/XX/velodyne/NNNNNN.bin      float32 x 4: x, y, z in the LiDAR's frame, intensity 0-1
sequences/XX/labels/NNNNNN.label      uint32: raw class, and the object id in the high 16 bits
sequences/XX/image_2/NNNNNN.png       photographs
sequences/XX/{calib,poses,times}.txt  P0-P3 and Tr; poses of camera 0 in the frame of its first; seconds
pixel_labels/XX/NNNNNN/image_2.png    class at each pixel, 0 for sky; names in pixel_labels/names.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.files import write_bytes, write_text
from ov3d.common.base.progress import Progress, Silent
from ov3d.common.base.shapes import Array, Float64, UInt32
from ov3d.common.scenes.cameras import invert_pose
from ov3d.common.worlds.scannet_writer import png_bytes
from ov3d.common.worlds.street import Drive, StreetConfig, Sweep
from ov3d.common.worlds.street_classes import class_table
from ov3d.common.worlds.street_writing import (
    PIXEL_LABELS,
    SweepJob,
    built,
    in_processes,
    label_map,
    label_names,
    sweep_jobs,
    written_matrix,
)

DATASET = "semantickitti"
MAX_INSTANCE = 65535

_BASELINES = (0.0, -0.54, 0.06, -0.48)
"""x of camera 0 in the frame of cameras 0 to 3, metres: 2 is the colour camera on its left."""


def write_semantickitti(
    folder: str | Path, sequences: Mapping[str, StreetConfig], *, workers: int = 1, progress: Progress | None = None
) -> Path:
    """Write drives, which SemanticKITTI calls sequences.

    Args:
        folder: the output folder; new or empty.
        sequences: drives by their two-digit names, with `rig="semantickitti"`; the official split trains on 00-07, 09 and 10
            and validates on 08.
        workers: processes; their number does not affect the files.
        progress: receives progress per sweep.

    Returns:
        The folder.

    Raises:
        UsageError: no drives, or one with other sensors.
        DataError: the folder is not empty, or a drive has more objects than the format can number.
        StorageError: the disk is full or the folder cannot be written.
    """
    folder = Path(folder)
    jobs = sweep_jobs(folder, dict(sequences), "semantickitti")
    for name, config in sequences.items():
        num_things = len(built(config).world.things)
        if num_things > MAX_INSTANCE:
            raise DataError(
                f"Drive {name} has {num_things} objects; SemanticKITTI numbers at most {MAX_INSTANCE}.",
                "Use a shorter drive or less traffic.",
            )
        _write_facts(folder / "sequences" / name, built(config))
    with (progress or Silent()).task(f"Driving through {folder.name}", len(jobs)) as task:
        for _ in in_processes(_write_sweep, jobs, workers):
            task.advance()
    write_text(folder / PIXEL_LABELS / "names.yaml", label_names(DATASET))
    return folder


def packed_labels(drive: Drive, sweep: Sweep) -> UInt32[Array, " n"]:
    """Raw class in the low 16 bits, object id in the high ones; moving objects have their own classes."""
    moves = np.array([False, *(thing.motion.moves for thing in drive.world.things)])
    objects = np.maximum(sweep.instances, 0)
    raw = np.where(moves[objects], class_table("kitti_moving")[sweep.labels], class_table("kitti")[sweep.labels])
    return (raw + (objects.astype(np.int64) << 16)).astype(np.uint32)


def _camera_0_from(camera_2: Float64[Array, "4 4"]) -> Float64[Array, "4 4"]:
    """The pose of camera 0 from that of camera 2."""
    offset = np.eye(4)
    offset[0, 3] = _BASELINES[2]
    return camera_2 @ offset


def _write_facts(folder: Path, drive: Drive) -> None:
    mount = drive.rig.cameras[0]
    lines = []
    for number, baseline in enumerate(_BASELINES):
        view = np.eye(4)[:3]
        view[0, 3] = baseline
        lines.append(f"P{number}: {_numbers(written_matrix(mount.camera) @ view)}")
    ego_from_camera = _camera_0_from(mount.ego_from_camera)
    lines.append(f"Tr: {_numbers((invert_pose(ego_from_camera) @ drive.rig.ego_from_lidar)[:3])}")
    write_text(folder / "calib.txt", "\n".join(lines) + "\n")
    stamps = [drive.timestamp(number) for number in range(drive.config.num_sweeps)]
    poses = [drive.world_from_ego(stamp) @ ego_from_camera for stamp in stamps]
    first = invert_pose(poses[0])
    write_text(folder / "poses.txt", "".join(f"{_numbers((first @ pose)[:3])}\n" for pose in poses))
    write_text(folder / "times.txt", "".join(f"{(stamp - stamps[0]) / 1e6:.6e}\n" for stamp in stamps))


def _numbers(matrix: Float64[Array, "3 4"]) -> str:
    return " ".join(repr(float(value)) for value in matrix.reshape(-1))


def _write_sweep(job: SweepJob) -> None:
    drive, sweep = job.measure()
    sequence, stem = job.folder / "sequences" / job.drive, f"{job.number:06d}"
    rows = np.column_stack([sweep.xyz, sweep.intensity]).astype("<f4")
    write_bytes(sequence / "velodyne" / f"{stem}.bin", rows.tobytes())
    write_bytes(sequence / "labels" / f"{stem}.label", packed_labels(drive, sweep).astype("<u4").tobytes())
    for shot in sweep.shots:
        name = shot.mount.name
        write_bytes(sequence / name / f"{stem}.png", png_bytes(shot.view.rgb))
        labels = png_bytes(label_map(shot.view, DATASET, "kitti"))
        write_bytes(job.folder / PIXEL_LABELS / job.drive / stem / f"{name}.png", labels)
