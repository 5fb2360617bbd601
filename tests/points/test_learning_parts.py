"""Pieces of the learning stages against slow twins: adapter, cosines, thresholds, pseudo labels, codes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from ov3d.common.learning.checkpoints import generator_for
from ov3d.common.lifting.lift import LiftedFeatures
from ov3d.common.scenes.scene import IGNORE
from ov3d.points.adapter import Adapter, Affine
from ov3d.points.bake import Scored, presence_threshold
from ov3d.points.config import GuideConfig, PseudoConfig
from ov3d.points.guide import confidence_of, cosines, cropped, middle_of_crop, settle
from ov3d.points.material import Room, Rooms
from ov3d.points.network import NetworkSpec, PointNetwork
from ov3d.points.pseudo_labels import PSEUDO_NAME, PseudoLabels, keep_surest, pseudo_label, write_pseudo_labels
from ov3d.points.steps import num_steps, scenes_of_step
from tests.colour_encoder import CARD


def _unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    rows = rng.normal(size=shape)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def _lifted(rng: np.random.Generator, rows: int, dim: int) -> LiftedFeatures:
    code = _unit(rng, rows, dim).astype(np.float16)
    return LiftedFeatures(
        code, np.arange(rows, dtype=np.int32), np.ones(rows, np.float32), np.ones(rows, np.int32), rows + 3, "key"
    )


def test_the_adapter_on_codes_is_the_adapter_on_features() -> None:
    rng = np.random.default_rng(0)
    adapter = Adapter(32, 0.05, torch.Generator().manual_seed(0))
    basis = np.linalg.qr(rng.normal(size=(32, 6)))[0].T.astype(np.float32)
    code, text = rng.normal(size=(9, 6)).astype(np.float32), _unit(rng, 4, 32)
    x = torch.from_numpy(code @ basis)
    slow = 0.95 * (x @ adapter.first.T @ adapter.second.T + adapter.bias) + 0.05 * x
    logits = adapter.logits(torch.from_numpy(code), torch.from_numpy(basis), torch.from_numpy(text))
    torch.testing.assert_close(logits, slow @ torch.from_numpy(text).T, rtol=1e-4, atol=1e-5)
    ones = np.ones((9, 1), np.float32)
    np.testing.assert_allclose(
        np.hstack([code, ones]) @ adapter.affine().on_codes(basis), slow.detach().numpy(), rtol=1e-4, atol=1e-5
    )
    same = Affine.identity(32).on_codes(None)
    np.testing.assert_array_equal(same[:-1], np.eye(32, dtype=np.float32))
    assert not same[-1].any()


def test_cosines_without_wide_rows() -> None:
    generator = torch.Generator().manual_seed(1)
    z, code, matrix, head = (torch.randn(shape, generator=generator) for shape in ((7, 5), (7, 4), (4, 20), (20, 5)))
    slow = cosine_similarity(z @ head.T, code @ matrix, dim=1)
    torch.testing.assert_close(cosines(z, code, matrix, head), slow, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(cosines(z, 3 * code, matrix, head), slow, rtol=1e-4, atol=1e-5)


def test_codes_are_the_vectors_in_fewer_numbers() -> None:
    torch.manual_seed(0)
    config = GuideConfig(stem_dim=4, down=(4, 4), up=(8, 4), voxel_size=0.1)
    network = PointNetwork(NetworkSpec.of(config, 24), CARD)
    rng = np.random.default_rng(0)
    xyz = rng.uniform(0, 1, (300, 3)).astype(np.float32)
    rgb = rng.integers(0, 256, (300, 3)).astype(np.uint8)
    codes, voxel = network.codes(xyz, rgb)
    assert codes.shape[1] == 8
    np.testing.assert_allclose(network.basis @ network.basis.T, np.eye(8), atol=1e-6)
    vectors = network.embed(xyz, rgb)
    lengths = np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(lengths[lengths > 0], 1, rtol=1e-5)  # so narrow a network says nothing of a few voxels
    assert (lengths > 0).mean() > 0.9
    text = _unit(rng, 3, 24)
    np.testing.assert_allclose(vectors @ text.T, (codes @ (network.basis @ text.T))[voxel], atol=1e-5)
    np.testing.assert_array_equal(network.embed(xyz, None).shape, vectors.shape)
    assert NetworkSpec.from_json(network.spec.to_json()) == network.spec


class _Clouds(Rooms):
    """Rooms of clouds alone."""

    def __init__(self, clouds: list[np.ndarray]) -> None:
        self._clouds = clouds

    def __len__(self) -> int:
        return len(self._clouds)

    def __getitem__(self, idx: int) -> Room:
        xyz = self._clouds[idx]
        lifted = _lifted(np.random.default_rng(0), 4, 16)
        none = PseudoLabels(np.zeros(4, np.int32), np.zeros(4, np.float16), ("a",), ("a",), "key")
        return Room(str(idx), xyz, None, lifted, np.full(len(xyz), -1, np.int32), none)


def test_statistics_are_settled_on_whole_rooms() -> None:
    torch.manual_seed(0)
    network = PointNetwork(NetworkSpec.of(GuideConfig(stem_dim=4, down=(4,), up=(8,), voxel_size=0.1), 16), CARD)
    rng = np.random.default_rng(0)
    rooms = _Clouds([rng.uniform(0, side, (300, 3)).astype(np.float32) for side in (1, 2, 3)])
    stem = network.unet.stem
    means = [stem.conv(network.voxels(rooms[idx].xyz, None)[0]).feats.mean(0) for idx in range(3)]  # type: ignore[operator, union-attr]
    settle(network, rooms, 0)
    assert not stem.norm.running_mean.any()  # type: ignore[operator, union-attr]
    settle(network, rooms, 16)
    torch.testing.assert_close(stem.norm.running_mean, torch.stack(means).mean(0).detach())  # type: ignore[union-attr]
    assert stem.norm.momentum == 0.1  # type: ignore[union-attr]
    assert not network.training
    settle(network, rooms, 2)
    torch.testing.assert_close(stem.norm.running_mean, torch.stack(means)[[0, 2]].mean(0).detach())  # type: ignore[union-attr]


def test_pseudo_labels_are_of_present_classes_alone() -> None:
    rng = np.random.default_rng(2)
    lifted, text = _lifted(rng, 50, 16), _unit(rng, 5, 16)
    words = ("a", "b", "c", "d", "e")
    pseudo = pseudo_label(lifted, text, words, ("b", "e"), PseudoConfig())
    scores = lifted.features() @ text[[1, 4]].T
    np.testing.assert_array_equal(pseudo.labels, np.array([1, 4])[scores.argmax(axis=1)])
    half = pseudo_label(lifted, text, words, ("b", "e"), PseudoConfig(top_share=0.5))
    for label in (1, 4):
        rows = np.flatnonzero(pseudo.labels == label)
        kept = half.labels[rows] == label
        assert kept.sum() == -(-len(rows) // 2)
        assert scores.max(axis=1)[rows][kept].min() >= scores.max(axis=1)[rows][~kept].max()
    assert half.key != pseudo.key
    whole = pseudo_label(lifted, text, words, ("b", "e"), PseudoConfig(), lambda labels: np.maximum(labels, 4))
    assert set(whole.labels.tolist()) == {4}


def test_the_surest_share_never_drops_a_class() -> None:
    labels = np.array([0, 0, 0, 1], np.int32)
    kept = keep_surest(labels, np.array([0.1, 0.3, 0.2, 0.0], np.float32), 0.01)
    np.testing.assert_array_equal(kept, [IGNORE, 0, IGNORE, 1])


def test_an_epoch_shows_every_scene_once() -> None:
    seen = [idx for step in range(3) for idx in scenes_of_step(0, "guide", step, 7, 3)]
    assert sorted(seen) == list(range(7))
    later = [idx for step in range(3, 6) for idx in scenes_of_step(0, "guide", step, 7, 3)]
    assert sorted(later) == list(range(7))
    assert seen != later


def test_a_crop_is_a_column_around_a_point() -> None:
    xyz = np.random.default_rng(0).uniform(0, 10, (500, 3)).astype(np.float32)
    rows = cropped(xyz, 2.0, 7)
    assert 7 in rows and len(rows) < 500
    assert (np.abs(xyz[rows, :2] - xyz[7, :2]) <= 1).all()
    assert (np.abs(np.delete(xyz, rows, 0)[:, :2] - xyz[7, :2]) > 1).any(axis=1).all()


def test_focus_shows_small_classes_as_often_as_large_ones() -> None:
    labels = np.zeros(500, np.int32)
    labels[400:405], labels[405:] = 1, IGNORE
    room = replace(_room(labels), xyz=np.zeros((600, 3), np.float32))
    drawn = [[middle_of_crop(room, focus, generator_for(0, "crop", idx)) for idx in range(300)] for focus in (0.0, 1.0)]
    small = [np.mean([400 <= middle < 405 for middle in one]) for one in drawn]
    assert small[0] < 0.05 and 0.4 < small[1] < 0.6
    assert max(drawn[1]) < 405  # what has no label is no class


def test_focus_without_any_label_takes_any_point() -> None:
    room = replace(_room(np.full(500, IGNORE, np.int32)), xyz=np.zeros((600, 3), np.float32))
    assert 0 <= middle_of_crop(room, 1.0, torch.Generator().manual_seed(0)) < 600


def test_steps_are_told_or_follow_from_epochs() -> None:
    assert num_steps(GuideConfig(steps=7, batch=2), 5) == 7
    assert num_steps(GuideConfig(epochs=4, batch=2), 5) == 12


def test_what_few_views_say_or_dispute_weighs_less() -> None:
    room = _room(np.zeros(3, np.int32))
    lifted = replace(room.lifted, norms=np.array([1, 1, 0.5], np.float32), num_views=np.array([1, 3, 3], np.int32))
    rows = np.arange(3)
    weights = confidence_of(replace(room, lifted=lifted), rows, GuideConfig(agreement=2, corroboration=1))
    assert np.allclose(weights, [0.5, 0.75, 0.75 * 0.25])
    alike = confidence_of(replace(room, lifted=lifted), rows, GuideConfig(agreement=0, corroboration=0))
    assert np.array_equal(alike, np.ones(3, np.float32))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_classes_weigh_one_on_average(tmp_path: Path, power: float) -> None:
    labels = np.array([0] * 90 + [1] * 9 + [IGNORE] * 5, np.int32)
    write_pseudo_labels(tmp_path / PSEUDO_NAME, _room(labels).pseudo)
    weights = Rooms([tmp_path]).class_weights(2, power)
    shares = np.array([91, 10]) / 101  # each class counts one point more
    assert np.isclose((weights * shares).sum(), 1)
    assert np.isclose(weights[1] / weights[0], (shares[1] / shares[0]) ** -power)


def _room(labels: np.ndarray) -> Room:
    """A room of as many seen points as labels, and a hundred unseen ones."""
    count = len(labels)
    point_row = np.arange(count, dtype=np.int32)
    code = np.ones((count, 2), np.float16)
    lifted = LiftedFeatures(code, point_row, np.ones(count, np.float32), np.ones(count, np.int32), count + 100, "key")
    pseudo = PseudoLabels(labels, np.ones(count, np.float16), ("a", "b"), ("a", "b"), "key")
    return Room("room", np.zeros((count + 100, 3), np.float32), None, lifted, lifted.row_of_point(), pseudo)


def _scored(peaks: list[float], present: list[bool]) -> Scored:
    return Scored(np.array(peaks), np.array(present), 0.8, 0.4)


def test_the_threshold_lies_in_the_gap() -> None:
    scenes = [_scored([0.9, 0.3, 0.7], [True, False, True]), _scored([0.8, 0.75, 0.2], [True, True, False])]
    assert presence_threshold(scenes) == pytest.approx(0.5)
    # One absent class scores high: it is believed rather than three present ones missed.
    noisy = [*scenes, _scored([0.95, 0.85, 0.1], [False, True, False])]
    assert presence_threshold(noisy) == pytest.approx(0.5)
    assert presence_threshold([_scored([0.9, 0.8], [True, True])]) == pytest.approx(0.6)
