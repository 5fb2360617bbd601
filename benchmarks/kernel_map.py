"""Building kernel maps: ours against spconv's CPU builder.

    python -m benchmarks.kernel_map --peer-python peer/bin/python

The 3³ submanifold map of the three grids of `benchmarks.sparse_conv`, one thread each. Ours includes the order of work that
makes convolutions fast and deterministic, not only the pairs. `ratio` is the peer's time over ours on the finest grid.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import torch

from benchmarks.harness import interleaved, median_ratio, medians, parser, report, seconds
from benchmarks.shared.sparse_levels import SHAPE, WIDTHS, LevelCase, room_levels
from benchmarks.shared.spconv_peer import Peer, open_peer
from ov3d.common.sparse import lookup
from ov3d.common.sparse.kernel_map import kernel_map
from ov3d.common.sparse.kernel_shape import KernelShape
from ov3d.common.sparse.voxels import VoxelGrid

GOAL = 0.5
OTHERS = {
    "5³": KernelShape.of_submanifold(5),
    "2³ stride 2": KernelShape((2, 2, 2), (2, 2, 2)),
    "3³ stride 2": KernelShape((3, 3, 3), (2, 2, 2), padding=(1, 1, 1)),
}


def main() -> None:
    """Time both builders by turns, print a table and the JSON line."""
    arguments = parser(__doc__)
    arguments.add_argument("--peer-python", help="interpreter of an environment with torch and spconv's CPU wheel")
    arguments.add_argument("--repeats", type=int, default=15)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    grids = room_levels()
    cases = [LevelCase(grid, width) for grid, width in zip(grids, WIDTHS, strict=True)] if options.peer_python else []
    calls = {}
    with tempfile.TemporaryDirectory() as folder, open_peer(options.peer_python, cases, Path(folder)) as peer:
        for level, grid in enumerate(grids):
            calls[f"ours {level}"] = partial(build_seconds, grid, SHAPE)
            if peer:
                calls[f"peer {level}"] = partial(_peer_seconds, peer, level)
        times = interleaved(calls, options.repeats, clock=None)
    median = medians(times)
    ratios = [median_ratio(times[f"peer {level}"], times[f"ours {level}"]) for level in range(len(cases))]
    for level, grid in enumerate(grids):
        line = f"{grid.num_voxels:,} voxels, 3³: {median[f'ours {level}'] * 1e3:.1f} ms"
        print(line + (f", peer {median[f'peer {level}'] * 1e3:.1f} ms, {ratios[level]:.2f}x" if ratios else ""))
    others = other_seconds(grids[0])
    report(
        "kernel_map",
        ours=round(median["ours 0"], 4),
        peer=round(median["peer 0"], 4) if ratios else None,
        unit="s, 3³ submanifold map of the finest grid, one thread",
        ratio=round(ratios[0], 2) if ratios else None,
        goal=GOAL,
        met=ratios[0] >= GOAL if ratios else None,
        save=options.save,
        ratios=[round(ratio, 2) for ratio in ratios],
        others_ms={name: round(value * 1e3, 1) for name, value in others.items()},
    )


def build_seconds(grid: VoxelGrid, shape: KernelShape) -> float:
    """Time of a map and its schedule, from nothing but the voxels."""
    bare = VoxelGrid(grid.coords)
    return seconds(lambda: kernel_map(bare, shape).schedule("forward"))


def _peer_seconds(peer: Peer, level: int) -> float:
    return peer.ask("build", level)["build"]


def other_seconds(grid: VoxelGrid) -> dict[str, float]:
    """Least seconds of three for other kernels, and for the usual one where the grid is looked up in blocks."""
    others = {name: min(build_seconds(grid, shape) for _ in range(3)) for name, shape in OTHERS.items()}
    dense, lookup.DENSE_CELLS_A_VOXEL = lookup.DENSE_CELLS_A_VOXEL, 0
    others["3³ by blocks"] = min(build_seconds(grid, SHAPE) for _ in range(3))
    lookup.DENSE_CELLS_A_VOXEL = dense
    for name, value in others.items():
        print(f"{grid.num_voxels:,} voxels, {name}: {value * 1e3:.1f} ms")
    return others


if __name__ == "__main__":
    main()
