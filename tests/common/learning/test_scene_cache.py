"""Scenes stay in memory within the budget, and the one in use always does."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ov3d.common.learning.scene_cache import SceneCache


@dataclass
class _Scene:
    number: int
    num_bytes: int = 10


@pytest.mark.parametrize(
    ("max_bytes", "used", "reads"),
    [
        (30, [0, 1, 2, 0, 1, 2], [0, 1, 2]),
        (20, [0, 1, 0, 2, 0, 1], [0, 1, 2, 1]),  # 1 was used longest ago when 2 came
        (5, [0, 0, 1, 0], [0, 1, 0]),  # larger than the budget: only the one in use is kept
    ],
)
def test_what_was_used_longest_ago_is_dropped(max_bytes: int, used: list[int], reads: list[int]) -> None:
    read: list[int] = []

    def scene(number: int) -> _Scene:
        read.append(number)
        return _Scene(number)

    cache = SceneCache(scene, max_bytes=max_bytes)
    assert [cache[number].number for number in used] == used
    assert read == reads
