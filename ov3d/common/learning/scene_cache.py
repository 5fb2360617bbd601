"""Scenes that a training reads again and again: kept in memory up to a budget, those used longest ago dropped first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar, runtime_checkable

CACHE_BYTES = 4 << 30
"""Scenes are kept in memory up to this many bytes."""


@runtime_checkable
class Sized(Protocol):
    """What a stage learns from a scene."""

    @property
    def num_bytes(self) -> int:
        """Approximate memory use in bytes."""
        ...


S = TypeVar("S", bound=Sized)


class SceneCache(Generic[S]):
    """Scenes by number, each read when it is first used, or used again after it was dropped.

    Args:
        read: reads the scene of a number.
        max_bytes: budget; the scene in use is kept even if it alone exceeds it.
    """

    def __init__(self, read: Callable[[int], S], *, max_bytes: int = CACHE_BYTES) -> None:
        self._read, self._left = read, max_bytes
        self._kept: OrderedDict[int, S] = OrderedDict()

    def __getitem__(self, idx: int) -> S:
        if idx not in self._kept:
            scene = self._read(idx)
            self._left -= scene.num_bytes
            while self._left < 0 and self._kept:
                self._left += self._kept.popitem(last=False)[1].num_bytes
            self._kept[idx] = scene
        self._kept.move_to_end(idx)
        return self._kept[idx]
