"""S3DIS rooms: one text file per object, with the photographs of 2D-3D-S if present.

    Area_k/ROOM/Annotations/<class>_<n>.txt     rows x y z r g b; metres, colours 0 to 255
    area_k/data/{pose,rgb,depth}/…              2D-3D-S (`ov3d.common.readers.stanford`): in the room, its area, or beside it

A class outside the thirteen (`stairs`) becomes clutter. A few published lines are damaged: some bytes lost one bit (0x20: a 0
became 0x10, a 6 became 0x16, a space 0x00). The bit is restored in such bytes; a line that still does not hold six numbers is
left out. Both are counted.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Float64
from ov3d.common.datasets import load_dataset
from ov3d.common.readers.layout import Layout
from ov3d.common.readers.posed import natural_order
from ov3d.common.readers.raw_points import RawPoints, colours_8bit, finished
from ov3d.common.readers.stanford import frames_of, pose_files
from ov3d.common.scenes.scene import Frame, Scene

FOLDER = "Annotations"
OTHER_CLASS = "clutter"

MOST_BROKEN = 0.01
"""Largest share of bad lines in a file; more means another format or an unknown fault."""

_BLANKS = b"\t\n\v\f\r "
_DAMAGED = bytes(byte for byte in range(32) if byte not in _BLANKS)
_REPAIRED = bytes(byte | 32 if byte in _DAMAGED else byte for byte in range(256))


def load(path: Path) -> Scene:
    """Read a scene of this layout; raises `DataError` naming the faulty file."""
    files = _files(path)
    if not files:
        raise DataError(
            f"{path / FOLDER}/<class>_<n>.txt not found.", "Give the path of a room, for example Area_1/office_1."
        )
    spec = load_dataset("s3dis")
    notes: list[str] = []
    rows, labels, others = [], [], set()
    num_repaired = num_broken = 0
    for file in files:
        found, repaired, broken = _read_object(file)
        name = file.stem.rpartition("_")[0] or file.stem
        if name not in spec.names:
            others.add(name)
        rows.append(found)
        labels.append(spec.names.index(name if name in spec.names else OTHER_CLASS))
        num_repaired, num_broken = num_repaired + repaired, num_broken + broken
    if others:
        notes.append(f"read as {OTHER_CLASS}: {', '.join(sorted(others))}")
    if num_repaired:
        notes.append(f"{num_repaired} damaged bytes are repaired (each had lost one bit)")
    if num_broken:
        notes.append(f"{num_broken} lines that are not x y z r g b are left out")
    counts = [len(part) for part in rows]
    table = np.concatenate(rows)
    raw = RawPoints(
        table[:, :3],
        colours_8bit(_whole(table[:, 3:])),
        np.repeat(labels, counts),
        np.repeat(np.arange(len(files)), counts),
    )
    cloud, world, cloud_notes = finished(raw, path / FOLDER, num_classes=len(spec.names))
    frames = _frames(path, notes)
    return LAYOUT.scene(path, frames, world, [*notes, *cloud_notes], cloud=cloud, classes=spec.names)


def is_room(path: Path) -> bool:
    """Whether a folder has this layout."""
    return bool(_files(path))


def _files(path: Path) -> list[Path]:
    found = [file for file in (path / FOLDER).glob("*.txt") if not file.name.startswith(".")]
    return sorted(found, key=lambda file: natural_order(file.name))


def _read_object(path: Path) -> tuple[Float64[Array, "n 6"], int, int]:
    """The rows, and the numbers of bytes repaired and lines left out."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from None
    repaired = len(data) - len(data.translate(None, delete=_DAMAGED))
    data = data.translate(_REPAIRED)
    try:
        rows = np.loadtxt(io.BytesIO(data), dtype=np.float64, comments=None, ndmin=2) if data.strip() else None
        if rows is not None and rows.shape[1] == 6:
            return rows, repaired, 0
    except ValueError:
        pass
    lines = [line.split() for line in data.splitlines() if line.strip()]
    kept = [numbers for words in lines if (numbers := _numbers(words)) is not None]
    broken = len(lines) - len(kept)
    if not kept or broken > max(1, MOST_BROKEN * len(lines)):
        raise DataError(
            f"{path} has {broken} of {len(lines)} lines that are not x y z r g b.",
            "It is truncated or of another format: download it again.",
        )
    return np.array(kept), repaired, broken


def _numbers(words: list[bytes]) -> list[float] | None:
    try:
        return [float(word) for word in words] if len(words) == 6 else None
    except ValueError:
        return None


def _whole(colours: Float64[Array, "n 3"]) -> Array:
    return np.nan_to_num(colours).clip(0, 255).astype(np.uint8)


# ------------------------------------------------------------------------------------------------------------ frames


def _frames(room: Path, notes: list[str]) -> list[Frame]:
    """The photographs of a room; empty without 2D-3D-S."""
    files, own = pose_files(room), True
    if not files:
        places = [room.parent, *_areas_beside(room.parent)]
        files, own = [file for place in places for file in pose_files(place)], False
    wanted = f"_{room.resolve().name}_frame_".lower()
    files = [file for file in files if own or wanted in file.name.lower()]
    if not files:
        notes.append(f"no posed images of {room.resolve().name} (looked for 2D-3D-S's data/pose/*_domain_pose.json)")
        return []
    return frames_of(files, notes)


def _areas_beside(area: Path) -> list[Path]:
    """Folders of 2D-3D-S for the same area: area_1 beside Area_1; area_5a and area_5b beside Area_5."""
    name = area.resolve().name.lower()
    above = area.resolve().parent
    if not name.startswith("area_"):
        return []
    beside = [path for path in sorted(above.iterdir()) if path.is_dir() and path.resolve() != area.resolve()]
    return [path for path in beside if path.name.lower().rstrip("ab") == name]


LAYOUT = Layout(
    name="s3dis",
    looks_for=f"{FOLDER}/<class>_<n>.txt",
    matches=is_room,
    load=load,
)
