"""Class names of the ids in label maps: from a names file beside them, or the scene's own class names.

    classes.txt     line i names id i, counted from 0
    names.yaml      id: name, or id: null for void; or one line `dataset: NAME`: the class ids of a data set that ov3d
                    knows, each named by its first prompt (driveable_surface is "road")

Ids named void, ignore, unlabeled or unknown are void, and so are 255 and 65535 unless the file names them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ov3d.common.asking.prompt import clean_prompt
from ov3d.common.base.errors import DataError
from ov3d.common.base.files import hash_text
from ov3d.common.base.shapes import Array, Int32
from ov3d.common.datasets import load_dataset
from ov3d.common.readers.class_names import read_classes
from ov3d.common.scenes.scene import Scene

FILES = ("names.yaml", "classes.txt")
VOID_NAMES = ("void", "ignore", "ignored", "unlabeled", "unlabelled", "unknown")
VOID_IDS = (255, 65535)
"""Conventional ids for unknown pixels in 8-bit and 16-bit maps."""

MAX_ID = 65535
VOID, UNNAMED = -1, -2


@dataclass(frozen=True, slots=True)
class LabelNames:
    """Classes of label maps.

    Attributes:
        ids: one per class, ascending.
        names: one per class. Several prompts of a class are not averaged: the mean of bus, trailer and tractor is a truck.
        void: ids without a class.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]
    void: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def key(self) -> str:
        """32 hexadecimal digits that identify these names in keys."""
        return hash_text("label-names-1", json.dumps([self.ids, self.names, self.void]))

    def table(self) -> Int32[Array, " t"]:
        """Class number of each id from 0 to `MAX_ID`; `VOID` for void, `UNNAMED` for ids without a name."""
        table = np.full(MAX_ID + 1, UNNAMED, np.int32)
        table[list(self.void)] = VOID
        table[list(self.ids)] = np.arange(len(self.ids), dtype=np.int32)
        return table


def read_names(folder: Path) -> LabelNames:
    """The names from a folder of label maps.

    Raises:
        DataError: the names file is missing, or names nothing.
    """
    yaml_path, text_path = (folder / name for name in FILES)
    if yaml_path.is_file():
        return _checked(_from_yaml(yaml_path), str(yaml_path))
    if text_path.is_file():
        names = read_classes(text_path)
        return _checked(dict(enumerate(names)), str(text_path))
    raise DataError(
        f"{folder} has no names for the ids of its label maps (looked for {' and '.join(FILES)}).",
        "Write classes.txt, with the name of id i in line i, or names.yaml with `id: name`.",
    )


def scene_names(scene: Scene) -> LabelNames:
    """The names of a scene's own label ids.

    Raises:
        DataError: it has no class names.
    """
    return _checked(dict(enumerate(scene.classes)), f"Scene {scene.name}")


def _checked(found: Mapping[int, str], where: str) -> LabelNames:
    named = {idx: name for idx, name in sorted(found.items()) if name and name.casefold() not in VOID_NAMES}
    if not named:
        raise DataError(f"{where} names no classes.", "Name at least one id.")
    void = {idx for idx in found if idx not in named} | {idx for idx in VOID_IDS if idx not in named}
    return LabelNames(tuple(named), tuple(named.values()), tuple(sorted(void)))


def _from_yaml(path: Path) -> dict[int, str]:
    """Names by id, empty for void."""
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid YAML: {' '.join(str(error).split())}.", "Write `id: name`.") from None
    if isinstance(data, dict) and list(data) == ["dataset"]:
        spec = load_dataset(str(data["dataset"]))
        return {one.id: "" if one.kind == "ignored" else spec.prompts(one.name)[0] for one in spec.classes}
    if not isinstance(data, dict):
        raise DataError(f"{path} must be a mapping of ids to names.", "Write `id: name`, one per line.")
    return {_id(path, key): _name(path, key, value) for key, value in data.items()}


def _id(path: Path, key: Any) -> int:
    if isinstance(key, bool) or not isinstance(key, int) or not 0 <= key <= MAX_ID:
        raise DataError(f"{path}: ids must be integers from 0 to {MAX_ID}, got {key!r}.", "Write `id: name`.")
    return key


def _name(path: Path, key: Any, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not value.strip():
        raise DataError(
            f"{path}: the name of id {key} must be text, got {value!r}.", "Quote it, or write null for void."
        )
    return clean_prompt(value)
