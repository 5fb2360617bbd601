"""Shared by the writers of streets: measuring sweeps in several processes, images as bytes, label maps of pixels."""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.shapes import Array, Float64, UInt8
from ov3d.common.datasets import load_dataset
from ov3d.common.scenes.cameras import Camera
from ov3d.common.scenes.scene import IGNORE
from ov3d.common.worlds.raycast import View
from ov3d.common.worlds.street import Drive, Rig, StreetConfig, Sweep, build_drive
from ov3d.common.worlds.street_classes import class_table

R = TypeVar("R")

PIXEL_LABELS = "pixel_labels"
"""Folder of the label maps of the photographs, as the teacher `labels:DIR` reads it."""

_SWEEPS_AT_ONCE = 4
"""Jobs given to a process at once, so that it seldom has to draw another street."""


@dataclass(frozen=True, slots=True)
class SweepJob:
    """One sweep to measure and write.

    Attributes:
        folder: root of the data set.
        drive: name of the drive in it.
        config: the drive.
        number: the sweep.
    """

    folder: Path
    drive: str
    config: StreetConfig
    number: int

    def measure(self) -> tuple[Drive, Sweep]:
        """The drive, and the sweep with its photographs."""
        drive = built(self.config)
        return drive, drive.sweep(self.number)


@lru_cache(maxsize=4)
def built(config: StreetConfig) -> Drive:
    """`build_drive`, cached."""
    return build_drive(config)


def sweep_jobs(folder: Path, drives: dict[str, StreetConfig], rig: Rig) -> list[SweepJob]:
    """The sweeps of some drives in order.

    Raises:
        DataError: the folder is not empty.
        UsageError: no drives, or a vehicle with the sensors of another data set.
    """
    if not drives:
        raise UsageError("No drives given.", "Give at least one StreetConfig.")
    for name, config in drives.items():
        if config.rig != rig:
            raise UsageError(f"Drive {name} has the sensors of {config.rig}, not of {rig}.", f"Set rig={rig!r}.")
    if folder.is_dir() and any(folder.iterdir()):
        raise DataError(f"{folder} is not empty.", "Choose an empty folder.")
    return [SweepJob(folder, name, config, k) for name, config in drives.items() for k in range(config.num_sweeps)]


def in_processes(write: Callable[[SweepJob], R], jobs: Sequence[SweepJob], workers: int) -> Iterator[R]:
    """The result of `write` for each job, in order; it must be a module-level function, and jobs must not share files."""
    if workers < 1:
        raise UsageError(f"workers must be at least 1, got {workers}.")
    if workers == 1 or len(jobs) < 2:
        yield from map(write, jobs)
        return
    # Spawned processes import this module afresh and inherit none of the caller's threads or locks.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
        yield from pool.map(write, jobs, chunksize=_SWEEPS_AT_ONCE)


def label_map(view: View, dataset: str, field: str) -> UInt8[Array, "h w"]:
    """Class ids of a data set at the pixels of a view, 0 for empty pixels.

    Args:
        view: its labels are indices into `STREET_CLASSES`.
        dataset: the data set whose ids to use.
        field: field of `StreetClass` with the ids of that data set's truth files.
    """
    table = np.array([*class_ids(dataset, field), 0], np.uint8)
    return table[np.where(view.labels == IGNORE, len(table) - 1, view.labels)]


@lru_cache(maxsize=4)
def class_ids(dataset: str, field: str) -> tuple[int, ...]:
    """Class ids of a data set for every label; arguments as for `label_map`."""
    truth_ids = load_dataset(dataset).truth_ids
    return tuple(truth_ids[int(raw)] or 0 for raw in class_table(field))


def label_names(dataset: str) -> str:
    """The names file beside such label maps."""
    return f"dataset: {dataset}\n"


def written_matrix(camera: Camera) -> Float64[Array, "3 3"]:
    """K as both data sets write it, with pixel centres at whole numbers; ours are at +0.5."""
    matrix = camera.matrix
    matrix[:2, 2] -= 0.5
    return matrix


def jpeg_bytes(image: UInt8[Array, "h w 3"]) -> bytes:
    """A photograph as a JPEG file's bytes."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="JPEG", quality=92)
    return stream.getvalue()
