"""Gathering against a slow twin: an explicit loop over all crops at each pixel, in fp64."""

from __future__ import annotations

import numpy as np
import pytest

from ov3d.common.features.crops import CropPlan
from ov3d.common.features.views import CropFeatures, SegmentFeatures

SIZES = [(96, 72), (61, 83), (40, 40)]


def random_view(size: tuple[int, int], plan: CropPlan, dim: int = 12) -> tuple[CropFeatures, list[np.ndarray]]:
    rng = np.random.default_rng(5)
    grids = plan.boxes(*size)
    vectors = [rng.normal(size=(len(grid), dim)) for grid in grids]
    vectors = [(v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float16) for v in vectors]
    return CropFeatures(grids, np.concatenate(vectors), size, plan.working_size(*size), plan.sigma), vectors


def slow_features(size: tuple[int, int], plan: CropPlan, vectors: list[np.ndarray], pixel: np.ndarray) -> np.ndarray:
    """[scales, d] of one pixel."""
    working = plan.working_size(*size)
    u, v = (pixel + 0.5) * np.array(working) / np.array(size)
    scales = []
    for grid, table in zip(plan.boxes(*size), vectors, strict=True):
        total = np.zeros(table.shape[1])
        for (x, y), vector in zip(grid.corners(), table.astype(np.float64), strict=True):
            if x <= u < x + grid.size and y <= v < y + grid.size:
                squared = (u - x - grid.size / 2) ** 2 + (v - y - grid.size / 2) ** 2
                total += np.exp(-squared / (2 * (plan.sigma * grid.size) ** 2)) * vector
        scales.append(total / np.linalg.norm(total))
    return np.array(scales)


def every_pixel(size: tuple[int, int], step: int = 1) -> np.ndarray:
    rows, columns = np.mgrid[0 : size[1] : step, 0 : size[0] : step].reshape(2, -1)
    return np.column_stack([columns, rows])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "plan",
    [CropPlan((0.25, 0.42)), CropPlan((0.3,), stride=0.5, sigma=0.2), CropPlan((0.3, 0.5, 1.0), working_side=50)],
)
def test_gather_equals_a_loop_over_all_crops(size: tuple[int, int], plan: CropPlan) -> None:
    view, vectors = random_view(size, plan)
    pixels = np.concatenate([every_pixel(size, 7), [[size[0] - 1, size[1] - 1], [0, size[1] - 1]]])
    slow = np.array([slow_features(size, plan, vectors, pixel) for pixel in pixels])
    np.testing.assert_allclose(view.features_at(pixels), slow, atol=2e-6)
    combined = slow.mean(1) / np.linalg.norm(slow.mean(1), axis=1, keepdims=True)
    np.testing.assert_allclose(view.pixel_features(pixels), combined, atol=2e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", [1, 3, 8])
def test_relevancy_equals_the_dense_way(size: tuple[int, int], step: int) -> None:
    plan = CropPlan((0.25, 0.42, 0.6), working_side=80)
    view, _ = random_view(size, plan)
    text = np.random.default_rng(1).normal(size=view.dim).astype(np.float32)
    text /= np.linalg.norm(text)
    dense = view.pixel_features(every_pixel(size, step)) @ text
    shape = (-(-size[1] // step), -(-size[0] // step))
    np.testing.assert_allclose(view.relevancy(text, step), dense.reshape(shape), atol=1e-6)


def test_relevancy_of_a_tall_map_is_the_same_in_blocks() -> None:
    size, plan = (20, 600), CropPlan((0.1,))
    view, _ = random_view(size, plan)
    text = np.eye(view.dim, dtype=np.float32)[0]
    dense = view.pixel_features(every_pixel(size)) @ text
    np.testing.assert_allclose(view.relevancy(text, 1), dense.reshape(600, 20), atol=1e-6)


def test_zero_vectors_give_zero_features_and_scores() -> None:
    plan = CropPlan((0.5, 0.7))
    grids = plan.boxes(32, 24)
    view = CropFeatures(grids, np.zeros((sum(map(len, grids)), 5), dtype=np.float16), (32, 24), (32, 24), 0.25)
    assert not view.features_at(every_pixel((32, 24))).any()
    assert not view.relevancy(np.ones(5, dtype=np.float32), 4).any()


def test_no_pixels_give_no_rows() -> None:
    view, _ = random_view((96, 72), CropPlan())
    assert view.features_at(np.zeros((0, 2), dtype=np.int64)).shape == (0, 2, 12)
    assert view.pixel_features(np.zeros((0, 2), dtype=np.int64)).shape == (0, 12)


def test_segments_are_looked_up_at_the_frames_own_size() -> None:
    rng = np.random.default_rng(2)
    segments = rng.integers(0, 6, (12, 16)).astype(np.uint16)
    vectors = rng.normal(size=(6, 5))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    view = SegmentFeatures(segments, vectors, (64, 48))
    pixels = every_pixel((64, 48))
    expected = vectors[[segments[row // 4, column // 4] for column, row in pixels]].astype(np.float32)
    np.testing.assert_allclose(view.pixel_features(pixels), expected, atol=1e-3)
    np.testing.assert_array_equal(view.features_at(pixels)[:, 0], view.pixel_features(pixels))
    text = np.eye(5, dtype=np.float32)[1]
    np.testing.assert_array_equal(
        view.relevancy(text, 5), (view.pixel_features(every_pixel((64, 48), 5)) @ text).reshape(10, 13)
    )
