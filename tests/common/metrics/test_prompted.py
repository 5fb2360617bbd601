"""Asking for some classes: what every answer and every true class is numbered as."""

from __future__ import annotations

import numpy as np
import pytest

from ov3d.common.base.errors import UsageError
from ov3d.common.metrics.prompted import PromptedTable, Question, check_known, true_classes
from ov3d.common.scenes.scene import IGNORE

KNOWN = ("wall", "cat", "cup")


@pytest.fixture
def question() -> Question:
    return Question.of(KNOWN, ("cup", "cat"), np.eye(2, dtype=np.float32), threshold=0.5)


def test_true_classes_get_the_number_of_their_prompt(question: Question) -> None:
    truth = np.array([0, 1, 2, IGNORE], np.int32)
    assert question.numbers[truth].tolist() == [2, 1, 0, IGNORE]


def test_the_best_class_wins_where_it_reaches_the_threshold(question: Question) -> None:
    scores = np.array([[0.9, 0.6], [0.4, 0.5], [0.4, 0.3], [0.7, 0.7]], np.float32)
    assert question.answers(scores).tolist() == [0, 1, 2, 0]
    assert question.answers(scores, np.array([False, True, True, True])).tolist() == [2, 1, 2, 0]


def test_a_wall_called_a_cat_costs_the_cat(question: Question) -> None:
    confusion = question.confusion()
    scores = np.array([[0.1, 0.9], [0.1, 0.9], [0.8, 0.2], [0.1, 0.1]], np.float32)
    confusion.update(question.answers(scores), question.numbers[np.array([0, 1, 2, IGNORE])])
    table = PromptedTable("points", question.classes, confusion.compute())
    assert table.scores.num_points == 3
    assert table.scores.iou[:2].tolist() == [1.0, 0.5]
    assert table.mean_iou == 0.75
    assert table.mean_accuracy == 1.0
    assert table.mean_iou_with_other == 0.5


def test_classes_with_truth() -> None:
    assert true_classes(KNOWN, np.array([2, IGNORE, 0, 2], np.int32)) == ("wall", "cup")
    assert true_classes(KNOWN, np.array([IGNORE], np.int32)) == ()


def test_an_unknown_class_is_refused_with_the_nearest_name() -> None:
    check_known("desk", KNOWN, ("cup", "wall"))
    with pytest.raises(UsageError, match=r"Scene desk has no class 'cap'\. Did you mean cup"):
        check_known("desk", KNOWN, ("cat", "cap"))
