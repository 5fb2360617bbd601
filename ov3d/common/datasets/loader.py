"""Reads a data set's YAML file into a strict, cross-checked description."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from ov3d.common.base.config import Config, load_config
from ov3d.common.base.errors import DataError, UsageError, did_you_mean
from ov3d.common.base.shapes import Array, Int64

UNKNOWN_ID = -2
"""Entry of an id table: the file may not hold this id."""

NO_CLASS = -1
"""Entry of an id table: the id is known, and is none of the classes (ignored truth, or no prediction)."""

UNKNOWN_TRUTH = (-100, -1, 255)
"""What class-id files write where nobody knows the class, by custom."""

Layout = Literal["semantickitti", "nuscenes-panoptic", "nuscenes-lidarseg", "points", "3d-ovs", "lerf-ovs"]
Protocol = Literal["panoptic", "semantic", "lidarseg", "3d-ovs", "langsplat"]


class ClassSpec(Config):
    """One class."""

    id: int = Field(ge=0)
    """Class id, the row of every score."""
    name: str
    """As the data set writes it."""
    kind: Literal["thing", "stuff", "ignored"]
    """Things are counted one by one; ignored classes take part in nothing."""
    prompts: tuple[str, ...] = ()
    """What to ask for; the name where there is none. Scores of several are combined by their maximum."""


class SplitSpec(Config):
    """Which classes are novel: no label of them may be used in training."""

    novel: tuple[str, ...]
    """Class names; every other class that is not ignored is base."""
    note: str = ""
    """Where the split comes from."""


class DatasetSpec(Config):
    """A data set as a metric needs it."""

    name: str
    """What is typed after --dataset."""
    version: int = Field(ge=1)
    """Raised with every change that can change a number; written into every report."""
    title: str
    """For people."""
    protocols: tuple[Protocol, ...]
    """How it can be scored; the first is the default."""
    layout: Layout
    """How its files are laid out (docs/protocols.md)."""
    ignored_class: int | None = None
    """The class that stands for unknown truth, where the official tool has one."""
    min_points: int = Field(default=1, ge=1)
    """The least size of an unmatched segment that counts."""
    classes: tuple[ClassSpec, ...] = ()
    """Ids 0 to n - 1 in order; none where each scene has its own."""
    truth_ids: dict[int, int | None] = Field(default_factory=dict)
    """Id in a truth file to class id; null: known, but none of the classes."""
    prediction_ids: dict[int, int | None] = Field(default_factory=dict)
    """The same for prediction files; empty where it is the same."""
    written_ids: dict[int, int] = Field(default_factory=dict)
    """Class id to the id that prediction files get; the least id that reads back as the class where it is not named."""
    subsets: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Sequences of train, val and test."""
    default_subset: str | None = None
    """The subset that is scored when nobody says which."""
    splits: dict[str, SplitSpec] = Field(default_factory=dict)
    """Base and novel classes."""
    default_split: str | None = None
    """The split that is shown when nobody says which."""
    scenes: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Published class names a scene."""
    note: str = ""
    """What a reader of the numbers must know."""

    @model_validator(mode="after")
    def _check(self) -> DatasetSpec:
        num = len(self.classes)
        if [spec.id for spec in self.classes] != list(range(num)):
            raise ValueError("class ids are not 0, 1, 2, ... in order")
        names = [spec.name for spec in self.classes]
        if len(set(names)) != num:
            raise ValueError("two classes have the same name")
        ignored = [spec.id for spec in self.classes if spec.kind == "ignored"]
        if ignored != ([] if self.ignored_class is None else [self.ignored_class]):
            raise ValueError("ignored_class is not the one class of kind `ignored`")
        for ids in (self.truth_ids, self.prediction_ids):
            wrong = [idx for idx in ids.values() if idx is not None and not 0 <= idx < num]
            if wrong:
                raise ValueError(f"an id maps to class {wrong[0]}, which there is not")
        other = [
            idx for idx, raw in self.written_ids.items() if (self.prediction_ids or self.truth_ids).get(raw) != idx
        ]
        if other:
            raise ValueError(f"written_ids of class {other[0]} is an id that does not read back as that class")
        if "panoptic" in self.protocols and (self.ignored_class is None or None in self.truth_ids.values()):
            raise ValueError("panoptic scores need an ignored class, and every id mapped to a class")
        for name, split in self.splits.items():
            unknown = set(split.novel) - set(names)
            if unknown:
                raise ValueError(f"split {name} names {min(unknown)!r}, which is no class")
        for what, chosen, known in (
            ("default_split", self.default_split, set(self.splits)),
            ("default_subset", self.default_subset, set(self.subsets)),
        ):
            if chosen is not None and chosen not in known:
                raise ValueError(f"{what} {chosen!r} does not exist")
        return self

    @cached_property
    def things(self) -> tuple[int, ...]:
        """Class ids of things."""
        return tuple(spec.id for spec in self.classes if spec.kind == "thing")

    @cached_property
    def stuff(self) -> tuple[int, ...]:
        """Class ids of stuff."""
        return tuple(spec.id for spec in self.classes if spec.kind == "stuff")

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in order of their ids."""
        return tuple(spec.name for spec in self.classes)

    def prompts(self, name: str) -> tuple[str, ...]:
        """What to ask for to find the class."""
        for spec in self.classes:
            if spec.name == name:
                return spec.prompts or (spec.name.replace("_", " ").replace("-", " "),)
        raise UsageError(f"{self.title} has no class {name!r}.", did_you_mean(name, self.names))

    def split(self, name: str | None = None) -> SplitSpec | None:
        """The split of that name, the default one, or none where the data set has none.

        Raises:
            UsageError: there is no such split.
        """
        name = self.default_split if name is None else name
        if name is None:
            return None
        if name not in self.splits:
            hint = did_you_mean(name, self.splits) if self.splits else "It has no splits: leave --split out."
            raise UsageError(f"{self.title} has no split {name!r}.", hint)
        return self.splits[name]

    def written_id(self, idx: int) -> int:
        """What prediction files hold for a class id; 0 for an ignored class that they have no id for."""
        ids = self.prediction_ids or self.truth_ids
        return self.written_ids.get(
            idx, min((raw for raw, known in ids.items() if known == idx and raw >= 0), default=0)
        )

    def id_table(self, side: Literal["truth", "prediction"], *, class_ids: bool = False) -> Int64[Array, " r"]:
        """Class of each id 0, 1, 2, ... of a file: a class id, `NO_CLASS` or `UNKNOWN_ID`.

        Args:
            side: truth or prediction.
            class_ids: the files hold class ids already.
        """
        ids = self._ids(side, class_ids)
        table = np.full(max([*ids, 0]) + 1, UNKNOWN_ID, np.int64)
        for raw, idx in ids.items():
            if raw >= 0:
                table[raw] = NO_CLASS if idx is None else idx
        return table

    def negative_ids(self, side: Literal["truth", "prediction"], *, class_ids: bool = False) -> tuple[int, ...]:
        """Negative ids that files of this side may hold; they are none of the classes."""
        return tuple(raw for raw in self._ids(side, class_ids) if raw < 0)

    def _ids(self, side: Literal["truth", "prediction"], class_ids: bool) -> Mapping[int, int | None]:
        if not class_ids:
            return self.truth_ids if side == "truth" or not self.prediction_ids else self.prediction_ids
        ids: dict[int, int | None] = {idx: idx for idx in range(len(self.classes))}
        if side == "truth" and self.ignored_class is None:
            ids |= dict.fromkeys(UNKNOWN_TRUTH)
        return ids


def dataset_names() -> tuple[str, ...]:
    """Names of the data sets that ship with ov3d."""
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.yaml")))


def load_dataset(name: str) -> DatasetSpec:
    """A data set by its name, or by the path of a YAML file of the same form.

    Raises:
        UsageError: no such data set (the nearest names are given), or a file with a key or value that is wrong.
        DataError: no such file, or no YAML.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else Path(__file__).parent / f"{name}.yaml"
    if not name.endswith((".yaml", ".yml")) and name not in dataset_names():
        raise UsageError(f"Unknown data set {name!r}.", did_you_mean(name, dataset_names()))
    spec = load_config(DatasetSpec, path)
    if not name.endswith((".yaml", ".yml")) and spec.name != name:
        raise DataError(f"{path} names itself {spec.name!r}.", "The installation is damaged; install ov3d again.")
    return spec
