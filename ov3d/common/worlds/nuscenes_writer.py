"""Write drives through generated streets in the layout of nuScenes, with lidarseg and panoptic truth.

VERSION/*.json                                    tables
samples/LIDAR_TOP/*.pcd.bin                       float32 x 5: x, y, z in the LiDAR's frame, intensity 0-255, ring
samples/CAM_*/*.jpg                               photographs
lidarseg/VERSION/TOKEN_lidarseg.bin               uint8, general class
panoptic/VERSION/TOKEN_panoptic.npz               `data`, uint16: general class * 1000 + instance, 0 for stuff
pixel_labels/STEM.png, pixel_labels/names.yaml    challenge class at each pixel of a photograph, 0 for sky
splits.json                                       names of scenes by split
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.files import write_bytes, write_text
from ov3d.common.base.progress import Progress, Silent
from ov3d.common.base.shapes import Array, Int32, Int64
from ov3d.common.worlds.moving_world import Thing
from ov3d.common.worlds.nuscenes_tables import (
    LIDAR,
    Capture,
    SweepFiles,
    add_drive,
    common_tables,
    log_token,
    logfile,
    pose_fields,
    sweep_token,
)
from ov3d.common.worlds.scannet_writer import png_bytes
from ov3d.common.worlds.street import Shot, StreetConfig, Sweep
from ov3d.common.worlds.street_classes import class_id, class_table
from ov3d.common.worlds.street_writing import (
    PIXEL_LABELS,
    SweepJob,
    built,
    class_ids,
    in_processes,
    jpeg_bytes,
    label_map,
    label_names,
    sweep_jobs,
)

DATASET = "nuscenes-panoptic"
MAX_INSTANCE = 999
VERSION = "v1.0-mini"
"""The official tools accept only known version names; generated data sets use that of the smallest."""


def write_nuscenes(
    folder: str | Path,
    splits: Mapping[str, Sequence[StreetConfig]],
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Write drives, which nuScenes calls scenes.

    Args:
        folder: the output folder; new or empty.
        splits: drives by the name of their split, with `rig="nuscenes"`; scenes are numbered in this order.
        workers: processes; their number does not affect the files.
        progress: receives progress per sweep.

    Returns:
        The folder.

    Raises:
        UsageError: no drives, or one with other sensors.
        DataError: the folder is not empty, or a drive has more objects of a class than the format can number.
        StorageError: the disk is full or the folder cannot be written.
    """
    folder = Path(folder)
    named = [(split, config) for split, configs in splits.items() for config in configs]
    drives = {f"scene-{k + 1:04d}": config for k, (_, config) in enumerate(named)}
    jobs = sweep_jobs(folder, drives, "nuscenes")
    files: dict[str, list[SweepFiles]] = {name: [] for name in drives}
    with (progress or Silent()).task(f"Driving through {folder.name}", len(jobs)) as task:
        for job, written in zip(jobs, in_processes(_write_sweep, jobs, workers), strict=True):
            files[job.drive].append(written)
            task.advance()
    write_text(folder / PIXEL_LABELS / "names.yaml", label_names(DATASET))
    members = {split: [n for n, (s, _) in zip(drives, named, strict=True) if s == split] for split in splits}
    write_text(folder / "splits.json", json.dumps(members, indent=1) + "\n")
    _write_tables(folder, drives, files)
    return folder


def _write_tables(folder: Path, drives: Mapping[str, StreetConfig], files: Mapping[str, Sequence[SweepFiles]]) -> None:
    first = built(next(iter(drives.values())))
    channels = [LIDAR, *(mount.name for mount in first.rig.cameras)]
    map_filename = "maps/street.png"
    write_bytes(folder / map_filename, png_bytes(np.zeros((8, 8), np.uint8)))  # the official tools check that it exists
    tables = common_tables(channels, map_filename, [log_token(name) for name in drives])
    for name, config in drives.items():
        add_drive(tables, name, built(config), files[name])
    for name, rows in tables.items():
        write_text(folder / VERSION / f"{name}.json", json.dumps(rows, indent=0) + "\n")


def instance_numbers(things: Sequence[Thing]) -> Int64[Array, " n"]:
    """The number of each object id within its challenge class, from 1; entry 0 (no object) is 0.

    The challenge counts adults and children as pedestrians, so they are numbered together.

    Raises:
        DataError: there are more objects than the format can number.
    """
    classes = class_ids(DATASET, "nuscenes")
    counts: Counter[int] = Counter()
    numbers = [0]
    for thing in things:
        challenge = classes[class_id(thing.name)]
        counts[challenge] += 1
        numbers.append(counts[challenge])
    if max(numbers) > MAX_INSTANCE:
        raise DataError(
            f"A drive has {max(numbers)} objects of one class; nuScenes numbers at most {MAX_INSTANCE}.",
            "Use a shorter drive or less traffic.",
        )
    return np.array(numbers, np.int64)


def _write_sweep(job: SweepJob) -> SweepFiles:
    drive, sweep = job.measure()
    folder, lidar = job.folder, sweep_token(job.drive, job.number)
    stem = f"{logfile(job.drive)}__{LIDAR}__{sweep.timestamp}"
    filename = f"samples/{LIDAR}/{stem}.pcd.bin"
    rows = np.column_stack([sweep.xyz, np.rint(255 * sweep.intensity), sweep.ring]).astype("<f4")
    write_bytes(folder / filename, rows.tobytes())
    general = class_table("nuscenes")[sweep.labels]
    lidarseg = f"lidarseg/{VERSION}/{lidar}_lidarseg.bin"
    write_bytes(folder / lidarseg, general.astype(np.uint8).tobytes())
    panoptic = f"panoptic/{VERSION}/{lidar}_panoptic.npz"
    numbers = instance_numbers(drive.world.things)[np.maximum(sweep.instances, 0)]
    stream = io.BytesIO()
    np.savez_compressed(stream, data=(1000 * general + numbers).astype(np.uint16))
    write_bytes(folder / panoptic, stream.getvalue())
    translation, rotation = pose_fields(sweep.world_from_ego)
    captures = [Capture(LIDAR, sweep.timestamp, filename, translation, rotation)]
    captures += [_write_shot(folder, job.drive, shot) for shot in sweep.shots]
    return SweepFiles(tuple(captures), _seen(sweep), lidarseg, panoptic)


def _write_shot(folder: Path, drive: str, shot: Shot) -> Capture:
    channel, camera = shot.mount.name, shot.mount.camera
    stem = f"{logfile(drive)}__{channel}__{shot.timestamp}"
    filename = f"samples/{channel}/{stem}.jpg"
    write_bytes(folder / filename, jpeg_bytes(shot.view.rgb))
    write_bytes(folder / PIXEL_LABELS / f"{stem}.png", png_bytes(label_map(shot.view, DATASET, "nuscenes")))
    translation, rotation = pose_fields(shot.world_from_ego)
    return Capture(channel, shot.timestamp, filename, translation, rotation, camera.width, camera.height)


def _seen(sweep: Sweep) -> tuple[tuple[int, int], ...]:
    ids: Int32[Array, " n"] = sweep.instances[sweep.instances > 0]
    instances, counts = np.unique(ids, return_counts=True)
    return tuple(zip(instances.tolist(), counts.tolist(), strict=True))
