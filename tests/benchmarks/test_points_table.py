"""The benchmark's table: its settings exist, its goals are those of the rows, its scores those of the metric."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.points_shelf import SETTINGS
from benchmarks.points_table import OPTIONS, ROOMS, SEEDS, SLICE, TEST_ROOMS, Table, parse
from benchmarks.shared.points_rows import Row, measure, spread
from ov3d.common.base.config import load_config
from ov3d.common.scenes.scene import IGNORE, PointCloud, Scene
from ov3d.points.config import PointsConfig


def _row(present: float) -> Row:
    return Row(0.5 * present, 0.5, present, 0.6, 0.9)


def _table(**levels: dict[str, float]) -> Table:
    table = Table.__new__(Table)
    table.options = parse([])
    table.rows = {
        int(level.removeprefix("at")): {name: {"classes": [_row(value)] * 3} for name, value in rows.items()}
        for level, rows in levels.items()
    }
    return table


def test_settings_are_known() -> None:
    for name, settings in OPTIONS.items():
        own = [setting.format(validation="room-1,room-2") for setting in settings]
        config = load_config(PointsConfig, None, ["preset=cpu", *own])
        assert name == "turns" or config != load_config(PointsConfig, None, ["preset=cpu"])
    load_config(PointsConfig, None, ["preset=cpu", *SLICE])
    load_config(PointsConfig, None, SETTINGS)


def test_goals_follow_from_the_rows() -> None:
    low = {"fused": 0.50, "filtered": 0.52, "specialised": 0.515, "guided": 0.506}
    unseen = {"unseen: fused": 0.6, "unseen: guided": 0.5}
    goals = _table(at0=low, at30={**low, "guided": 0.551, **unseen}, at15=low).goals()
    values = {name: (round(goal["value"], 3), goal["met"]) for name, goal in goals.items()}
    assert values == {
        "0 %: worst step from stage to stage": (-0.009, True),
        "30 %: guided - fused, training rooms": (0.051, True),
        "30 %: guided / fused, unseen rooms": (0.833, True),
    }
    missed = _table(at0={**low, "guided": 0.50}, at45={**low, **unseen, "unseen: guided": 0.47}).goals()
    assert [goal["met"] for goal in missed.values()] == [False, False, False]


def test_a_slice_has_goals_of_its_own() -> None:
    table = _table(
        at30={"fused": 0.3, "specialised": 0.26, "guided": 0.04, "unseen: fused": 0.3, "unseen: guided": 0.1}
    )
    table.options = parse(["--slice"])
    assert [goal["met"] for goal in table.goals().values()] == [True, False]


def test_the_whole_table_is_the_issues() -> None:
    options = parse([])
    assert (options.rooms, options.test_rooms, options.levels) == (list(ROOMS), list(TEST_ROOMS), [0, 15, 30, 45])
    assert (len(ROOMS), len(TEST_ROOMS), SEEDS) == (12, 4, (0, 1, 2))
    assert not {*ROOMS, *TEST_ROOMS} & {*parse(["--slice"]).rooms, *parse(["--slice"]).test_rooms}


def test_points_without_an_answer_are_missed_and_all_classes_count() -> None:
    labels = np.array([0, 0, 1, IGNORE], np.int32)
    cloud = PointCloud(np.zeros((4, 3), np.float32), labels=labels)
    scene = Scene("room", Path("room"), "cloud", cloud=cloud, classes=("a", "b", "c"))
    row = measure([scene], 3, lambda scene: np.array([0, IGNORE, 1, 2], np.int32))
    assert row.miou == pytest.approx((0.5 + 1 + 0) / 3)
    assert row.miou_present == pytest.approx(0.75)
    assert row.coverage == pytest.approx(2 / 3)
    two = spread([row, _row(0.25)])
    assert two["mean"]["miou_present"] == pytest.approx(0.5)
    assert two["std"]["miou_present"] == pytest.approx(0.25)
