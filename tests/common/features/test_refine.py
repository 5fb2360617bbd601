from __future__ import annotations

import builtins

import numpy as np
import pytest
import torch

from ov3d.common.base.errors import MissingModelError, UsageError
from ov3d.common.features.crops import CropPlan
from ov3d.common.features.refine import RefineConfig, Refiner, cell_shares, propagate, refine, superpixels
from ov3d.common.features.views import CropFeatures
from ov3d.common.language.cards import Identity
from tests.common.features.fakes import FakePatches, picture

CPU = torch.device("cpu")


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def bilinear(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """A map interpolated between the centres of cells, one pixel at a time."""
    rows, columns, dim = grid.shape
    out = np.empty((height, width, dim))
    for i in range(height):
        y = min(max((i + 0.5) * rows / height - 0.5, 0), rows - 1)
        for j in range(width):
            x = min(max((j + 0.5) * columns / width - 0.5, 0), columns - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            a, b = y - top, x - left
            upper = (1 - b) * grid[top, left] + b * grid[top, right]
            lower = (1 - b) * grid[bottom, left] + b * grid[bottom, right]
            out[i, j] = (1 - a) * upper + a * lower
    return out


def test_defaults_are_those_that_were_measured() -> None:
    config = RefineConfig()
    assert config.grid(640, 480) == config.grid(4000, 3000) == (48, 64)
    assert config.grid(480, 640) == (64, 48)
    assert (config.affinity_floor, config.affinity_power, config.superpixels, config.compactness) == (0.6, 8, 400, 20)


def test_propagation_equals_a_loop_over_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ov3d.common.features.refine._BLOCK", 7)
    rng = np.random.default_rng(0)
    tokens, features = unit(rng.normal(size=(40, 3))), unit(rng.normal(size=(40, 6)))
    expected = np.empty_like(features)
    for i in range(40):
        weights = [max(float(tokens[i] @ tokens[j]), 0.0) for j in range(40)]
        weights = [weight**8 if weight >= 0.6 else 0.0 for weight in weights]
        expected[i] = sum(weight * row for weight, row in zip(weights, features, strict=True)) / sum(weights)
    spread = propagate(torch.from_numpy(features), torch.from_numpy(tokens), RefineConfig())
    np.testing.assert_allclose(spread.numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("grid", [(5, 7), (1, 7), (3, 1), (20, 30)])
def test_shares_give_the_mean_of_the_interpolated_map(grid: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    segments = (np.arange(12 * 18).reshape(12, 18) // 50).astype(np.uint16)
    cells = rng.normal(size=(*grid, 4))
    dense = bilinear(cells, 12, 18)
    expected = [dense[segments == idx].mean(0) for idx in range(int(segments.max()) + 1)]
    np.testing.assert_allclose(cell_shares(segments, grid) @ cells.reshape(-1, 4), expected, atol=1e-12)


@pytest.mark.offline_weights
def test_refine_equals_its_steps_done_slowly() -> None:
    image, config = picture(4, 64, 48), RefineConfig(grid_side=16, superpixels=15, image_side=32)
    plan, rng = CropPlan((0.4,)), np.random.default_rng(3)
    grids = plan.boxes(64, 48)
    vectors = unit(rng.normal(size=(len(grids[0]), 5))).astype(np.float16)
    view = CropFeatures(grids, vectors, (64, 48), (64, 48), plan.sigma)
    segments, found = refine(view, image, (64, 48), FakePatches(), config, device=CPU)
    assert segments.shape == (24, 32)
    tokens = FakePatches().encode_patches(torch.from_numpy(image.transpose(2, 0, 1).copy()), (12, 16)).reshape(192, 4)
    centres = np.array([[4 * j + 2, 4 * i + 2] for i in range(12) for j in range(16)])
    spread = propagate(torch.from_numpy(view.pixel_features(centres)), tokens, config).numpy()
    dense = bilinear(spread.reshape(12, 16, 5), 24, 32)
    expected = unit(np.array([dense[segments == idx].mean(0) for idx in range(len(found))]))
    np.testing.assert_allclose(found.astype(np.float64), expected, atol=1e-3)


@pytest.mark.offline_weights
def test_superpixels_are_numbered_without_gaps_and_repeat() -> None:
    image, config = picture(5, 80, 60), RefineConfig(superpixels=30)
    segments = superpixels(image, config)
    assert segments.shape == (60, 80)
    assert set(np.unique(segments)) == set(range(int(segments.max()) + 1))
    assert 10 <= segments.max() + 1 <= 60
    np.testing.assert_array_equal(segments, superpixels(image, config))


def test_without_scikit_image_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("skimage"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingModelError, match=r"pip install 'ov3d\[offline\]'"):
        superpixels(picture(0, 20, 10), RefineConfig())


def test_key_tells_numbers_and_patch_encoder() -> None:
    identity = FakePatches.identity
    refiner = Refiner(RefineConfig(), identity)
    assert Refiner.from_json(refiner.to_json()) == refiner
    others = [
        Refiner(RefineConfig(affinity_floor=0.5), identity),
        Refiner(RefineConfig(), Identity("other", "none", "cell means", "float32")),
    ]
    assert len({refiner.key, *(other.key for other in others)}) == 3


@pytest.mark.parametrize("wrong", [{"superpixels": 0}, {"superpixels": 70_000}, {"affinity_floor": 1.0}])
def test_impossible_numbers_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        RefineConfig(**wrong)
