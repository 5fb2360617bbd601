"""What normalisation normalises by: the scan's own statistics, mixed with the training's, and only while it is asked about."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ov3d.common.sparse.blocks import BatchNorm
from ov3d.common.sparse.voxels import SparseTensor
from ov3d.points.network import PointNetwork
from ov3d.points.statistics import PRIOR, own_statistics
from tests.points.networks import SPEC, make_network, room

SCAN = replace(SPEC, statistics="scan")


def _all(network: nn.Module) -> list[np.ndarray]:
    norms = [module for module in network.modules() if isinstance(module, BatchNorm)]
    return [part.numpy().copy() for norm in norms for part in (norm.running_mean, norm.running_var)]


def _input(network: PointNetwork, seed: int = 0) -> SparseTensor:
    return network.voxels(*room(seed, count=4_000))[0]


def test_with_a_scan_it_answers_as_in_training() -> None:
    """As many voxels as to make the mixing of equation (1) vanish: what a step of training would have given."""
    network = make_network()
    x = _input(network)
    with torch.no_grad(), own_statistics(network, 10**12, usual=1):
        answer = network(x)
    network.train()
    with torch.no_grad():
        torch.testing.assert_close(answer, network(x), rtol=1e-4, atol=1e-4)


def test_the_mixture_follows_the_number_of_voxels() -> None:
    norm = BatchNorm(4).eval()
    rows = torch.randn(700, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1
    norm.running_mean, norm.running_var = torch.full((4,), 2.0), torch.full((4,), 5.0)
    with own_statistics(nn.Sequential(norm), 700, usual=round(700 / PRIOR)):  # half and half
        answer = norm(rows)
    mean, var = (rows.mean(0) + 2) / 2, (rows.var(0, correction=0) + 5) / 2
    torch.testing.assert_close(answer, (rows - mean) / (var + norm.eps).sqrt())


def test_statistics_of_the_training_stay_and_so_does_the_mode() -> None:
    network = make_network()
    x, before = _input(network), _all(network)
    with torch.no_grad():
        usual = network(x)
    with pytest.raises(KeyboardInterrupt), own_statistics(network, 5_000, usual=100):
        network(x)
        raise KeyboardInterrupt
    assert all(np.array_equal(a, b) for a, b in zip(_all(network), before, strict=True))
    with torch.no_grad():
        torch.testing.assert_close(network(x), usual, rtol=0, atol=0)


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
