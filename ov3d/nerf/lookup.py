"""Interpolation in tables: a few weighted rows a point, forwards and backwards as sparse matrix products.

A factor of the field is a table V [r, c]: r places on a grid, c components. A point reads k of them (two on a line, four on a
plane) with weights w that sum to 1,

    y_n = sum_k w_nk V[i_nk]                                                                                            (1)

which is y = W V with a sparse W [n, r]; the gradient is dV = W^T dy. Rows are contiguous, so one cache line serves sixteen
components: on a CPU this is ten times faster than `grid_sample`, whose channels lie a plane apart.

A density is the sum over the components of plane times line. Its gradient is one number a point, zero behind a surface and
where a ReLU is closed, so

    s_n = sum_c (W V)_nc (U L)_nc                                                                                       (2)

has a gradient of its own, which first leaves those points out.

Symbols: n points, r rows, c components, k taps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_array
from torch import Tensor

from ov3d.common.shapes import Bool, Float, Int32, Int64

PLANE_AXES = ((0, 1), (0, 2), (1, 2))
"""Axes of the three planes XY, XZ, YZ."""
LINE_AXES = (2, 1, 0)
"""The axis that each plane lacks."""


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """Which rows points read, with which weights: three planes and three lines.

    Attributes:
        plane_index: rows of the planes.
        plane_weight: bilinear weights.
        line_index: rows of the lines.
        line_weight: linear weights.
    """

    plane_index: tuple[Int32[Tensor, "n 4"], ...]
    plane_weight: tuple[Float[Tensor, "n 4"], ...]
    line_index: tuple[Int32[Tensor, "n 2"], ...]
    line_weight: tuple[Float[Tensor, "n 2"], ...]

    def __len__(self) -> int:
        return len(self.line_index[0])

    def select(self, rows: Bool[Tensor, " n"] | Int64[Tensor, " m"]) -> Taps:
        """The taps of some of the points."""
        idx = rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows
        parts = (self.plane_index, self.plane_weight, self.line_index, self.line_weight)
        return Taps(*(tuple(one.index_select(0, idx) for one in part) for part in parts))


def make_taps(position: Float[Tensor, "n 3"], resolution: tuple[int, int, int]) -> Taps:
    """The taps of points.

    Args:
        position: in grid units: 0 is the first place of an axis, its resolution - 1 the last; beyond them the border counts.
        resolution: places an axis, at least 2.
    """
    base, fraction = [], []
    for axis, places in enumerate(resolution):
        along = position[:, axis].clamp(0, places - 1)
        low = along.floor().clamp_(max=places - 2)
        base.append(low.to(torch.int32))
        fraction.append(along - low)
    pairs = [torch.stack((1 - f, f), 1) for f in fraction]
    step = torch.tensor([0, 1], dtype=torch.int32, device=position.device)
    planes = [_plane_index(base[a], base[b], resolution[b]) for a, b in PLANE_AXES]
    weights = [(pairs[a][:, :, None] * pairs[b][:, None, :]).flatten(1) for a, b in PLANE_AXES]
    lines = [base[axis][:, None] + step for axis in LINE_AXES]
    return Taps(tuple(planes), tuple(weights), tuple(lines), tuple(pairs[axis] for axis in LINE_AXES))


def interpolate(
    table: Float[Tensor, "r c"], index: Int32[Tensor, "n k"], weight: Float[Tensor, "n k"]
) -> Float[Tensor, "n c"]:
    """Equation (1); differentiable in the table only."""
    result: Tensor = _Interpolate.apply(table, index, weight)  # type: ignore[no-untyped-call]
    return result


def _plane_index(first: Int32[Tensor, " n"], second: Int32[Tensor, " n"], width: int) -> Int32[Tensor, "n 4"]:
    corners = torch.tensor([0, 1, width, width + 1], dtype=torch.int32, device=first.device)
    return (first * width + second)[:, None] + corners


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(index, weight)
        ctx.num_rows = len(table)
        if not len(index):
            return table.new_zeros(0, table.shape[1])
        return F.embedding_bag(index, table, mode="sum", per_sample_weights=weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
        index, weight = ctx.saved_tensors
        return scatter(index, weight, grad, ctx.num_rows), None, None


def sum_of_products(planes: Sequence[Tensor], lines: Sequence[Tensor], taps: Taps) -> Float[Tensor, " n"]:
    """Equation (2), summed over the three orientations; differentiable in the tables."""
    result: Tensor = _SumOfProducts.apply(taps, *planes, *lines)  # type: ignore[no-untyped-call]
    return result


class _SumOfProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, taps: Taps, *tables: Tensor) -> Tensor:
        total = tables[0].new_zeros(len(taps))
        factors = []
        for k in range(3):
            plane = _Interpolate.forward(_Unused(), tables[k], taps.plane_index[k], taps.plane_weight[k])
            line = _Interpolate.forward(_Unused(), tables[3 + k], taps.line_index[k], taps.line_weight[k])
            total += (plane * line).sum(1)
            factors += [plane, line]
        ctx.taps, ctx.rows = taps, [len(table) for table in tables]
        ctx.save_for_backward(*factors)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        live = grad.nonzero()[:, 0]
        taps, along = ctx.taps.select(live), grad.index_select(0, live)[:, None]
        factors = [factor.index_select(0, live) for factor in ctx.saved_tensors]
        planes, lines = [], []
        for k in range(3):
            plane, line = factors[2 * k : 2 * k + 2]
            planes.append(scatter(taps.plane_index[k], taps.plane_weight[k], line * along, ctx.rows[k]))
            lines.append(scatter(taps.line_index[k], taps.line_weight[k], plane * along, ctx.rows[3 + k]))
        return None, *planes, *lines


class _Unused:
    """Stands for the context of a forward pass whose backward is never asked for."""

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keep nothing."""


def scatter(
    index: Int32[Tensor, "n k"], weight: Float[Tensor, "n k"], values: Float[Tensor, "n c"], num_rows: int
) -> Float[Tensor, "r c"]:
    """W^T values: every row of `values` added, weighted, to the rows it was read from. Deterministic on the CPU."""
    if values.device.type != "cpu":
        spread = (weight[:, :, None] * values[:, None]).flatten(0, 1)
        return values.new_zeros(num_rows, values.shape[1]).index_add_(0, index.flatten(), spread)
    starts = np.arange(len(index) + 1, dtype=np.int32) * index.shape[1]
    matrix = csr_array((weight.reshape(-1).numpy(), index.reshape(-1).numpy(), starts), shape=(len(index), num_rows))
    return torch.from_numpy(np.ascontiguousarray(matrix.T @ values.numpy()))
