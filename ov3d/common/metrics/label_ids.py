"""The ids in label files: the class of each, and which ids are invalid.

Invalid ids are found in the table of counted pairs, not point by point.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Bool, Int64, Integer, UInt32
from ov3d.common.datasets import DatasetSpec
from ov3d.common.datasets.loader import NO_CLASS, UNKNOWN_ID
from ov3d.common.metrics.label_files import LabelReader

UNKNOWN = "it holds ids that the class map does not know"

NEGATIVE = 0xFFFFFFFF
"""Represents the negative ids that a data set allows, once labels are unsigned."""

Ids: TypeAlias = Literal["auto", "raw", "class"]
"""Kinds of ids: raw ids or class ids; `auto` means raw ids, but rejects files that look like class ids."""

Side: TypeAlias = Literal["truth", "prediction"]


class FileLabels(NamedTuple):
    """The labels of one file as 32 unsigned bits, and whether the file itself holds signed ones."""

    values: UInt32[Array, " n"]
    signed: bool


class SideLabels:
    """The label files of one side, read one after the other.

    Args:
        spec: the data set.
        side: truth or prediction.
        ids: kind of ids in the files.

    Attributes:
        seen: which ids occurred, as far as the id table reaches; the last entry is any id beyond.
    """

    def __init__(self, spec: DatasetSpec, side: Side, ids: Ids) -> None:
        self._layout = spec.layout
        self._table = spec.id_table(side, class_ids=ids == "class")
        self._negative = spec.negative_ids(side, class_ids=ids == "class")
        self._reader = LabelReader(spec.layout)
        self.seen = np.zeros(len(self._table) + 1, bool)

    def read(self, path: Path) -> FileLabels:
        """The labels of a file; allowed negative ids become `NEGATIVE`. The next file overwrites them.

        Raises:
            DataError: the file is damaged, or holds a negative or large number that is not an id.
        """
        labels = self._reader.read(path)
        return FileLabels(_unsigned(labels, self._negative), labels.dtype.kind == "i")

    def classes(self, labels: Int64[Array, " u"], *, signed: bool) -> Int64[Array, " u"]:
        """The class of each label, or `NO_CLASS`.

        Args:
            labels: distinct values of a file.
            signed: whether `NEGATIVE` stands for a negative id of the file.

        Raises:
            DataError: ids that the class map does not know.
        """
        raw = self._raw_ids(labels)
        inside = np.where(raw < len(self._table), raw, len(self._table))
        negative = (raw == NEGATIVE) & signed
        self.seen[inside[~negative]] = True
        found = np.append(self._table, UNKNOWN_ID)[inside]
        found[negative] = NO_CLASS
        unknown = raw[found == UNKNOWN_ID]
        if len(unknown):
            raise DataError(f"{UNKNOWN}: {_listed(unknown)}")
        return found

    def _raw_ids(self, labels: Int64[Array, " u"]) -> Int64[Array, " u"]:
        """The class part of packed labels."""
        if self._layout == "semantickitti":
            return labels & 0xFFFF
        if self._layout == "nuscenes-panoptic":
            return labels // 1000
        return labels


def class_ids_error(spec: DatasetSpec, side: Side, ids: Ids, seen: Bool[Array, " s"]) -> DataError | None:
    """The error for files with class ids where raw ids are expected, or vice versa; None if the ids look right.

    Raw ids exceed the class ids; if none does in all files of a side, and at least one label is not 0, then either the files
    hold class ids, or only a few raw classes occur. The user must say which.

    Args:
        spec: the data set.
        side: which files.
        ids: the assumed kind of ids.
        seen: `SideLabels.seen` of all of them.
    """
    if ids != "auto":
        return None
    raw_ids = spec.truth_ids if side == "truth" or not spec.prediction_ids else spec.prediction_ids
    num_classes, occurring = len(spec.classes), np.flatnonzero(seen)
    raw_reach = max((raw for raw, idx in raw_ids.items() if idx is not None), default=0)
    small = len(occurring) > 0 and 0 < occurring.max() < num_classes <= raw_reach
    if small and _more_like_class_ids(set(occurring.tolist()), spec):
        return DataError(
            f"All ids in the files of the {side} are below {num_classes}, the number of classes of {spec.title}; "
            f"its raw ids go up to {max(raw_ids)}. These look like class (learning) ids where raw ids are expected.",
            f"If they are class ids: --{side}-ids class. If they really are raw ids: --{side}-ids raw.",
        )
    challenge = side == "prediction" and spec.layout in ("nuscenes-panoptic", "nuscenes-lidarseg")
    if challenge and seen[num_classes:].any():
        return DataError(
            f"The predictions hold ids beyond {num_classes - 1}, the last challenge class of {spec.title}.",
            "If they are general category ids (0-31), map them to challenge classes: docs/protocols.md has the table.",
        )
    return None


def _more_like_class_ids(ids: set[int], spec: DatasetSpec) -> bool:
    """Whether a set of small ids is more likely to be class ids than raw ids."""
    known = {raw for raw, idx in spec.truth_ids.items() if idx is not None}
    if spec.layout == "points":  # most small raw ids are also classes; only the others are evidence
        return bool(ids - known - {0})
    return True


def _unsigned(labels: Integer[Array, " n"], negative: tuple[int, ...]) -> UInt32[Array, " n"]:
    """Labels as 32 unsigned bits; allowed negative ids become `NEGATIVE`."""
    if not len(labels):
        return np.zeros(0, np.uint32)
    if labels.dtype.kind == "u" and labels.dtype.itemsize <= 4:
        return labels.astype(np.uint32, copy=False)
    low, high = int(labels.min()), int(labels.max())
    if high >= NEGATIVE:
        raise DataError(f"it holds the label {high}, which is not an id")
    if low < 0:
        wrong = np.setdiff1d(labels[labels < 0], negative)
        if len(wrong):
            raise DataError(f"it holds the label {int(wrong[0])}: negative labels are not classes, and are not guessed")
        labels = np.where(labels < 0, NEGATIVE, labels.astype(np.int64))
    return labels.astype(np.uint32, copy=False)


def _listed(ids: Int64[Array, " u"]) -> str:
    unique = np.unique(ids)
    names = [f"{idx} (-1 as unsigned)" if idx in (0xFFFF, NEGATIVE) else str(idx) for idx in unique[:6].tolist()]
    return ", ".join(names) + (", ..." if len(unique) > 6 else "")
