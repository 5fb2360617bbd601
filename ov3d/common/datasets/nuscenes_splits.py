"""Which drives of nuScenes are for training and which for validation: read from `splits/nuscenes.yaml`."""

from __future__ import annotations

from collections.abc import Container
from functools import cache
from pathlib import Path

_FILE = Path(__file__).parent / "splits" / "nuscenes.yaml"
_MINI = ("mini_train", "mini_val")
_FULL = ("train", "val")


class _AllBut:
    """Every drive outside some sets."""

    def __init__(self, *others: Container[str]) -> None:
        self._others = others

    def __contains__(self, drive: object) -> bool:
        return not any(drive in other for other in self._others)


def split_names(version: str) -> tuple[str, ...]:
    """Splits of a version of the data set: `v1.0-mini` has its own, `v1.0-test` is one."""
    if version.endswith("mini"):
        return _MINI
    return ("test",) if version.endswith("test") else _FULL


def scenes_of_split(version: str, split: str) -> Container[str]:
    """The drives of a split; asked with `in`, as generated data sets have drives that the official lists do not know."""
    listed = _listed()
    if split == "train":
        return _AllBut(listed["val"], listed["test"])
    return listed[split]


@cache
def _listed() -> dict[str, frozenset[str]]:
    import yaml

    data = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return {name: frozenset(_drives(data[name])) for name in (*_MINI, "val", "test")}


def _drives(entries: list[int | str]) -> list[str]:
    numbers: list[int] = []
    for entry in entries:
        first, _, last = str(entry).partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return [f"scene-{number:04d}" for number in numbers]
