"""ScanNet's label table: maps its annotators' words and numbers to the benchmark's 20 classes.

scannetv2-labels.combined.tsv has one row per label; its columns include `id` (as in label-filt/N.png), `raw_category` (as in
aggregation.json) and `nyu40id`. NYU40 ids become class ids as in ov3d/common/datasets/scannet.yaml.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ov3d.common.base.errors import DataError
from ov3d.common.datasets import load_dataset
from ov3d.common.scenes.scene import IGNORE

FILE_NAMES = ("scannetv2-labels.combined.tsv", "scannet-labels.combined.tsv")

_LEVELS = 3
_LARGEST_ID = 1 << 16


@dataclass(frozen=True, slots=True)
class LabelMap:
    """Class ids (of ScanNet's 20; `IGNORE` for other labels) by the labels in files.

    Attributes:
        path: the table.
        by_id: class of each number; `IGNORE` for numbers not in the table.
        by_category: class of each raw category.
    """

    path: Path
    by_id: tuple[int, ...]
    by_category: dict[str, int]


def find_label_map(folder: Path) -> Path | None:
    """The table in a folder or its nearest parent, at most `_LEVELS` up; None if not found."""
    resolved = folder.resolve()
    for place in (resolved, *list(resolved.parents)[:_LEVELS]):
        for name in FILE_NAMES:
            if (place / name).is_file():
                return place / name
    return None


def read_label_map(path: Path) -> LabelMap:
    """Read the table.

    Raises:
        DataError: it cannot be read, lacks a column, or has a row without numbers; the message names the fault.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"The label map {path} cannot be read: {error}.", "Download it again.") from None
    missing = [name for name in ("id", "raw_category", "nyu40id") if not rows or name not in rows[0]]
    if missing:
        raise DataError(
            f"The label map {path} has no column {', '.join(missing)}.", "It should be scannetv2-labels.combined.tsv."
        )
    classes = nyu40_classes()
    by_id: dict[int, int] = {}
    by_category: dict[str, int] = {}
    for number, row in enumerate(rows, start=2):
        try:
            stored, class_idx = int(row["id"]), classes.get(int(row["nyu40id"]) if row["nyu40id"] != "" else 0, IGNORE)
            if not 0 <= stored < _LARGEST_ID or row["raw_category"] is None:
                raise ValueError
        except (TypeError, ValueError):
            raise DataError(
                f"Line {number} of the label map {path} lacks id, raw_category or nyu40id.",
                "It is truncated or damaged: download it again.",
            ) from None
        by_id[stored] = class_idx
        by_category[row["raw_category"].strip()] = class_idx
    table = tuple(by_id.get(k, IGNORE) for k in range(max(by_id) + 1))
    return LabelMap(path, table, by_category)


@lru_cache(maxsize=1)
def nyu40_classes() -> Mapping[int, int]:
    """The class id of each NYU40 id that is one of the 20."""
    known = load_dataset("scannet").truth_ids.items()
    return {nyu40: class_idx for nyu40, class_idx in known if class_idx is not None}
