"""Answers: presence on raw scores, notes, JSON, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ov3d.common.asking.answer import Answer
from ov3d.common.asking.ask import ask
from ov3d.common.asking.index import LanguageIndex
from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.language.cards import EncoderCard, Identity
from ov3d.common.scenes.scene import World

DIM = 6
WORDS = {name: np.eye(DIM, dtype=np.float32)[i] for i, name in enumerate(("floor", "cat", "book", "piano"))}


def make_index(
    *, seen: bool = True, vocabulary: tuple[str, ...] = (), origin: tuple[float, float, float] = (0, 0, 0)
) -> LanguageIndex:
    """A floor, a cat of cosine 0.8 at (1, 0, 0.5), a book of 0.5 at (-1, 0, 0.5); some points nobody saw."""
    lattice = np.stack(np.meshgrid(*[np.arange(-2, 3) * 0.05] * 3, indexing="ij"), -1).reshape(-1, 3)
    ground = np.stack(np.meshgrid(np.arange(-40, 41) * 0.05, np.arange(-20, 21) * 0.05, [0.0], indexing="ij"), -1)
    places = np.array([[1, 0, 0.5], [-1, 0, 0.5], [0, 0, 3]])
    parts = [ground.reshape(-1, 3), *(lattice + place for place in places)]
    xyz = np.concatenate(parts).astype(np.float32)
    code = np.zeros((4, DIM), np.float16)
    code[0, 0], code[1, 1], code[2, 2] = 0.9, 0.8, 0.5
    owner = np.repeat(np.array([0, 1, 2, -1], np.int32), [len(part) for part in parts])
    identity = Identity("toy", "seed:0", "none", "fp32")
    return LanguageIndex(
        xyz=xyz,
        code=code,
        basis=np.eye(DIM, dtype=np.float32),
        owner=owner if seen else np.full(len(xyz), -1, np.int32),
        scene="room",
        scene_path="room",
        world=World(origin=tuple(float(value) for value in origin)),  # type: ignore[arg-type]
        backend="points/fuse",
        encoder=EncoderCard("toy", identity, identity, DIM, 100.0, 0.2, knows_attributes=False),
        vocabulary=vocabulary,
        facts={"point_spacing": 0.05},
    )


def test_a_cat_is_found_where_it_stands() -> None:
    answer = ask(make_index(), "a cat", WORDS["cat"])
    (cat,) = answer.objects
    assert answer.found
    assert answer.threshold == 0.2
    assert answer.best_score == cat.score == pytest.approx(0.8, abs=1e-3)
    np.testing.assert_allclose(cat.centre, [1, 0, 0.5], atol=1e-3)
    np.testing.assert_allclose(cat.size, [0.2] * 3, atol=0.02)
    assert cat.num_points == 125
    assert answer.headline == "1 object matches 'a cat' in room"
    assert answer.notes == ()


def test_a_mixed_prompt_ranks_and_top_cuts() -> None:
    both = (WORDS["cat"] + WORDS["book"]) / np.sqrt(np.float32(2))
    answer = ask(make_index(), "a cat on a book", both)
    assert [round(item.score, 2) for item in answer.objects] == [0.57, 0.35]
    cut = ask(make_index(), "a cat on a book", both, top=1)
    assert len(cut.objects) == 1
    assert cut.num_objects == 2
    assert cut.headline.startswith("2 objects match")


def test_nothing_there_is_an_answer() -> None:
    answer = ask(make_index(), "a piano", WORDS["piano"])
    assert not answer.found
    assert answer.headline == "nothing in this scene matches 'a piano' (best score 0.00, threshold 0.20)"
    assert ask(make_index(), "a book", WORDS["book"], threshold=0.6).headline.endswith(
        "(best score 0.50, threshold 0.60)"
    )


def test_what_comes_close_is_named_but_not_found() -> None:
    answer = ask(make_index(), "a book", WORDS["book"], threshold=0.6)
    assert (answer.found, answer.num_objects, answer.to_json()["objects"]) == (False, 0, [])
    (close,) = answer.nearly
    assert close.score <= answer.best_score < answer.threshold  # nothing that is shown is better than the best
    assert 0.48 <= close.score < 0.6
    assert answer.to_json()["nearly"][0]["num_points"] == close.num_points
    assert ask(make_index(), "a book", WORDS["book"], threshold=0.7).nearly == ()
    assert ask(make_index(), "a book", WORDS["book"]).nearly == ()


def test_a_few_stray_points_are_no_object_and_are_named() -> None:
    index = make_index()
    code = np.concatenate([index.code, np.eye(DIM, dtype=np.float16)[[3]]])
    owner = index.owner.copy()  # type: ignore[union-attr]
    owner[:3321:150] = 4
    answer = ask(replace(index, code=code, owner=owner), "a piano", WORDS["piano"])
    assert not answer.found
    assert "scattered" in answer.notes[0]


def test_json_restores_the_origin_and_round_trips() -> None:
    answer = ask(make_index(origin=(400000.25, 5000000.5, 10.0)), "a cat", WORDS["cat"])
    answer = replace(answer, ignored_words=("red",))
    data = answer.to_json()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    np.testing.assert_allclose(data["objects"][0]["centre"], [400001.25, 5000000.5, 10.5], atol=1e-3)
    assert data["objects"][0]["rank"] == 1
    assert data["ignored_words"] == ["red"]
    assert data["units"] == "m"
    assert data["found"] is True


def test_unseen_points_never_match() -> None:
    index = make_index()
    everywhere = ask(index, "anything", WORDS["floor"], threshold=-1.0)
    assert max(int(item.point_idx.max()) for item in everywhere.objects) < len(index) - 125
    blind = ask(make_index(seen=False), "a cat", WORDS["cat"])
    assert not blind.found
    assert blind.best_score == 0
    assert "no camera saw" in blind.notes[0]


def test_vocabulary_is_minded() -> None:
    index = make_index(vocabulary=("Cat", "floor"))
    assert ask(index, "cat", WORDS["cat"]).notes == ask(index, "a cat", WORDS["cat"]).notes == ()
    assert ask(index, "book", WORDS["book"]).notes == (
        "this prompt is outside the training vocabulary: weakly supervised",
    )


def test_scenes_of_one_point_and_of_none() -> None:
    index = make_index()
    one = replace(index, xyz=index.xyz[-200:-199], owner=np.array([1], np.int32), facts={})
    answer = ask(one, "a cat", WORDS["cat"])
    assert [item.num_points for item in answer.objects] == [1]
    assert np.isfinite([*answer.objects[0].centre, *answer.objects[0].size]).all()
    none = replace(index, xyz=index.xyz[:0], owner=np.zeros(0, np.int32), facts={})
    assert not ask(none, "a cat", WORDS["cat"]).found


def with_instances(index: LanguageIndex) -> LanguageIndex:
    """The cat as object 7, its nearest fifth and the book as object 3, the floor and what nobody saw as none."""
    instance = np.full(len(index), -1, np.int32)
    cat, book = np.flatnonzero(index.owner == 1), np.flatnonzero(index.owner == 2)
    instance[cat], instance[book] = 7, 3
    instance[cat[:25]] = 3
    return replace(index, instance=instance)


def test_stored_instances_are_the_objects() -> None:
    index = with_instances(make_index())
    assert index.instance is not None
    book, cat = np.flatnonzero(index.instance == 3), np.flatnonzero(index.instance == 7)
    answer = ask(index, "a cat", WORDS["cat"])
    # Grouped by their scores the cat's points would be one object; stored, they are parts of two.
    assert [item.num_points for item in answer.objects] == [150, 100]
    assert answer.num_objects == 2 and answer.best_score == pytest.approx(0.8, abs=1e-3)
    for item, members in zip(answer.objects, (book, cat), strict=True):
        np.testing.assert_array_equal(item.point_idx, members)
        np.testing.assert_allclose(item.centre, index.xyz[members].mean(axis=0), atol=1e-6)
        spread = index.xyz[members].max(axis=0) - index.xyz[members].min(axis=0)
        assert (item.size <= spread + 1e-6).all() and (item.size >= 0.9 * spread).all()
        assert item.score == pytest.approx(0.8, abs=1e-3)  # the best tenth of either is cat
    assert [item.num_points for item in ask(index, "a book", WORDS["book"]).objects] == [150]


def test_a_stored_instance_is_present_by_its_best_tenth() -> None:
    index = with_instances(make_index())
    few = np.array(index.owner)
    book = np.flatnonzero(few == 2)
    few[book[:3]] = 1  # three stray points: the best tenth of 150 is on average far from a cat
    few[np.flatnonzero(index.instance == 3)[:25]] = 2
    index = replace(index, owner=few)
    assert [item.num_points for item in ask(index, "a cat", WORDS["cat"]).objects] == [100]
    faint = ask(index, "a cat", WORDS["cat"], threshold=0.85)
    assert not faint.found and [item.num_points for item in faint.nearly] == [100]


def test_points_of_no_instance_are_grouped_and_never_with_one() -> None:
    index = with_instances(make_index())
    floor = ask(index, "the floor", WORDS["floor"])
    assert len(floor.objects) == 1 and floor.objects[0].num_points == 81 * 41
    assert index.instance is not None
    one_gone = index.instance.copy()
    one_gone[index.instance == 7] = -1
    answer = ask(replace(index, instance=one_gone), "a cat", WORDS["cat"])
    assert [item.num_points for item in answer.objects] == [150, 100]  # object 3, and the grouped rest beside it


def test_what_nobody_saw_counts_in_an_instances_extent_alone() -> None:
    index = make_index()
    instance = np.full(len(index), -1, np.int32)
    unseen = np.flatnonzero(index.owner == -1)
    instance[unseen] = 0
    (cat,) = ask(replace(index, instance=instance), "a cat", WORDS["cat"]).objects
    assert not np.isin(cat.point_idx, unseen).any()
    owner = np.array(index.owner)
    owner[unseen[:3]] = 1
    found = ask(replace(index, instance=instance, owner=owner), "a cat", WORDS["cat"]).objects
    (seen_in_part,) = (item for item in found if unseen[0] in item.point_idx)
    np.testing.assert_array_equal(seen_in_part.point_idx, unseen)
    assert seen_in_part.score == pytest.approx(0.8, abs=1e-3)


def test_the_answer_equals_scores_of_the_index() -> None:
    index = make_index()
    answer = ask(index, "a cat", WORDS["cat"])
    assert isinstance(answer, Answer)
    np.testing.assert_array_equal(answer.scores, index.scores(WORDS["cat"][None])[:, 0])


def test_what_cannot_be_asked_is_refused() -> None:
    index = make_index()
    with pytest.raises(UsageError, match="--top must be at least 1, got 0"):
        ask(index, "a cat", WORDS["cat"], top=0)
    for threshold in (1.5, float("nan")):
        with pytest.raises(UsageError, match=f"--threshold must be between -1 and 1, got {threshold:g}"):
            ask(index, "a cat", WORDS["cat"], threshold=threshold)
    with pytest.raises(DataError, match="needs 6"):
        ask(index, "a cat", np.zeros(5, np.float32))
    with pytest.raises(DataError, match="not finite"):
        ask(index, "a cat", np.full(6, np.nan, np.float32))
