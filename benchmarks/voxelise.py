"""Voxels of a sweep of 120,000 points, Cartesian (10 cm) and cylindrical (480 x 360 x 32), against two usual ways.

`torch.unique(dim=0)` on the cells' rows, and a hash in NumPy as sparse convolution libraries come with: 64-bit FNV over the
three numbers of a row, then `np.unique` with index and inverse. All start from the same points, compute cells themselves and
give distinct cells and the way back, which are checked to be equal. One thread each, taking turns; medians of the repeats'
ratios of processor time, because the machine may be shared.

    OMP_NUM_THREADS=1 python -m benchmarks.voxelise [--repeats N]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import interleaved, median_ratio, medians, parser, report
from benchmarks.shared.street_sweeps import street_sweep
from ov3d.common.sparse.cylinder import CylinderGrid
from ov3d.common.sparse.voxels import voxelise

GOAL_UNIQUE, GOAL_HASH = 25.0, 2.0
SIZE = 0.1
GRID = CylinderGrid()


def main() -> None:
    """Check that all find the same voxels, time them, print the JSON line."""
    arguments = parser(__doc__)
    arguments.add_argument("--repeats", type=int, default=31)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    points = torch.from_numpy(street_sweep()[1].xyz)
    found = {name: measure(name, points, options.repeats) for name in ("cartesian", "cylindrical")}
    ratios = {name: {peer: one[f"ratio_{peer}"] for peer in ("unique", "hash")} for name, one in found.items()}
    report(
        "voxelise",
        ours=found["cartesian"]["ours_ms"],
        peer=found["cartesian"]["unique_ms"],
        unit=f"ms of processor time, {len(points):,} points, Cartesian, one thread; the peer is torch.unique(dim=0)",
        ratio=ratios["cartesian"]["unique"],
        goal=GOAL_UNIQUE,
        met=all(one["unique"] >= GOAL_UNIQUE and one["hash"] >= GOAL_HASH for one in ratios.values()),
        save=options.save,
        goal_hash=GOAL_HASH,
        **found,
    )


def measure(name: str, points: Tensor, repeats: int) -> dict[str, Any]:
    """Times in milliseconds and ratios for one kind of grid."""
    arrays = points.numpy()
    if name == "cartesian":
        calls: dict[str, Callable[[], Any]] = {
            "ours": lambda: voxelise(points, SIZE),
            "unique": lambda: torch.unique(torch.floor(points / SIZE).long(), dim=0, return_inverse=True),
            "hash": lambda: hashed(np.floor(arrays / np.float32(SIZE)).astype(np.int64)),
        }
    else:
        calls = {
            "ours": lambda: GRID.voxelise(points),
            "unique": lambda: torch.unique(torch.stack(GRID.cells(points), dim=1), dim=0, return_inverse=True),
            "hash": lambda: hashed(cylindrical_cells(arrays)),
        }
    grid, inverse = calls["ours"]()
    cells, back = calls["unique"]()
    # The hash gets the same cells for the check: NumPy's and torch's arctangents differ in the last bit.
    rows, hash_back = hashed(cells[back].numpy())
    assert torch.equal(grid.coords[:, 1:].long(), cells) and torch.equal(inverse, back)
    assert len(rows) == grid.num_voxels and len(np.unique(hash_back * len(rows) + inverse.numpy())) == len(rows)
    times = interleaved(calls, repeats, warm_up=2, at_most={"unique": max(repeats // 3, 3)}, clock=time.thread_time)
    median = medians(times)
    shown = {f"{call}_ms": round(1e3 * value, 3) for call, value in median.items()}
    shown |= {f"ratio_{peer}": round(median_ratio(times[peer], times["ours"]), 2) for peer in ("unique", "hash")}
    print(f"{name}, {grid.num_voxels:,} voxels: {shown}")
    return {"voxels": grid.num_voxels, **shown}


def hashed(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First row of each distinct cell and the cell of each row, by FNV-1 of the three numbers."""
    numbers = (cells - cells.min(axis=0)).astype(np.uint64)
    key = np.full(len(numbers), 14695981039346656037, np.uint64)
    for axis in range(numbers.shape[1]):
        key *= np.uint64(1099511628211)
        key = np.bitwise_xor(key, numbers[:, axis])
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    return cells[first], inverse


def cylindrical_cells(points: np.ndarray) -> np.ndarray:
    """Cells as networks' data loaders compute them in NumPy."""
    polar = np.stack(
        [np.hypot(points[:, 0], points[:, 1]), np.arctan2(points[:, 1], points[:, 0]), points[:, 2]], axis=1
    )
    low, high = np.array([GRID.rho, GRID.phi, GRID.z], np.float32).T
    return np.floor((np.clip(polar, low, high) - low) / np.array(GRID.size, np.float32)).astype(np.int64)


if __name__ == "__main__":
    main()
