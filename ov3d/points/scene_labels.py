"""Scene-level labels: which classes a scene has, its only human annotation.

    labels.txt            one class per line, beside the scene; or the same file named in the configuration
    FOLDER                FOLDER/SCENE.txt or FOLDER/SCENE/labels.txt, one file per scene
    FILE.yaml             SCENE: [class, class, ...]

Without any of them, the classes of the scene's true labels: of its cloud, or of its label images where the cloud has none.
Only the list is used; points keep no labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ov3d.common.base.errors import DataError, did_you_mean
from ov3d.common.readers.cloud_files import cloud_files
from ov3d.common.scenes.scene import IGNORE, Scene

FILE_NAME = "labels.txt"
"""The file looked for beside every scene."""

_YAML = (".yaml", ".yml")


def scene_labels(scene: Scene, labels_path: Path | None, classes: tuple[str, ...]) -> tuple[str, ...]:
    """The classes that are present in a scene.

    Args:
        scene: the scene; its frames' label images are read only if nothing else lists its classes.
        labels_path: a text file, a YAML file or a folder of text files; None looks beside the scene, then at its truth.
        classes: the vocabulary. Listed names must be in it, ignoring case; true classes outside it are left
            out.

    Returns:
        Names of the vocabulary, in its order.

    Raises:
        DataError: labels of this scene are missing, the file is empty or cannot be read, or a name is unknown or listed twice.
    """
    path = _beside(scene) if labels_path is None else _named(scene, labels_path)
    if path is None:
        return _from_truth(scene, classes)
    where = f"{path} ({scene.name})" if path.suffix.lower() in _YAML else str(path)
    names = _from_yaml(path, scene) if path.suffix.lower() in _YAML else _lines(path)
    return _checked(names, classes, where)


def _named(scene: Scene, path: Path) -> Path:
    """The file of a scene at a configured path."""
    if not path.is_dir():
        if path.is_file():
            return path
        raise DataError(f"Scene labels not found: {path}.", "Check the path.")
    looked_for = (path / f"{scene.name}.txt", path / scene.name / FILE_NAME)
    for file in looked_for:
        if file.is_file():
            return file
    raise DataError(
        f"Folder {path} has no labels for scene {scene.name}.",
        f"Write one class per line into {looked_for[0].name} there.",
    )


def _beside(scene: Scene) -> Path | None:
    """labels.txt in the scene's folder; beside a lone cloud, in a folder without any other."""
    folder = scene.path if scene.path.is_dir() else scene.path.parent
    file = folder / FILE_NAME
    if not file.is_file():
        return None
    if not scene.path.is_dir() and len(cloud_files(folder)) > 1:
        raise DataError(
            f"{file} is beside {len(cloud_files(folder))} clouds, so it is unclear which of them it describes.",
            "Write a YAML file of SCENE: [class, ...] and pass it: --set labels=FILE.yaml",
        )
    return file


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise DataError(f"{path} cannot be read.", "It must be plain text with one class per line.") from None
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _from_yaml(path: Path, scene: Scene) -> list[str]:
    import yaml

    shape = "It must map scenes to lists of classes: room1: [wall, chair]"
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path} is not valid YAML: {' '.join(str(error).split())}.", shape) from None
    if data is None:
        raise DataError(f"{path} is empty.", shape)
    if not isinstance(data, dict):
        raise DataError(f"{path} holds a {type(data).__name__}, not a mapping.", shape)
    by_name = {str(name): value for name, value in data.items()}
    if scene.name not in by_name:
        raise DataError(f"{path} has no labels for scene {scene.name}.", did_you_mean(scene.name, by_name))
    names = by_name[scene.name] if by_name[scene.name] is not None else []
    if not isinstance(names, list):
        raise DataError(f"{path} gives {scene.name} a {type(names).__name__}, not a list.", shape)
    # YAML 1.1 reads bare `on`, `off`, `yes`, `no` as booleans and 7 as a number: never names of things in a room.
    for name in names:
        if not isinstance(name, str):
            raise DataError(f"{path} gives {scene.name} the class {name!r}, which is not text.", "Quote it.")
    return [name.strip() for name in names]


def _checked(names: Sequence[str], classes: tuple[str, ...], where: str) -> tuple[str, ...]:
    if not names:
        raise DataError(f"{where} lists no classes.", "Write the classes that the scene has, one per line.")
    by_folded = {name.casefold(): name for name in classes}
    found: set[str] = set()
    for name in names:
        known = by_folded.get(name.casefold())
        if known is None:
            raise DataError(f"{where}: {name!r} is not in the vocabulary.", did_you_mean(name, classes))
        if known in found:
            raise DataError(f"{where} lists {known!r} twice.", "Remove one of them.")
        found.add(known)
    return tuple(name for name in classes if name in found)


def _from_truth(scene: Scene, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Unique true classes; which points have them is dropped here."""
    if scene.cloud is not None and scene.cloud.labels is not None:
        ids = np.unique(scene.cloud.labels)
    else:
        images = [frame.labels for frame in scene.frames if frame.labels is not None]
        ids = np.unique(np.concatenate([np.unique(image.load()) for image in images])) if images else np.zeros(0)
    true = {scene.classes[idx] for idx in ids.astype(int).tolist() if idx != IGNORE and idx < len(scene.classes)}
    present = tuple(name for name in classes if name in true)
    if not present:
        where = scene.path if scene.path.is_dir() else scene.path.parent
        raise DataError(
            f"Scene {scene.name} has no scene-level labels: no {FILE_NAME}, and no true class of the vocabulary.",
            f"Write its classes into {where / FILE_NAME}, one per line.",
        )
    return present
