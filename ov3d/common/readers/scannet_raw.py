"""A ScanNet scan as downloaded.

    ID.sens   ID_vh_clean_2.ply (mesh)   ID_vh_clean_2.labels.ply (NYU40 id per vertex)
    ID_vh_clean_2.*.segs.json, ID.aggregation.json or ID_vh_clean.aggregation.json (objects)
    label-filt/N.png (label per pixel), scannetv2-labels.combined.tsv there or above: maps these and objects to classes

Every `FRAME_STEP`-th frame of the recording is exported once, in the layout of `ov3d.common.readers.scannet`, into ov3d's
cache; features and overlays need image files. The mesh is not axis-aligned, so the poses fit it.
"""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ov3d.common.base.errors import DataError, Ov3dError
from ov3d.common.base.files import cache_root, hash_text, read_json, write_bytes, write_json, write_text
from ov3d.common.base.shapes import Array, Float64, Int32
from ov3d.common.datasets import load_dataset
from ov3d.common.readers.label_map import LabelMap, find_label_map, nyu40_classes, read_label_map
from ov3d.common.readers.layout import Layout, origin_of_cameras, scene_name
from ov3d.common.readers.ply import read_ply, read_ply_points
from ov3d.common.readers.posed import add_note
from ov3d.common.readers.raw_points import known_ids
from ov3d.common.readers.scannet import FILTERED_LABELS, read_posed_folder, with_filtered_labels
from ov3d.common.readers.sens import SensFile, SensFrame, open_sens
from ov3d.common.scenes.scene import IGNORE, Frame, PointCloud, Scene, World

FRAME_STEP = 20
"""Recordings have 30 frames per second; OpenScene and 3DSS-VLG use the same step."""

MARK_KIND, MARK_NAME, MARK_VERSION = "sens-export", "export.json", 1

_NUM_NYU40 = 41
_MOST_OBJECTS = 1 << 20


def load(path: Path) -> Scene:
    """Read a scene of this layout; raises `DataError` naming the faulty file."""
    recording = _recording(path)
    frames, notes = _frames(recording)
    cloud, world, classes = _mesh(recording, notes)
    if (recording.parent / FILTERED_LABELS).is_dir():
        frames, named = with_filtered_labels(recording.parent, frames, notes)
        classes = classes or named
    if cloud is None:
        world = World(origin=origin_of_cameras(frames))
    return LAYOUT.scene(path, frames, world, notes, name=scene_name(recording), cloud=cloud, classes=classes)


def _recording(path: Path) -> Path:
    if path.is_file():
        return path
    found = sorted(path.glob("*.sens"))
    if len(found) != 1:
        raise DataError(
            f"{path} should hold one .sens file but holds {len(found)}.", "Give the path of the one to read."
        )
    return found[0]


# ------------------------------------------------------------------------------------------------------------ frames


def _frames(recording: Path) -> tuple[list[Frame], list[str]]:
    folder, steps_a_metre, num_recorded = _exported(recording)
    frames, _, notes = read_posed_folder(folder)
    frames = [
        replace(frame, depth=replace(frame.depth, scale=1 / steps_a_metre)) if frame.depth else frame
        for frame in frames
    ]
    notes.insert(0, f"every {FRAME_STEP}th of {num_recorded} frames of {recording.name} is used, exported to {folder}")
    return frames, notes


def _exported(recording: Path) -> tuple[Path, float, int]:
    """The folder of exported frames, depth steps per metre, and the number of recorded frames; exports if not yet done.

    The export is keyed by the recording's path, size and modification time: hashing gigabytes would take as long.
    """
    stat = recording.stat()
    key = hash_text(str(recording.resolve()), str(stat.st_size), str(stat.st_mtime_ns), str(FRAME_STEP))
    folder = cache_root() / "sens" / f"{recording.stem}-{key[:12]}"
    mark = _mark(folder)
    if mark is None:
        with open_sens(recording) as sens:
            mark = _export(sens, folder)
    return folder, float(mark["steps_a_metre"]), int(mark["num_recorded"])


def _mark(folder: Path) -> dict[str, Any] | None:
    """The metadata of a finished export; None if it is unfinished, damaged, or lacks a file."""
    if not (folder / MARK_NAME).is_file():
        return None
    try:
        mark = read_json(folder / MARK_NAME, kind=MARK_KIND, version=MARK_VERSION)
    except Ov3dError:
        return None
    return mark if all((folder / name).is_file() for name in mark["files"]) else None


def _export(sens: SensFile, folder: Path) -> dict[str, Any]:
    header = sens.header
    matrices = {
        "intrinsic_color": header.colour_intrinsic,
        "extrinsic_color": header.colour_extrinsic,
        "intrinsic_depth": header.depth_intrinsic,
        "extrinsic_depth": header.depth_extrinsic,
    }
    for name, matrix in matrices.items():
        write_text(folder / "intrinsic" / f"{name}.txt", _matrix_text(matrix))
    written = [f"intrinsic/{name}.txt" for name in matrices]
    for frame in sens.frames(FRAME_STEP):
        written += _export_frame(frame, folder, header.colour_ending)
    mark = {"steps_a_metre": header.steps_a_metre, "num_recorded": header.num_frames, "files": written}
    write_json(folder / MARK_NAME, mark, kind=MARK_KIND, version=MARK_VERSION)  # last: it marks the export as complete
    return mark


def _export_frame(frame: SensFrame, folder: Path, colour_ending: str) -> list[str]:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(frame.depth).save(stream, format="PNG", compress_level=1)
    parts = {
        f"color/{frame.number}{colour_ending}": frame.colour,
        f"depth/{frame.number}.png": stream.getvalue(),
        f"pose/{frame.number}.txt": _matrix_text(frame.world_from_camera).encode(),
    }
    for name, data in parts.items():
        write_bytes(folder / name, data)
    return list(parts)


def _matrix_text(matrix: Float64[Array, "4 4"]) -> str:
    return "\n".join(" ".join(repr(float(value)) for value in row) for row in matrix) + "\n"


# -------------------------------------------------------------------------------------------------------------- mesh


def _mesh(recording: Path, notes: list[str]) -> tuple[PointCloud | None, World, tuple[str, ...]]:
    """The mesh's vertices with class and object, if those files exist."""
    mesh = recording.with_name(f"{recording.stem}_vh_clean_2.ply")
    if not mesh.is_file():
        notes.append(f"{mesh.name} is missing: points can be made from depth")
        return None, World(), ()
    cloud, world, mesh_notes = read_ply(mesh, num_classes=0)
    notes += mesh_notes
    owners, categories = _objects(recording, len(cloud))
    labels_path = mesh.with_suffix(".labels.ply")
    names = load_dataset("scannet").names
    if labels_path.is_file():
        labels = _vertex_labels(labels_path, mesh.name, len(cloud))
        return replace(cloud, labels=labels, instances=owners), world, names
    table = find_label_map(recording.parent)
    if owners is None or table is None:
        return replace(cloud, instances=owners), world, ()
    notes.append(f"{labels_path.name} is missing: labels are those of the objects, mapped by {table.name}")
    of_object = _object_classes(read_label_map(table), categories, notes)
    return replace(cloud, labels=of_object[owners], instances=owners), world, names


def _vertex_labels(path: Path, mesh_name: str, num_vertices: int) -> Int32[Array, " n"]:
    """Class ids from the NYU40 ids in a labels.ply."""
    raw = read_ply_points(path)
    if raw.labels is None or len(raw.labels) != num_vertices:
        what = "no labels" if raw.labels is None else f"{len(raw.labels)} vertices"
        raise DataError(
            f"{path} has {what}, but {mesh_name} has {num_vertices} vertices.", "Download both for the same scan."
        )
    table = np.array(
        [*(nyu40_classes().get(k, IGNORE) for k in range(_NUM_NYU40)), IGNORE], np.int32
    )  # the last for unknown ids
    return table[known_ids(raw.labels, _NUM_NYU40)]


def _object_classes(table: LabelMap, categories: dict[int, str], notes: list[str]) -> Int32[Array, " n"]:
    """The class of each object, followed by `IGNORE`, which the index -1 ("no object") reads."""
    classes = np.full(max(categories, default=-1) + 2, IGNORE, np.int32)
    unknown = set()
    for owner, category in categories.items():
        if category not in table.by_category:
            unknown.add(category)
        classes[owner] = table.by_category.get(category, IGNORE)
    add_note(notes, len(unknown), f"object categories not in {table.path.name}", "unknown", sorted(unknown))
    return classes


def _objects(recording: Path, num_vertices: int) -> tuple[Int32[Array, " n"] | None, dict[int, str]]:
    """The object of each vertex, and each object's raw category.

    segs.json has each vertex's segment, aggregation.json the segments and raw category of each object.
    """
    segments_path = next(iter(sorted(recording.parent.glob(f"{recording.stem}_vh_clean_2.*.segs.json"))), None)
    groups_paths = [recording.with_name(f"{recording.stem}{part}.aggregation.json") for part in ("", "_vh_clean")]
    groups_path = next((path for path in groups_paths if path.is_file()), None)
    if segments_path is None or groups_path is None:
        return None, {}
    try:
        segment = np.array(_read_member(segments_path, "segIndices"), dtype=np.int64)
        groups = [(int(group["objectId"]), group) for group in _read_member(groups_path, "segGroups")]
        owner_of = {int(idx): owner for owner, group in groups for idx in group["segments"]}
        if any(not 0 <= owner < _MOST_OBJECTS for owner, _ in groups):
            raise ValueError
    except (TypeError, ValueError, KeyError, OverflowError):
        raise DataError(
            f"{groups_path} or {segments_path.name} does not list objects and segments as ScanNet does.",
            "Download them again.",
        ) from None
    if segment.shape != (num_vertices,):
        raise DataError(
            f"{segments_path} has {segment.size} segment ids, but the mesh has {num_vertices} vertices.",
            "Download both for the same scan.",
        )
    distinct, inverse = np.unique(segment, return_inverse=True)
    owners = np.array([owner_of.get(int(idx), IGNORE) for idx in distinct], dtype=np.int32)
    return owners[inverse.reshape(-1)], {owner: str(group.get("label", "")).strip() for owner, group in groups}


def _read_member(path: Path, key: str) -> list[Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(f"{path} is not valid JSON.", "It is truncated or damaged: download it again.") from None
    if not isinstance(data, dict) or not isinstance(data.get(key), list):
        raise DataError(f"{path} has no list `{key}`.", "Download it again.")
    return data[key]


LAYOUT = Layout(
    name="scannet-raw",
    looks_for="a recording ID.sens",
    matches=lambda path: (
        len(list(path.glob("*.sens"))) == 1 if path.is_dir() else path.is_file() and path.suffix.lower() == ".sens"
    ),
    load=load,
)
