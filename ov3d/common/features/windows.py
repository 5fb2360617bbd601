"""The grid of patch vectors of an image, from overlapping windows.

A patch in the middle of a window sees more context than one at the border, so windows are averaged with weights that fall
linearly to the border: w(i) = min(i + 1, n - i) for patch i of n along an axis, the product of both axes. A
cell's vector is the unit vector of sum_w w t_w over the windows that cover it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ov3d.common.base.shapes import Float, UInt8
from ov3d.common.features.tokens import TokenPlan


def encode_tokens(
    image: UInt8[Tensor, "3 h w"],
    plan: TokenPlan,
    encode: Callable[[UInt8[Tensor, "b 3 y x"]], Float[Tensor, "b gh gw d"]],
    *,
    batch_size: int,
    advance: Callable[[int], None] = lambda count: None,
) -> Float[Tensor, "rows columns d"]:
    """Unit vectors of an image's patches, fp32, on the encoder's device.

    Args:
        image: at the plan's working size.
        plan: the windows.
        encode: unit vectors of the patches of windows.
        batch_size: number of windows encoded at once; does not affect results.
        advance: called with the number of windows of each batch.
    """
    (cell_rows, cell_columns), (patch_h, patch_w) = plan.cells, plan.patch
    grid = (image.shape[1] // patch_h, image.shape[2] // patch_w)
    rows, columns = plan.starts(grid)
    corners = [(int(row), int(column)) for row in rows for column in columns]
    sums: Tensor | None = None
    for start in range(0, len(corners), batch_size):
        batch = corners[start : start + batch_size]
        windows = torch.stack(
            [
                image[:, r * patch_h : (r + cell_rows) * patch_h, c * patch_w : (c + cell_columns) * patch_w]
                for r, c in batch
            ]
        )
        tokens = encode(windows)
        if sums is None:
            sums = torch.zeros(*grid, tokens.shape[-1], device=tokens.device)
            weight = (_tent(cell_rows)[:, None] * _tent(cell_columns)).to(tokens.device)[..., None]
        for (r, c), one in zip(batch, tokens, strict=True):
            sums[r : r + cell_rows, c : c + cell_columns] += weight * one
        advance(len(batch))
    assert sums is not None  # a plan has at least one window
    return F.normalize(sums, dim=-1)


def _tent(length: int) -> Float[Tensor, " n"]:
    up = torch.arange(1, length + 1, dtype=torch.float32)
    return torch.minimum(up, up.flip(0))
