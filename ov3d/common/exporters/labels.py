"""Labels of LiDAR sweeps in the formats that the official tools of each data set take as predictions.

    semantickitti        ROOT/sequences/XX/predictions/N.label     u32: raw class + instance x 65,536
    nuscenes-panoptic    ROOT/panoptic/SPLIT/TOKEN_panoptic.npz    `data`, u16: challenge class x 1000 + instance
    nuscenes-lidarseg    ROOT/lidarseg/SPLIT/TOKEN_lidarseg.bin    u8: challenge class
    both of nuScenes     ROOT/SPLIT/submission.json                what predictions were made from

A file has a label for every point of the sweep's file: those that the reader dropped get the ignored class. Stuff has
instance 0, as any other number would split it into segments; so have points of things that belong to no object.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.files import atomic_write, write_bytes, write_text
from ov3d.common.base.shapes import Array, Int32, Int64, Integer
from ov3d.common.datasets import DatasetSpec
from ov3d.common.readers.sweep_labels import NUSCENES_FACTOR, class_names, scored_classes
from ov3d.common.scenes.sweep import MOST_OBJECTS, OBJECT_BITS, Sweep, object_numbers

Task = Literal["segmentation", "tracking"]


@dataclass(frozen=True, slots=True)
class _Format:
    """One way to pack labels: class times `class_step` plus instance times `instance_step`."""

    place: str
    dtype: str
    class_step: int
    instance_step: int
    most_instances: int


FORMATS = {
    "semantickitti": _Format(
        "sequences/{sequence}/predictions/{token}.label", "<u4", 1, 1 << OBJECT_BITS, MOST_OBJECTS
    ),
    "nuscenes-panoptic": _Format(
        "panoptic/{split}/{token}_panoptic.npz", "<u2", NUSCENES_FACTOR, 1, NUSCENES_FACTOR - 1
    ),
    "nuscenes-lidarseg": _Format("lidarseg/{split}/{token}_lidarseg.bin", "u1", 1, 0, 0),
}
"""Formats by the `layout` of a data set."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What predictions were made from, as nuScenes' server wants to know: kinds of data, and data from elsewhere."""

    use_camera: bool = False
    use_lidar: bool = True
    use_radar: bool = False
    use_map: bool = False
    use_external: bool = False


def write_sweep_labels(
    spec: DatasetSpec,
    root: Path,
    sweep: Sweep,
    labels: Int32[Array, " n"],
    instances: Int32[Array, " n"] | None = None,
    *,
    split: str | None = None,
) -> Path:
    """Write the predictions for one sweep where the official tool looks for them.

    Args:
        spec: the data set.
        root: folder of the results.
        sweep: which one, and which rows of its file the points are.
        labels: class ids of a scene of that data set, `IGNORE` for points of no class.
        instances: ids of objects, negative for points without one; None means no objects. Ids of `object_ids` keep their
            numbers where the format holds them; any others are numbered anew, from 1 within each class.
        split: of nuScenes; names a folder.

    Returns:
        The file.

    Raises:
        UsageError: the data set has no label files of sweeps, or needs a split.
        DataError: labels do not fit the sweep or the data set, a class has more objects than the format holds, or points have
            no class where the official tool refuses that.
        StorageError: the file cannot be written; an older one is untouched.
    """
    form = FORMATS.get(spec.layout)
    if form is None:
        raise UsageError(f"{spec.title} has no label files of sweeps.", f"These layouts have: {', '.join(FORMATS)}.")
    if split is None and "{split}" in form.place:
        raise UsageError(
            f"Predictions for {spec.title} lie in a folder named after the split.", "Name it: train, val, …"
        )
    _check(spec, sweep, labels)
    ignored = 0 if spec.ignored_class is None else spec.written_id(spec.ignored_class)
    ids = np.array([*map(spec.written_id, scored_classes(spec)), ignored], np.int64)  # IGNORE takes the last
    packed = ids[labels] * form.class_step
    if form.instance_step and instances is not None:
        packed += _numbers(spec, sweep, labels, instances, form.most_instances) * form.instance_step
    if sweep.file_rows is not None:
        whole = np.full(sweep.num_file_rows, ignored * form.class_step)
        whole[sweep.file_rows] = packed
        packed = whole
    _check_complete(spec, sweep, packed)
    path = root / form.place.format(sequence=sweep.sequence, token=sweep.token, split=split)
    return _write(path, packed.astype(form.dtype))


def write_submission(
    spec: DatasetSpec, root: Path, *, split: str, inputs: Inputs = Inputs(), task: Task = "segmentation"
) -> Path:
    """Write the `submission.json` of results for nuScenes; returns its path.

    Args:
        spec: the data set.
        root: folder of the results.
        split: of nuScenes.
        inputs: what the predictions were made from.
        task: of Panoptic nuScenes.

    Raises:
        UsageError: the data set has no such file.
        StorageError: it cannot be written.
    """
    if spec.layout not in ("nuscenes-panoptic", "nuscenes-lidarseg"):
        raise UsageError(f"{spec.title} has no submission.json.", "Only nuScenes has.")
    meta = {"task": task, **asdict(inputs)} if spec.layout == "nuscenes-panoptic" else asdict(inputs)
    return write_text(root / split / "submission.json", json.dumps({"meta": meta}, indent=2) + "\n")


def _check(spec: DatasetSpec, sweep: Sweep, labels: Int32[Array, " n"]) -> None:
    """See that there is one label for each point, and that each is a class."""
    expected = (sweep.num_file_rows or len(labels)) if sweep.file_rows is None else len(sweep.file_rows)
    if len(labels) != expected:
        raise DataError(f"There are {len(labels):,} labels for the {expected:,} points of sweep {sweep.token}.")
    last = len(scored_classes(spec)) - 1
    if len(labels) and not -1 <= int(labels.min()) <= int(labels.max()) <= last:
        raise DataError(
            f"Labels of sweep {sweep.token} reach from {labels.min()} to {labels.max()}; {spec.title} has classes 0 to {last}."
        )


def _check_complete(spec: DatasetSpec, sweep: Sweep, packed: Int64[Array, " m"]) -> None:
    """See that every point has a class where predictions must give them all one."""
    missing = int((packed == 0).sum()) if 0 not in (spec.prediction_ids or spec.truth_ids) else 0
    if missing:
        raise DataError(
            f"{missing:,} of {len(packed):,} points of sweep {sweep.token} have no class; the official tool of {spec.title} "
            "refuses such predictions.",
            "Give every point a class, those without finite coordinates too.",
        )


def _numbers(
    spec: DatasetSpec, sweep: Sweep, labels: Int32[Array, " n"], instances: Int32[Array, " n"], most: int
) -> Int64[Array, " n"]:
    """The instance number of each point: 1 and more for objects of things, 0 elsewhere."""
    things = np.array([idx in spec.things for idx in scored_classes(spec)] + [False])  # IGNORE takes the last
    owned = np.flatnonzero(things[labels] & (instances >= 0))
    numbers = np.zeros(len(labels), np.int64)
    if not len(owned):
        return numbers
    label, instance = labels[owned].astype(np.int64), instances[owned].astype(np.int64)
    given = object_numbers(instances[owned])
    if (instance >> OBJECT_BITS == label).all() and given.min() >= 1 and given.max() <= most:
        numbers[owned] = given
        return numbers
    objects, which = np.unique(label << 32 | instance, return_inverse=True)
    number = _within_class(objects >> 32)
    if number.max() > most:
        name = class_names(spec)[objects[number.argmax()] >> 32]
        raise DataError(
            f"Sweep {sweep.token} has {number.max():,} objects of {name}; a file for {spec.title} holds at most {most:,}.",
            "Drop the smallest, or join those that belong together.",
        )
    numbers[owned] = number[which]
    return numbers


def _within_class(label: Integer[Array, " k"]) -> Int64[Array, " k"]:
    """1, 2, 3, ... within each run of equal numbers."""
    starts = np.flatnonzero(np.diff(label, prepend=-1))
    return np.arange(1, len(label) + 1) - np.repeat(starts, np.diff(starts, append=len(label)))


def _write(path: Path, packed: Integer[Array, " m"]) -> Path:
    if path.suffix != ".npz":
        return write_bytes(path, packed.tobytes())
    with atomic_write(path) as stream:
        np.savez_compressed(stream, data=packed)
    return path
