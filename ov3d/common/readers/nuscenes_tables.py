"""The tables of nuScenes that a LiDAR keyframe needs, joined: no more is read, and large tables are read row by row.

    sample_data, sample, scene, calibrated_sensor, sensor, ego_pose; panoptic and lidarseg where they are there

`category.json` is only checked: see `ov3d.common.readers.nuscenes_categories`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Bool, Float64, Int64
from ov3d.common.readers.json_records import records
from ov3d.common.readers.nuscenes_categories import check_categories
from ov3d.common.readers.nuscenes_keyframes import (
    LIDAR,
    Columns,
    Keyframes,
    as_bytes,
    as_motions,
    as_numbers,
    keep_keyframes,
    kept_keyframes,
)

NEEDED = ("sensor", "calibrated_sensor", "scene", "sample", "sample_data", "ego_pose")
OPTIONAL = ("category", "panoptic", "lidarseg")

LARGE = 100_000_000
"""Bytes of tables from which on reading them is worth a word to the user."""

LARGEST = 1 << 62
"""Of the whole numbers that a table may hold."""

NAMED = 12
"""Dangling tokens that an error names; it counts all of them."""


class DanglingTokensError(DataError):
    """Tokens that lead nowhere; `tokens` holds all of them as (table, token)."""

    def __init__(self, folder: Path, found: Counter[tuple[str, str]]) -> None:
        named = [
            f"{table} {token}" + (f" ({count:,} rows)" if count > 1 else "")
            for (table, token), count in list(found.items())[:NAMED]
        ]
        more = f"; and {len(found) - NAMED:,} more" if len(found) > NAMED else ""
        count = "1 token leads" if len(found) == 1 else f"{len(found):,} tokens lead"
        super().__init__(
            f"{count} nowhere in the tables of {folder}: {'; '.join(named)}{more}.",
            "Copy all tables of one version again.",
        )
        self.tokens = tuple(found)


@dataclass(slots=True)
class _Rows:
    """What is kept of sample_data: one entry for each file of a keyframe from the LiDAR or a camera."""

    token: list[str] = field(default_factory=list)
    file: list[str] = field(default_factory=list)
    time: list[int] = field(default_factory=list)
    size: list[tuple[int, int]] = field(default_factory=list)
    calibration: list[int] = field(default_factory=list)
    sample: list[int] = field(default_factory=list)
    ego: list[int] = field(default_factory=list)


def read_keyframes(folder: Path, *, say: Callable[[str], None] | None = None) -> Keyframes:
    """All LiDAR keyframes of a version folder (`v1.0-mini`, ...), by drive and time; from the cache if it has them.

    Args:
        folder: of the tables.
        say: is told of tables that take a while to read.

    Raises:
        DataError: a table is missing or damaged, or contradicts itself.
        DanglingTokensError: tokens lead nowhere.
    """
    paths = {name: folder / f"{name}.json" for name in (*NEEDED, *OPTIONAL)}
    stats = {name: path.stat() for name, path in paths.items() if path.is_file()}
    tables = {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}
    keyframes = kept_keyframes(folder, tables)
    if keyframes is None:
        total = sum(size for size, _ in tables.values())
        if say is not None and total > LARGE:
            say(f"Reading {total / 1e9:.1f} GB of tables in {folder}; the next start will not have to.")
        keyframes = _joined(folder)
        keep_keyframes(folder, tables, keyframes)
    return keyframes


def _joined(folder: Path) -> Keyframes:
    check_categories(folder)
    dangling: Counter[tuple[str, str]] = Counter()
    sensors = {row["token"]: row["channel"] for row in _table(folder, "sensor", channel=str)}
    calibrations, channel_names, motions, intrinsics = _calibrations(folder, sensors, dangling)
    drives = {row["token"]: row["name"] for row in _table(folder, "scene", name=str)}
    samples, drive_names, times = _samples(folder, drives, dangling)
    egos: dict[str, int] = {}
    rows = _sample_data(folder, calibrations, samples, egos, dangling)
    poses = _egos(folder, egos, dangling)
    labels = {kind: _label_files(folder, kind, rows, channel_names, dangling) for kind in ("panoptic", "lidarseg")}
    if dangling:
        raise DanglingTokensError(folder, dangling)

    channels, channel = np.unique(np.array(channel_names, np.str_), return_inverse=True)
    names, drive = np.unique(np.array(drive_names, np.str_), return_inverse=True)
    calibration = np.array(rows.calibration, np.int64)
    is_lidar = (channels == LIDAR)[channel[calibration]]
    by_time, keyframe, order = _order(
        np.lexsort((np.array(times, np.int64), drive)), rows, channel[calibration], is_lidar
    )
    _check_unique(folder, keyframe, channel[calibration[order]], rows, order)
    lidar_tokens = [rows.token[row] for row in order[is_lidar[order]].tolist()]
    columns = Columns(
        drive=drive[by_time].astype(np.int32),
        number=_numbers(drive[by_time]).astype(np.int32),
        first=np.searchsorted(keyframe, np.arange(len(by_time) + 1)),
        token=as_bytes([rows.token[row] for row in order.tolist()]),
        file=as_bytes([rows.file[row] for row in order.tolist()]),
        time=np.array(rows.time, np.int64)[order],
        size=np.array(rows.size, np.int32).reshape(-1, 2)[order],
        channel=channel[calibration[order]].astype(np.int32),
        calibration=calibration[order].astype(np.int32),
        ego=poses[np.array(rows.ego, np.int64)[order]],
        mounting=motions,
        intrinsics=intrinsics,
        **{kind: as_bytes([files.get(token, "") for token in lidar_tokens]) for kind, files in labels.items()},
    )
    return Keyframes(columns, names.tolist(), channels.tolist())


def _order(
    samples: Int64[Array, " s"], rows: _Rows, channel: Int64[Array, " m"], is_lidar: Bool[Array, " m"]
) -> tuple[Int64[Array, " k"], Int64[Array, " j"], Int64[Array, " j"]]:
    """Which samples are keyframes with a sweep, in order; the keyframe of each of their files; and which rows those are.

    Args:
        samples: all samples, by drive and time.
        rows: files.
        channel, is_lidar: of each file.
    """
    sample = np.array(rows.sample, np.int64)
    with_sweep = np.zeros(len(samples), bool)
    with_sweep[sample[is_lidar]] = True
    kept = samples[with_sweep[samples]]
    place = np.full(len(samples), -1)
    place[kept] = np.arange(len(kept))
    order = np.lexsort((channel, place[sample]))
    order = order[place[sample[order]] >= 0]
    return kept, place[sample[order]], order


def _calibrations(
    folder: Path, sensors: Mapping[str, str], dangling: Counter[tuple[str, str]]
) -> tuple[dict[str, int], list[str], Float64[Array, "c 7"], Float64[Array, "c 3 3"]]:
    """Rows of the LiDAR's and cameras' calibrations by token (-1 for other sensors), their channels, poses and intrinsics."""
    place: dict[str, int] = {}
    channels: list[str] = []
    motions: list[list[float]] = []
    intrinsics: list[Any] = []
    for row in _table(folder, "calibrated_sensor", sensor_token=str, translation=list, rotation=list):
        channel = sensors.get(row["sensor_token"])
        if channel is None:
            dangling["sensor", row["sensor_token"]] += 1
        if channel is None or not (channel == LIDAR or channel.startswith("CAM_")):
            place[row["token"]] = -1
            continue
        place[row["token"]] = len(channels)
        channels.append(channel)
        motions.append([*row["translation"], *row["rotation"]])
        intrinsics.append(row.get("camera_intrinsic") or np.full((3, 3), np.nan).tolist())
    path = folder / "calibrated_sensor.json"
    return (
        place,
        channels,
        as_motions(motions, path),
        as_numbers(intrinsics, (3, 3), path, "an intrinsic matrix that is not 3x3"),
    )


def _samples(
    folder: Path, drives: Mapping[str, str], dangling: Counter[tuple[str, str]]
) -> tuple[dict[str, int], list[str], list[int]]:
    """Rows of samples by token, their drives and times."""
    place: dict[str, int] = {}
    names: list[str] = []
    times: list[int] = []
    for row in _table(folder, "sample", scene_token=str, timestamp=int):
        place[row["token"]] = len(names)
        if row["scene_token"] not in drives:
            dangling["scene", row["scene_token"]] += 1
        names.append(drives.get(row["scene_token"], ""))
        times.append(row["timestamp"])
    return place, names, times


def _sample_data(
    folder: Path,
    calibrations: Mapping[str, int],
    samples: Mapping[str, int],
    egos: dict[str, int],
    dangling: Counter[tuple[str, str]],
) -> _Rows:
    """Files of keyframes; fills `egos` with numbers for the tokens of ego poses that are needed."""
    rows = _Rows()
    types = {"sample_token": str, "ego_pose_token": str, "calibrated_sensor_token": str}
    for row in _table(folder, "sample_data", **types, timestamp=int, filename=str, is_key_frame=int):
        if not row["is_key_frame"]:
            continue
        calibration = calibrations.get(row["calibrated_sensor_token"])
        sample = samples.get(row["sample_token"])
        if calibration is None:
            dangling["calibrated_sensor", row["calibrated_sensor_token"]] += 1
        if sample is None:
            dangling["sample", row["sample_token"]] += 1
        if calibration is None or sample is None or calibration < 0:
            continue
        rows.token.append(row["token"])
        rows.file.append(row["filename"])
        rows.time.append(row["timestamp"])
        rows.size.append((_size(row.get("width")), _size(row.get("height"))))
        rows.calibration.append(calibration)
        rows.sample.append(sample)
        rows.ego.append(egos.setdefault(row["ego_pose_token"], len(egos)))
    return rows


def _size(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 16 else 0


def _egos(folder: Path, egos: Mapping[str, int], dangling: Counter[tuple[str, str]]) -> Float64[Array, "e 7"]:
    path = folder / "ego_pose.json"
    motions: list[Any] = [None] * len(egos)
    for row in _table(folder, "ego_pose", translation=list, rotation=list):
        place = egos.get(row["token"])
        if place is not None:
            motions[place] = (*row["translation"], *row["rotation"])
    dangling.update(("ego_pose", token) for token, place in egos.items() if motions[place] is None)
    return as_motions([one or (0.0,) * 6 + (1.0,) for one in motions], path)


def _label_files(
    folder: Path, kind: str, rows: _Rows, channels: Sequence[str], dangling: Counter[tuple[str, str]]
) -> dict[str, str]:
    """Label files by the tokens of their sweeps; empty if the table does not exist."""
    if not (folder / f"{kind}.json").is_file():
        return {}
    pairs = zip(rows.token, rows.calibration, strict=True)
    sweeps = {token for token, calibration in pairs if channels[calibration] == LIDAR}
    files = {}
    for row in _table(folder, kind, sample_data_token=str, filename=str):
        if row["sample_data_token"] not in sweeps:
            dangling[f"{kind}'s sample_data", row["sample_data_token"]] += 1
        files[row["sample_data_token"]] = row["filename"]
    return files


def _check_unique(
    folder: Path, keyframe: Int64[Array, " m"], channel: Int64[Array, " m"], rows: _Rows, order: Int64[Array, " m"]
) -> None:
    twice: Bool[Array, " _"] = (np.diff(keyframe) == 0) & (np.diff(channel) == 0)
    if twice.any():
        files = [rows.file[row] for row in order[np.flatnonzero(twice)[0] :][:2].tolist()]
        raise DataError(
            f"sample_data.json of {folder} gives one keyframe two files of one sensor: {' and '.join(files)}.",
            "Download the tables again.",
        )


def _numbers(drive: Int64[Array, " k"]) -> Int64[Array, " k"]:
    """0, 1, 2, ... within each run of equal numbers."""
    starts = np.flatnonzero(np.diff(drive, prepend=-1))
    return np.arange(len(drive)) - np.repeat(starts, np.diff(starts, append=len(drive)))


def _table(folder: Path, table: str, /, **needed: type) -> Iterator[dict[str, Any]]:
    """Rows of a table that have the members needed, each of its type."""
    path = folder / f"{table}.json"
    checked = (("token", str), *needed.items())
    for number, row in enumerate(records(path)):
        for key, kind in checked:
            value = row.get(key)
            if not isinstance(value, kind) or (isinstance(value, int) and abs(value) > LARGEST):
                raise DataError(f"Row {number} of {path} has no usable {key}.", "Download the tables again.")
        yield row
