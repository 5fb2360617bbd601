"""One contract for both engines: what SciPy answers on the CPU, pytorch3d answers on CUDA."""

from __future__ import annotations

import pytest
import torch

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.sparse import neighbors
from ov3d.common.sparse.neighbors import engine_for, knn, radius_search

DEVICES = [pytest.param("cpu"), pytest.param("cuda", marks=pytest.mark.gpu)]


def cloud(count: int, seed: int) -> torch.Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(seed))


def all_distances(points: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """Every distance, the slow way."""
    return (queries[:, None].double() - points[None].double()).square().sum(-1).sqrt()


@pytest.mark.parametrize("device", DEVICES)
def test_knn_equals_sorting_all_distances(device: str) -> None:
    points, queries = cloud(300, 0), cloud(40, 1)
    answer = knn(points.to(device), queries.to(device), 7)
    assert answer.indices.device.type == device and answer.distances.dtype == torch.float32
    expected = all_distances(points, queries).sort(dim=1)
    assert torch.equal(answer.indices.cpu(), expected.indices[:, :7])
    assert torch.allclose(answer.distances.cpu().double(), expected.values[:, :7], atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_radius_search_finds_all_and_only_what_is_near(device: str) -> None:
    points, queries = cloud(300, 2), cloud(40, 3)
    answer = radius_search(points.to(device), queries.to(device), 0.2, limit=64)
    distances = all_distances(points, queries)
    for row, expected in enumerate(distances < 0.2):
        assert set(answer.indices[row][answer.found[row]].tolist()) == set(expected.nonzero()[:, 0].tolist())
    assert (answer.distances[answer.found] < 0.2).all()
    assert torch.isinf(answer.distances[~answer.found]).all()


@pytest.mark.parametrize("device", DEVICES)
def test_limit_keeps_the_nearest(device: str) -> None:
    points, queries = cloud(300, 4).to(device), cloud(20, 5).to(device)
    many, few = (radius_search(points, queries, 0.4, limit=limit) for limit in (100, 3))
    assert torch.equal(few.indices, many.indices[:, :3])


@pytest.mark.parametrize("device", DEVICES)
def test_fewer_points_than_neighbours(device: str) -> None:
    answer = knn(cloud(2, 6).to(device), cloud(4, 7).to(device), 5)
    assert answer.found.sum(1).tolist() == [2] * 4
    assert (answer.indices[:, 2:] == -1).all() and torch.isinf(answer.distances[:, 2:]).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("sizes", [(0, 3), (3, 0), (0, 0)])
def test_empty_clouds(device: str, sizes: tuple[int, int]) -> None:
    answer = knn(torch.zeros(sizes[0], 3, device=device), torch.zeros(sizes[1], 3, device=device), 2)
    assert answer.indices.shape == (sizes[1], 2) and not answer.found.any()


def test_double_precision_is_kept() -> None:
    points = cloud(50, 13).double() + 1e6
    answer = knn(points, points, 2)
    assert answer.distances.dtype == torch.float64
    assert torch.allclose(answer.distances, all_distances(points, points).sort(dim=1).values[:, :2], rtol=1e-9)


def test_one_column() -> None:
    assert knn(cloud(9, 8), cloud(4, 9), 1).indices.shape == (4, 1)


def test_the_cpu_is_searched_by_scipy_and_cuda_by_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine_for(torch.device("cpu")) == "scipy"
    monkeypatch.setattr(neighbors, "_pytorch3d", lambda: None)
    assert engine_for(torch.device("cuda")) == "scipy"
    monkeypatch.setattr(neighbors, "_pytorch3d", lambda: object())
    assert engine_for(torch.device("cuda")) == "pytorch3d"
    assert engine_for(torch.device("cpu")) == "scipy"


def test_the_pytorch3d_side_with_its_function_played(monkeypatch: pytest.MonkeyPatch) -> None:
    """The glue around `knn_points` (squared distances, batches, padding), with brute force in its place."""

    class Played:
        @staticmethod
        def knn_points(queries: torch.Tensor, points: torch.Tensor, K: int) -> tuple[torch.Tensor, torch.Tensor, None]:
            squared, indices = all_distances(points[0], queries[0]).square().float().sort(dim=1)
            return squared[None, :, :K], indices[None, :, :K], None

    monkeypatch.setattr(neighbors, "_pytorch3d", lambda: Played)
    points, queries = cloud(50, 10), cloud(8, 11)
    for k, radius in ((4, float("inf")), (60, 0.3)):
        ours = neighbors._search_scipy(points, queries, k, radius)
        theirs = neighbors._search_pytorch3d(points, queries, k, radius)
        assert torch.equal(ours.indices, theirs.indices)
        assert torch.allclose(ours.distances, theirs.distances, atol=1e-6)


def test_bad_input_is_named() -> None:
    points = cloud(3, 12)
    with pytest.raises(UsageError, match="at least 1"):
        knn(points, points, 0)
    with pytest.raises(UsageError, match="must be positive"):
        radius_search(points, points, 0.0, limit=3)
    with pytest.raises(DataError, match="not finite"):
        knn(torch.tensor([[0.0, float("nan"), 0.0]]), points, 1)
