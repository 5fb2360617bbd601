"""Load a data set's YAML file into a strict, cross-checked description."""

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
"""Entry of an id table: this id is not allowed in the file."""

NO_CLASS = -1
"""Entry of an id table: the id is allowed but is not a class (ignored truth, or no prediction)."""

UNKNOWN_TRUTH = (-100, -1, 255)
"""The customary value for an unknown class in class-id files."""

Layout = Literal["semantickitti", "nuscenes-panoptic", "nuscenes-lidarseg", "points", "3d-ovs", "lerf-ovs"]
Protocol = Literal["panoptic", "semantic", "lidarseg", "3d-ovs", "langsplat"]


class ClassSpec(Config):
    """One class."""

    id: int = Field(ge=0)
    """Class id: the row in every table of scores."""
    name: str
    """The data set's spelling."""
    kind: Literal["thing", "stuff", "ignored"]
    """Things are countable objects; ignored classes are left out of everything."""
    prompts: tuple[str, ...] = ()
    """Prompts for the class; its name by default. Scores of several are combined by their maximum."""


class SplitSpec(Config):
    """Which classes are novel: their labels must not be used in training."""

    novel: tuple[str, ...]
    """Names of the novel classes; all others that are not ignored are base."""
    note: str = ""
    """Source of the split."""


class DatasetSpec(Config):
    """A data set as described to metrics."""

    name: str
    """Name to give to --dataset."""
    version: int = Field(ge=1)
    """Increased with every change that can affect a score; written into every report."""
    title: str
    """Display name."""
    protocols: tuple[Protocol, ...]
    """Available protocols; the first is the default."""
    layout: Layout
    """Layout of its files (docs/protocols.md)."""
    ignored_class: int | None = None
    """The class for unknown truth, if the official tool has one."""
    min_points: int = Field(default=1, ge=1)
    """Smallest size at which an unmatched segment counts, in points."""
    classes: tuple[ClassSpec, ...] = ()
    """Ids 0 to n - 1 in order; empty if each scene has its own classes."""
    truth_ids: dict[int, int | None] = Field(default_factory=dict)
    """Id in a truth file to class id; null: allowed, but not a class."""
    prediction_ids: dict[int, int | None] = Field(default_factory=dict)
    """The same for prediction files; empty if identical."""
    written_ids: dict[int, int] = Field(default_factory=dict)
    """Class id to the id that prediction files get; the least id that reads back as the class where it is not named."""
    subsets: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Sequences in train, val and test."""
    default_subset: str | None = None
    """The subset scored by default."""
    splits: dict[str, SplitSpec] = Field(default_factory=dict)
    """Base and novel classes."""
    default_split: str | None = None
    """The split shown by default."""
    scenes: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Published class names of each scene."""
    note: str = ""
    """Caveats for interpreting the scores."""

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
                raise ValueError(f"an id maps to class {wrong[0]}, which does not exist")
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
                raise ValueError(f"split {name} names {min(unknown)!r}, which is not a class")
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
        """Prompts for the class."""
        for spec in self.classes:
            if spec.name == name:
                return spec.prompts or (spec.name.replace("_", " ").replace("-", " "),)
        raise UsageError(f"{self.title} has no class {name!r}.", did_you_mean(name, self.names))

    def split(self, name: str | None = None) -> SplitSpec | None:
        """The named split, by default the default one; None if the data set has no splits.

        Raises:
            UsageError: the split does not exist.
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
            class_ids: whether the files already hold class ids.
        """
        ids = self._ids(side, class_ids)
        table = np.full(max([*ids, 0]) + 1, UNKNOWN_ID, np.int64)
        for raw, idx in ids.items():
            if raw >= 0:
                table[raw] = NO_CLASS if idx is None else idx
        return table

    def negative_ids(self, side: Literal["truth", "prediction"], *, class_ids: bool = False) -> tuple[int, ...]:
        """Negative ids allowed in files of this side; they are not classes."""
        return tuple(raw for raw in self._ids(side, class_ids) if raw < 0)

    def _ids(self, side: Literal["truth", "prediction"], class_ids: bool) -> Mapping[int, int | None]:
        if not class_ids:
            return self.truth_ids if side == "truth" or not self.prediction_ids else self.prediction_ids
        ids: dict[int, int | None] = {idx: idx for idx in range(len(self.classes))}
        if side == "truth" and self.ignored_class is None:
            ids |= dict.fromkeys(UNKNOWN_TRUTH)
        return ids


def dataset_names() -> tuple[str, ...]:
    """Names of the data sets included with ov3d."""
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.yaml")))


def load_dataset(name: str) -> DatasetSpec:
    """A data set by its name, or by the path of a YAML file in the same format.

    Raises:
        UsageError: unknown data set (the message suggests the nearest names), or a wrong key or value in the file.
        DataError: the file is missing, or is not YAML.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else Path(__file__).parent / f"{name}.yaml"
    if not name.endswith((".yaml", ".yml")) and name not in dataset_names():
        raise UsageError(f"Unknown data set {name!r}.", did_you_mean(name, dataset_names()))
    spec = load_config(DatasetSpec, path)
    if not name.endswith((".yaml", ".yml")) and spec.name != name:
        raise DataError(f"{path} names itself {spec.name!r}.", "The installation is damaged: reinstall ov3d.")
    return spec
