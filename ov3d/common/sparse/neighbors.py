"""Nearest neighbours among points: SciPy's k-d tree on the CPU, pytorch3d's kernels on CUDA if installed.

pytorch3d has no Linux wheel on PyPI and must be built from source, so it is never required: without it, points on CUDA are
copied to the CPU, searched there, and the result is copied back.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.shapes import Float, Int64

Engine = Literal["scipy", "pytorch3d"]


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The neighbours of each query, nearest first.

    Attributes:
        distances: Euclidean, in the points' unit and precision; infinite for missing neighbours.
        indices: rows of the points; -1 for missing neighbours.
    """

    distances: Float[Tensor, "m k"]
    indices: Int64[Tensor, "m k"]

    @property
    def found(self) -> Tensor:
        """Which entries are neighbours, boolean [m, k]."""
        return self.indices >= 0


def knn(points: Float[Tensor, "n 3"], queries: Float[Tensor, "m 3"], k: int) -> Neighbors:
    """The `k` points nearest to each query.

    Args:
        points: the points to search.
        queries: query positions, on the same device; a query that is one of the points finds itself.
        k: neighbours per query.

    Returns:
        Neighbours on the device of the points; distances have their dtype and carry no gradient.

    Raises:
        UsageError: k is below 1, or points and queries are on different devices.
        DataError: a coordinate is not finite.
    """
    return _search(points, queries, k, float("inf"))


def radius_search(
    points: Float[Tensor, "n 3"], queries: Float[Tensor, "m 3"], radius: float, *, limit: int
) -> Neighbors:
    """The points closer than `radius` to each query, at most the nearest `limit` of them.

    Args:
        points: the points to search.
        queries: query positions, on the same device.
        radius: in the points' unit.
        limit: columns of the result.

    Returns:
        Neighbours on the device of the points.

    Raises:
        UsageError: radius or limit is not positive, or points and queries are on different devices.
        DataError: a coordinate is not finite.
    """
    if not radius > 0:
        raise UsageError(f"radius must be positive, got {radius}.", "Give a radius in the points' unit.")
    return _search(points, queries, limit, radius)


def engine_for(device: torch.device) -> Engine:
    """The search engine for this device."""
    return "pytorch3d" if device.type == "cuda" and _pytorch3d() is not None else "scipy"


def _search(points: Tensor, queries: Tensor, k: int, radius: float) -> Neighbors:
    if k < 1:
        raise UsageError(f"k must be at least 1, got {k}.")
    if points.device != queries.device:
        raise UsageError(f"Points are on {points.device}, queries on {queries.device}.", "Move them to one device.")
    points, queries = points.detach(), queries.detach()
    if not bool(torch.isfinite(points).all() & torch.isfinite(queries).all()):
        raise DataError("Some point coordinates are not finite.", "Drop those points first.")
    if not len(points) or not len(queries):
        shape = (len(queries), k)
        distances = torch.full(shape, torch.inf, device=points.device)
        return Neighbors(distances, torch.full(shape, -1, dtype=torch.int64, device=points.device))
    if engine_for(points.device) == "pytorch3d":
        return _search_pytorch3d(points, queries, k, radius)
    return _search_scipy(points, queries, k, radius)


def _search_scipy(points: Tensor, queries: Tensor, k: int, radius: float) -> Neighbors:
    from scipy.spatial import cKDTree

    # Axis-aligned scans have thousands of equal coordinates, where sliding midpoints build in half the time of medians.
    tree = cKDTree(points.cpu().numpy(), balanced_tree=False, compact_nodes=False)
    distances, indices = tree.query(
        queries.cpu().numpy(), k=k, distance_upper_bound=radius, workers=torch.get_num_threads()
    )
    shape = (len(queries), k)
    distances, indices = np.reshape(distances, shape), np.reshape(indices, shape)
    indices = np.where(np.isfinite(distances), indices, -1)
    return Neighbors(
        torch.from_numpy(distances).to(points),
        torch.from_numpy(indices.astype(np.int64)).to(points.device),
    )


def _search_pytorch3d(points: Tensor, queries: Tensor, k: int, radius: float) -> Neighbors:
    columns = min(k, len(points))
    squared, indices, _ = _pytorch3d().knn_points(queries.float()[None], points.float()[None], K=columns)
    distances, indices = squared[0].sqrt().to(points.dtype), indices[0]
    missing = distances >= radius
    distances, indices = distances.masked_fill(missing, torch.inf), indices.masked_fill(missing, -1)
    spare = (0, k - columns)
    return Neighbors(
        torch.nn.functional.pad(distances, spare, value=torch.inf), torch.nn.functional.pad(indices, spare, value=-1)
    )


@functools.cache
def _pytorch3d() -> Any:
    """pytorch3d's search module, or None where it does not import."""
    try:
        return importlib.import_module("pytorch3d.ops")
    except ImportError:
        return None
