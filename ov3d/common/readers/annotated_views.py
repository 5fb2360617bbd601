"""LERF-OVS: polygons for some views, stored beside a capture of any layout.

    SCENE/…   and beside it   label/SCENE/frame_00001.json   (or SCENE/label/*.json)

An annotation belongs to the photograph with the same name. The scene's classes are all categories, sorted; annotated views
form the split `test`, the others `train`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ov3d.common.readers.posed import add_note
from ov3d.common.scenes.scene import PolygonMasks, Scene
from ov3d.common.scenes.truth import read_polygons


def with_annotations(scene: Scene, root: Path) -> Scene:
    """The scene with the truth of its annotated views; unchanged without annotations.

    Args:
        scene: the reader's result.
        root: the scene's folder.

    Raises:
        DataError: an annotation cannot be read.
    """
    files = _annotations(root)
    stems = {frame.image_path.stem for frame in scene.frames}
    used = {file.stem: file for file in files if file.stem in stems}
    if not used:
        return scene
    notes = list(scene.notes)
    strange = [file.name for file in files if file.stem not in stems]
    add_note(notes, len(strange), f"annotations in {files[0].parent}", "without a photograph, left out", strange)
    classes = tuple(sorted({category for file in used.values() for category, _ in read_polygons(file)[1]}))
    frames = []
    for frame in scene.frames:
        file = used.get(frame.image_path.stem)
        masks = None if file is None else PolygonMasks(file, classes, frame.camera, frame.distortion)
        frames.append(frame if masks is None else replace(frame, labels=masks))
    splits = scene.splits or {
        "train": tuple(frame.name for frame in frames if frame.labels is None),
        "test": tuple(frame.name for frame in frames if frame.labels is not None),
    }
    return replace(scene, frames=tuple(frames), classes=classes, notes=tuple(notes), splits=splits)


def _annotations(root: Path) -> list[Path]:
    resolved = root.resolve()
    for folder in (resolved.parent / "label" / resolved.name, resolved / "label"):
        files = sorted(folder.glob("*.json")) if folder.is_dir() else []
        if files:
            return files
    return []
