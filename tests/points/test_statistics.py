"""What normalisation normalises by: the scan's own statistics, mixed with the training's, and only while it is asked about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ov3d.common.sparse.blocks import BatchNorm
from ov3d.common.sparse.voxels import SparseTensor, VoxelGrid, voxelise
from ov3d.points.network import PointNetwork
from ov3d.points.statistics import PRIOR_VOXELS, statistics_of, take_statistics
from tests.points.networks import SPEC, make_network, room

SCAN = replace(SPEC, statistics="scan")


def _all(network: nn.Module) -> list[np.ndarray]:
    norms = [module for module in network.modules() if isinstance(module, BatchNorm)]
    return [part.numpy().copy() for norm in norms for part in (norm.running_mean, norm.running_var)]


class _OneNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = BatchNorm(4)

    def forward(self, x: SparseTensor) -> torch.Tensor:
        return self.norm(x.feats)  # type: ignore[no-any-return]


def _input(network: PointNetwork, seed: int = 0) -> SparseTensor:
    return network.voxels(*room(seed, count=4_000))[0]


def _same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_with_a_scan_it_answers_as_in_training() -> None:
    """As many voxels as to make the mixing of equation (1) vanish: what a step of training would have given."""
    network = make_network()
    x = _input(network)
    with torch.no_grad(), statistics_of(network, [x], 10**12):
        answer = network(x)
    network.train()
    with torch.no_grad():
        expected = network(x)
    # Running variances are those of a sample, n / (n - 1) of what a step divides by; the coarsest level has few voxels.
    assert torch.nn.functional.cosine_similarity(answer, expected).min() > 0.999


def test_the_mixture_follows_the_number_of_voxels() -> None:
    network = make_network()
    x, before = _input(network), _all(network)
    with statistics_of(network, [x], PRIOR_VOXELS):
        mixed = _all(network)
    take_statistics(network, [x])
    for a, b, both in zip(before, _all(network), mixed, strict=True):
        np.testing.assert_allclose(both, (a + b) / 2, rtol=1e-5, atol=1e-6)


def test_statistics_are_put_back_and_so_is_the_mode() -> None:
    network = make_network()
    before = _all(network)

    def broken() -> Iterator[SparseTensor]:
        yield _input(network)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), statistics_of(network, broken(), 100):
        raise AssertionError("not reached")
    assert _same(_all(network), before) and not network.training
    with statistics_of(network, [_input(network)], 100):
        assert not _same(_all(network), before) and not network.training
    assert _same(_all(network), before)


def test_parts_make_a_whole() -> None:
    """In a network of one layer, the statistics of parts of different sizes are those of all their voxels."""
    grid, _ = voxelise(torch.arange(700).float()[:, None].expand(-1, 3), 1.0)
    feats = torch.randn(700, 4, generator=torch.Generator().manual_seed(0)).cumsum(0)
    network = _OneNorm()
    with statistics_of(network, [SparseTensor(grid, feats)], 10**12):
        whole = _all(network)
    bounds = [slice(0, 100), slice(100, 110), slice(110, 700)]
    parts = [SparseTensor(VoxelGrid(grid.coords[rows]), feats[rows]) for rows in bounds]
    with statistics_of(network, parts, 10**12):
        for a, b in zip(whole, _all(network), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-2)  # variances of samples of ten are a tenth larger


def test_one_point_has_no_statistics_of_its_own() -> None:
    rgb = np.full((1, 3), 200, np.uint8)
    by_scan, by_training = (make_network(spec=spec).embed(np.ones((1, 3), np.float32), rgb) for spec in (SCAN, SPEC))
    np.testing.assert_allclose(by_scan, by_training, atol=1e-6)


def test_what_was_asked_before_changes_nothing() -> None:
    network, (xyz, rgb) = make_network(spec=SCAN), room(count=4_000)
    first = network.embed(xyz, rgb)
    network.embed(*room(1, count=2_000))
    np.testing.assert_array_equal(network.embed(xyz, rgb), first)
    assert not np.allclose(make_network().embed(xyz, rgb), first, atol=1e-3)
