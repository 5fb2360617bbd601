"""Interpolation in tables: a few weighted rows per point, forwards and backwards as sparse matrix products.

A factor of the field is a table V [r, c]: r places on a grid, c components. A point reads k of them (two on a line, four on a
plane) with weights w that sum to 1,

    y_n = sum_k w_nk V[i_nk]                                                                                            (1)

which is y = W V with a sparse W [n, r]; the gradient is dV = W^T dy. Rows are contiguous, so one cache line serves sixteen
components: on a CPU this is ten times faster than `grid_sample`, whose channels are a plane apart.

A density is the sum over the components of plane times line. Its gradient is one number per point, zero behind a surface and
where a ReLU is closed, so

    s_n = sum_c (W V)_nc (U L)_nc                                                                                       (2)

has its own gradient, which first drops those points if there are many.

Symbols: n points, r rows, c components, k taps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_array
from torch import Tensor

from ov3d.common.base.shapes import Float, Int32, Int64

PLANE_AXES = ((0, 1), (0, 2), (1, 2))
"""Axes of the three planes XY, XZ, YZ."""
LINE_AXES = (2, 1, 0)
"""The axis perpendicular to each plane."""
WORTH_LEAVING = 0.8
"""Points without a gradient are dropped if fewer than this share have one: otherwise selecting costs more."""


class Taps:
    """Which rows points read, with which weights: three planes and three lines, computed on first use.

    Args:
        position: in grid units: 0 is the first place of an axis, its resolution - 1 the last; beyond them, clamped.
        resolution: places per axis, at least 2.
    """

    __slots__ = ("_along", "_lines", "_planes", "position", "resolution")

    def __init__(self, position: Float[Tensor, "n 3"], resolution: tuple[int, int, int]) -> None:
        self.position, self.resolution = position, resolution
        self._along: tuple[Int32[Tensor, "3 n"], Float[Tensor, "3 n"], Float[Tensor, "3 n"]] | None = None
        self._planes: dict[int, tuple[Int32[Tensor, "n 4"], Float[Tensor, "n 4"]]] = {}
        self._lines: dict[int, tuple[Int32[Tensor, "n 2"], Float[Tensor, "n 2"]]] = {}

    def __len__(self) -> int:
        return len(self.position)

    def select(self, idx: Int64[Tensor, " m"]) -> Taps:
        """The taps of some of the points."""
        return Taps(self.position.index_select(0, idx), self.resolution)

    def plane(self, k: int) -> tuple[Int32[Tensor, "n 4"], Float[Tensor, "n 4"]]:
        """Rows of plane k and their bilinear weights."""
        if k not in self._planes:
            a, b = PLANE_AXES[k]
            base, near, far = self._between()
            row = torch.add(base[b], base[a], alpha=self.resolution[b])
            corners = (0, 1, self.resolution[b], self.resolution[b] + 1)
            pairs = ((near[a], near[b]), (near[a], far[b]), (far[a], near[b]), (far[a], far[b]))
            index, weight = row.new_empty(len(self), 4), near.new_empty(len(self), 4)
            for column, (step, pair) in enumerate(zip(corners, pairs, strict=True)):
                # Column by column: a small last axis costs several times as much in a broadcast or a stack.
                torch.add(row, step, out=index[:, column])
                torch.mul(*pair, out=weight[:, column])
            self._planes[k] = index, weight
        return self._planes[k]

    def line(self, k: int) -> tuple[Int32[Tensor, "n 2"], Float[Tensor, "n 2"]]:
        """Rows of line k and their linear weights."""
        if k not in self._lines:
            base, near, far = (one[LINE_AXES[k]] for one in self._between())
            index, weight = base.new_empty(len(self), 2), near.new_empty(len(self), 2)
            for column, share in enumerate((near, far)):
                torch.add(base, column, out=index[:, column])
                weight[:, column] = share
            self._lines[k] = index, weight
        return self._lines[k]

    def _between(self) -> tuple[Int32[Tensor, "3 n"], Float[Tensor, "3 n"], Float[Tensor, "3 n"]]:
        """The place before each point, one row per axis, and the shares of it and of the next."""
        if self._along is None:
            far = self.position.T.contiguous()
            low = torch.empty_like(far)
            for axis, places in enumerate(self.resolution):
                far[axis].clamp_(0, places - 1)
                torch.floor(far[axis], out=low[axis]).clamp_(max=places - 2)
            far.sub_(low)
            self._along = low.to(torch.int32), 1 - far, far
        return self._along


def interpolate(
    table: Float[Tensor, "r c"], index: Int32[Tensor, "n k"], weight: Float[Tensor, "n k"]
) -> Float[Tensor, "n c"]:
    """Equation (1); its gradient is left to `products` and `sum_of_products`."""
    if not len(index):
        return table.new_zeros(0, table.shape[1])
    return F.embedding_bag(index, table, mode="sum", per_sample_weights=weight)


def products(planes: Sequence[Tensor], lines: Sequence[Tensor], taps: Taps) -> Float[Tensor, "n c"]:
    """Planes times lines, the components of the three orientations side by side; differentiable in the tables."""
    result: Tensor = _Products.apply(taps, *planes, *lines)  # type: ignore[no-untyped-call]
    return result


def sum_of_products(planes: Sequence[Tensor], lines: Sequence[Tensor], taps: Taps) -> Float[Tensor, " n"]:
    """Equation (2), summed over the three orientations; differentiable in the tables."""
    result: Tensor = _SumOfProducts.apply(taps, *planes, *lines)  # type: ignore[no-untyped-call]
    return result


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, taps: Taps, *tables: Tensor) -> Tensor:
        factors = _factors(tables, taps)
        ranks = [plane.shape[1] for plane, _ in factors]
        out = tables[0].new_empty(len(taps), sum(ranks))
        for (plane, line), columns in zip(factors, torch.split(out, ranks, 1), strict=True):
            torch.mul(plane, line, out=columns)
        _keep(ctx, taps, tables, factors)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        factors = ctx.saved_tensors
        parts = torch.split(grad, [plane.shape[1] for plane in factors[::2]], 1)
        return None, *_scattered(ctx.taps, factors, parts, ctx.rows)


class _SumOfProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, taps: Taps, *tables: Tensor) -> Tensor:
        total = tables[0].new_zeros(len(taps))
        factors = _factors(tables, taps)
        for plane, line in factors:
            total.addmv_(plane * line, plane.new_ones(plane.shape[1]))  # a sum of few columns, in half the time
        _keep(ctx, taps, tables, factors)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        taps, along, factors = ctx.taps, grad[:, None], ctx.saved_tensors
        live = grad.nonzero()[:, 0]
        if len(live) < WORTH_LEAVING * len(grad):
            taps, along = taps.select(live), along.index_select(0, live)
            factors = [factor.index_select(0, live) for factor in factors]
        return None, *_scattered(taps, factors, (along,) * 3, ctx.rows)


def _factors(tables: Sequence[Tensor], taps: Taps) -> list[tuple[Tensor, Tensor]]:
    """Planes and lines at the points, one pair per orientation."""
    return [
        (interpolate(tables[k], *taps.plane(k)), interpolate(tables[3 + k], *taps.line(k)))
        for k in range(len(PLANE_AXES))
    ]


def _keep(ctx: Any, taps: Taps, tables: Sequence[Tensor], factors: list[tuple[Tensor, Tensor]]) -> None:
    ctx.taps, ctx.rows = taps, [len(table) for table in tables]
    ctx.save_for_backward(*(factor for pair in factors for factor in pair))


def _scattered(taps: Taps, factors: Sequence[Tensor], grads: Sequence[Tensor], num_rows: list[int]) -> list[Tensor]:
    """Gradients of the planes and the lines from those of their products."""
    planes, lines = [], []
    for k, grad in enumerate(grads):
        plane, line = factors[2 * k : 2 * k + 2]
        (rows, shares), (places, parts) = taps.plane(k), taps.line(k)
        planes.append(scatter(rows, shares, line * grad, num_rows[k]))
        lines.append(scatter(places, parts, plane * grad, num_rows[3 + k]))
    return [*planes, *lines]


def scatter(
    index: Int32[Tensor, "n k"], weight: Float[Tensor, "n k"], values: Float[Tensor, "n c"], num_rows: int
) -> Float[Tensor, "r c"]:
    """W^T values: adds every row of `values`, weighted, to the rows it was read from. Deterministic on the CPU."""
    if values.device.type != "cpu":
        spread = (weight[:, :, None] * values[:, None]).flatten(0, 1)
        return values.new_zeros(num_rows, values.shape[1]).index_add_(0, index.flatten(), spread)
    starts = np.arange(len(index) + 1, dtype=np.int32) * index.shape[1]
    matrix = csr_array((weight.reshape(-1).numpy(), index.reshape(-1).numpy(), starts), shape=(len(index), num_rows))
    return torch.from_numpy(np.ascontiguousarray(matrix.T @ values.numpy()))
