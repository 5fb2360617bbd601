"""Building kernel maps: ours against spconv's CPU builder.

    python -m benchmarks.kernel_map --peer-python peer/bin/python

The 3³ submanifold map of the three grids of `benchmarks.sparse_conv`, one thread each. Ours includes the order of work that
makes convolutions fast and deterministic, not only the pairs. `ratio` is the peer's time over ours on the finest grid.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.sparse_conv import SHAPE, WIDTHS, LevelCase
from benchmarks.sparse_room import room_levels
from benchmarks.spconv_peer import NO_PEER, Peer
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="interpreter of an environment with torch and spconv's CPU wheel")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    grids = room_levels()
    ours: list[list[float]] = [[] for _ in grids]
    theirs: list[list[float]] = [[] for _ in grids]
    with tempfile.TemporaryDirectory() as folder:
        peer = None
        if options.peer_python:
            for level, (grid, width) in enumerate(zip(grids, WIDTHS, strict=True)):
                LevelCase(grid, width).save(Path(folder) / f"level{level}.pt")
            peer = Peer(options.peer_python, Path(folder))
        else:
            print(NO_PEER)
        for repeat in range(options.repeats + 1):
            for level, grid in enumerate(grids):
                seconds = build_seconds(grid, SHAPE)
                answer = peer.ask("build", level)["build"] if peer else float("nan")
                if repeat:
                    ours[level].append(seconds)
                    theirs[level].append(answer)
        if peer:
            peer.close()
    print(json.dumps(report(grids, ours, theirs if peer else None)))


def build_seconds(grid: VoxelGrid, shape: KernelShape) -> float:
    """Time of a map and its schedule, from nothing but the voxels."""
    bare = VoxelGrid(grid.coords)
    start = time.perf_counter()
    kernel_map(bare, shape).schedule("forward")
    return time.perf_counter() - start


def report(grids: list[VoxelGrid], ours: list[list[float]], theirs: list[list[float]] | None) -> dict[str, Any]:
    """The table and the JSON line's content."""
    ratios = []
    for level, grid in enumerate(grids):
        line = f"{grid.num_voxels:,} voxels, 3³: {statistics.median(ours[level]) * 1e3:.1f} ms"
        if theirs:
            ratios.append(statistics.median(b / a for a, b in zip(ours[level], theirs[level], strict=True)))
            line += f", peer {statistics.median(theirs[level]) * 1e3:.1f} ms, {ratios[-1]:.2f}x"
        print(line)
    others = {name: min(build_seconds(grids[0], shape) for _ in range(3)) for name, shape in OTHERS.items()}
    dense, lookup.DENSE_CELLS_A_VOXEL = lookup.DENSE_CELLS_A_VOXEL, 0
    others["3³ by blocks"] = min(build_seconds(grids[0], SHAPE) for _ in range(3))
    lookup.DENSE_CELLS_A_VOXEL = dense
    for name, seconds in others.items():
        print(f"{grids[0].num_voxels:,} voxels, {name}: {seconds * 1e3:.1f} ms")
    return {
        "name": "kernel_map",
        "ours": round(statistics.median(ours[0]), 4),
        "peer": round(statistics.median(theirs[0]), 4) if theirs else None,
        "unit": "s, 3³ submanifold map of the finest grid, one thread",
        "ratio": round(ratios[0], 2) if ratios else None,
        "goal": GOAL,
        "met": ratios[0] >= GOAL if ratios else None,
        "ratios": [round(ratio, 2) for ratio in ratios],
        "others_ms": {name: round(seconds * 1e3, 1) for name, seconds in others.items()},
    }


if __name__ == "__main__":
    main()
