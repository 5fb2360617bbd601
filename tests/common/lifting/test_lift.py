"""Lifting: the mean a slow loop gives, whatever the blocks, wherever the world stands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ov3d.common.base.errors import CorruptFileError
from ov3d.common.lifting import lift as lift_module
from ov3d.common.lifting.lift import LiftConfig, LiftedFeatures, lift, lifted_key, read_lifted, write_lifted
from ov3d.common.lifting.projection import median_spacing, visible_in_frame
from ov3d.common.scenes.scene import Frame, PointCloud, Scene
from tests.common.small_scenes import box_scene

DIM = 24
CONFIG = LiftConfig(border=2)


class SmoothFeatures:
    """Unit vectors that turn smoothly with the pixel, differently in every frame."""

    def __init__(self, dtype: type = np.float32) -> None:
        self.dtype = dtype
        self.asked: list[int] = []  # appending is safe from several threads

    def key(self, frame: Frame) -> str:
        return f"smooth-{frame.name}"

    def pixel_features(self, frame: Frame, uv: np.ndarray) -> np.ndarray:
        self.asked.append(len(uv))
        waves = np.random.default_rng(int(frame.name)).normal(size=(2, DIM)) / 20
        values = np.cos((np.floor(uv) + 0.5) @ waves + np.arange(DIM)) + 0.3  # a pixel's feature is its centre's
        return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(self.dtype)


def _gathered(scene: Scene, source: SmoothFeatures, config: LiftConfig) -> dict[int, list[np.ndarray]]:
    """A list of vectors a point."""
    assert scene.cloud is not None
    spacing = median_spacing(scene.cloud.xyz)
    gathered: dict[int, list[np.ndarray]] = {}
    for frame in scene.frames:
        seen = visible_in_frame(scene.cloud.xyz, frame, config, spacing=spacing)
        for idx, uv in zip(seen.point_idx.tolist(), seen.uv, strict=True):
            gathered.setdefault(idx, []).append(source.pixel_features(frame, uv[None])[0])
    return gathered


def _slow_lift(scene: Scene, source: SmoothFeatures, config: LiftConfig) -> dict[int, np.ndarray]:
    """The lists, averaged at the end."""
    gathered = _gathered(scene, source, config)
    return {idx: np.mean(np.asarray(vectors, np.float64), axis=0) for idx, vectors in gathered.items()}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    whole = box_scene(tmp_path / "box", 5)
    assert whole.cloud is not None
    return replace(whole, cloud=PointCloud(whole.cloud.xyz[::3]))


def _lift(scene: Scene, config: LiftConfig = CONFIG, source: SmoothFeatures | None = None) -> LiftedFeatures:
    assert scene.cloud is not None
    return lift(scene.cloud, scene.frames, source or SmoothFeatures(), config)


def test_equals_the_slow_loop(scene: Scene) -> None:
    slow = _slow_lift(scene, SmoothFeatures(), CONFIG)
    lifted = _lift(scene)
    assert lifted.point_row.tolist() == sorted(slow)
    assert 0.5 < lifted.share_seen < 1
    means = np.array([slow[idx] for idx in sorted(slow)])
    norms = np.linalg.norm(means, axis=1)
    np.testing.assert_allclose(lifted.norms, norms, atol=1e-6)
    np.testing.assert_allclose(lifted.features(), means / norms[:, None], atol=5e-4)
    assert lifted.num_views.max() > 2
    rows = lifted.row_of_point()
    assert (rows[lifted.point_row] == np.arange(len(lifted))).all()
    assert (rows == -1).sum() == lifted.num_points - len(lifted)


class PatchyFeatures(SmoothFeatures):
    """Without a feature in a third of the pixels."""

    def known(self, frame: Frame, uv: np.ndarray) -> np.ndarray:
        return (uv.astype(int).sum(axis=1) + int(frame.name)) % 3 > 0

    def pixel_features(self, frame: Frame, uv: np.ndarray) -> np.ndarray:
        return super().pixel_features(frame, uv) * self.known(frame, uv)[:, None].astype(self.dtype)


def test_pixels_without_a_feature_are_left_out_of_means(scene: Scene) -> None:
    everywhere = lift(scene.cloud, scene.frames, SmoothFeatures(), CONFIG)
    lifted = _lift(scene, source=PatchyFeatures())
    slow = {
        idx: np.mean([vector for vector in vectors if vector.any()], axis=0)
        for idx, vectors in _gathered(scene, PatchyFeatures(), CONFIG).items()
        if any(vector.any() for vector in vectors)
    }
    assert lifted.point_row.tolist() == sorted(slow)
    assert len(lifted) < len(everywhere)  # what only void pixels show has no feature at all
    means = np.array([slow[idx] for idx in sorted(slow)])
    np.testing.assert_allclose(lifted.norms, np.linalg.norm(means, axis=1), atol=1e-6)
    assert lifted.norms.min() > 0.5
    np.testing.assert_allclose(lifted.features() * lifted.norms[:, None], means, atol=5e-4)


def test_means_are_exact_in_fp32(scene: Scene) -> None:
    assert scene.cloud is not None
    slow = _slow_lift(scene, SmoothFeatures(), CONFIG)
    views = lift_module.Views(scene.cloud, scene.frames, CONFIG)
    counts = views.count()
    blocks = [mean.copy() for _, mean in lift_module.view_means(views, counts, SmoothFeatures())]
    np.testing.assert_allclose(np.concatenate(blocks), [slow[idx] for idx in sorted(slow)], atol=1e-6)


def test_blocks_and_chunks_change_no_bit(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_source, split_source = SmoothFeatures(), SmoothFeatures()
    whole = _lift(scene, source=whole_source)
    monkeypatch.setattr(lift_module, "MIN_CHUNK_ROWS", 37)
    monkeypatch.setattr(lift_module, "CHUNK_BYTES", 1)
    monkeypatch.setattr(
        lift_module, "MIB", 4 * DIM * 500
    )  # blocks of 500 rows, and room to remember less than one frame
    split = _lift(scene, CONFIG.model_copy(update={"memory_mib": 1}), split_source)
    assert len(whole) > 1500
    for name in ("code", "point_row", "norms", "num_views"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(split, name))
    assert whole.key == split.key
    assert sum(whole_source.asked) == sum(split_source.asked)  # every pixel is asked for once


def test_half_precision_sources_are_summed_in_fp32(scene: Scene) -> None:
    half, full = _lift(scene, source=SmoothFeatures(np.float16)), _lift(scene)
    np.testing.assert_allclose(half.norms, full.norms, atol=1e-3)
    assert half.norms.dtype == np.float32


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=8, deadline=None)
def test_a_rigid_motion_of_the_world_changes_no_score(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    scene = box_scene(tmp_path_factory.mktemp("moved"), 3)
    assert scene.cloud is not None
    rng = np.random.default_rng(seed)
    motion = np.eye(4)
    motion[:3, :3] = Rotation.random(random_state=rng).as_matrix()
    motion[:3, 3] = rng.uniform(-20, 20, 3)
    cloud = PointCloud(scene.cloud.xyz[::9])
    moved_cloud = PointCloud((cloud.xyz @ motion[:3, :3].T + motion[:3, 3]).astype(np.float32))
    moved_frames = [replace(one, world_from_camera=motion @ one.world_from_camera) for one in scene.frames]
    text = rng.normal(size=(4, DIM)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    here = lift(cloud, scene.frames, SmoothFeatures(), CONFIG)
    there = lift(moved_cloud, moved_frames, SmoothFeatures(), CONFIG)
    # fp32 positions twenty metres out are rounded by a micrometre: a point on the very edge of a test may change sides
    points, rows_here, rows_there = np.intersect1d(here.point_row, there.point_row, return_indices=True)
    same = here.num_views[rows_here] == there.num_views[rows_there]
    assert same.sum() >= max(len(here), len(there)) - 5
    assert len(points) > 500
    difference = here.scores(text)[rows_here[same]] - there.scores(text)[rows_there[same]]
    assert np.abs(difference).max() < 1e-3


def test_files_come_back_and_a_changed_bit_is_noticed(scene: Scene, tmp_path: Path) -> None:
    lifted = _lift(scene)
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(DIM, 16)))[0].T.astype(np.float32)
    low = replace(lifted, code=(lifted.features() @ basis.T).astype(np.float16), basis=basis, facts={"encoder": "x"})
    for one in (lifted, low):
        path = write_lifted(tmp_path / "lifted.safetensors", one)
        back = read_lifted(path)
        for name in ("code", "point_row", "norms", "num_views", "basis"):
            np.testing.assert_array_equal(getattr(back, name), getattr(one, name))
        assert (back.num_points, back.key, back.facts, back.dim) == (one.num_points, one.key, one.facts, DIM)
    np.testing.assert_allclose(low.features(np.array([3, 5])), lifted.features()[[3, 5]] @ basis.T @ basis, atol=2e-3)
    damaged = bytearray(path.read_bytes())
    damaged[-5] ^= 4
    path.write_bytes(bytes(damaged))
    with pytest.raises(CorruptFileError):
        read_lifted(path)


def test_the_key_follows_everything_that_decides_a_number(scene: Scene) -> None:
    assert scene.cloud is not None
    source = SmoothFeatures()
    first, second = scene.frames[:2]
    nudged = first.world_from_camera.copy()
    nudged[0, 3] += 1e-6
    moved = PointCloud(scene.cloud.xyz + np.float32(0.01))
    base = lifted_key(scene.cloud, scene.frames[:2], source, CONFIG)
    others = [
        lifted_key(moved, [first, second], source, CONFIG),
        lifted_key(scene.cloud, [second, first], source, CONFIG),
        lifted_key(scene.cloud, [first], source, CONFIG),
        lifted_key(scene.cloud, [replace(first, world_from_camera=nudged), second], source, CONFIG),
        lifted_key(scene.cloud, [replace(first, depth=None), second], source, CONFIG),
        lifted_key(scene.cloud, [replace(first, name="7"), second], source, CONFIG),
        lifted_key(scene.cloud, [first, second], source, CONFIG.model_copy(update={"depth_tolerance": 0.25})),
    ]
    assert base not in others
    assert len(set(others)) == len(others)
    assert base == lifted_key(scene.cloud, [first, second], source, CONFIG.model_copy(update={"memory_mib": 7}))


def test_nothing_seen_gives_no_rows(scene: Scene, tmp_path: Path) -> None:
    assert scene.cloud is not None
    far = lift(PointCloud(scene.cloud.xyz + np.float32(100)), scene.frames, SmoothFeatures(), CONFIG)
    assert (len(far), far.share_seen, far.code.shape) == (0, 0.0, (0, DIM))
    assert read_lifted(write_lifted(tmp_path / "empty.safetensors", far)).scores(np.ones((2, DIM))).shape == (0, 2)
    assert len(lift(scene.cloud, [], SmoothFeatures(), CONFIG)) == 0
