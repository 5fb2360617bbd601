"""Fusing dense feature maps onto points: `ov3d.common.lifting.lift` against a loop that gathers a row per point and view.

100,000 points of a furnished room, 20 views of 320x240 with depth, a dense map of 768 numbers in fp16 a view, laid out
channels first as extractors give them. The peer is our own plain reading of the usual fusion loop (Xu et al., ECCV 2024;
Peng et al., CVPR 2023): every view projects all points in fp64, gathers a feature for all of them, and adds what it sees to
fp32 sums of all points. Both end with one fp16 row a seen point.

Equal: the same points are seen, and the means in fp32, before they are rounded to fp16, differ by at most 1e-6.
Memory: growth of the peak resident size over the inputs, each in a process of its own.

Run: python -m benchmarks.fusion
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ov3d.common.lifting.lift import LiftConfig, Views, lift, view_means
from ov3d.common.scenes.cameras import Camera, look_at, transform
from ov3d.common.scenes.scene import DepthImage, Frame, PointCloud

NUM_POINTS, NUM_VIEWS, DIM = 100_000, 20, 768
CAMERA = Camera(320, 240, 290.0, 290.0, 160.0, 120.0)
NUM_MAPS = 4
"""Distinct maps, which the views take in turn: 118 MB each, far above any cache, so turns save nothing."""
ROOM = np.array([6.0, 5.0, 2.8])
BOXES = np.array([[1.0, 1, 0, 2.2, 1.8, 0.9], [3.5, 3, 0, 5, 4.2, 0.6], [4.2, 0.5, 0, 4.8, 1.3, 1.6]])
CONFIG = LiftConfig(border=10.0, depth_tolerance=0.25, missing_depth="drop", memory_mib=32)
"""The paper's border and tolerance, as in the peer; a small budget, because the sources here are in memory anyway."""
REPEATS = 3


@dataclass
class DenseMaps:
    """Feature maps in memory [d, h * w], fp16, one a frame."""

    maps: list[torch.Tensor]

    def key(self, frame: Frame) -> str:
        return frame.name

    def map_of(self, frame: Frame) -> torch.Tensor:
        return self.maps[int(frame.name) % len(self.maps)]

    def pixel_features(self, frame: Frame, uv: np.ndarray) -> np.ndarray:
        column, row = uv.astype(np.int64).T
        # NumPy gathers columns faster than torch, and does it on any type of two bytes; torch transposes faster.
        bits = self.map_of(frame).view(torch.int16).numpy()
        gathered = np.take(bits, row * frame.camera.width + column, axis=1, mode="clip")
        return torch.from_numpy(gathered).t().contiguous().view(torch.float16).numpy()


def peer(points: np.ndarray, frames: list[Frame], source: DenseMaps) -> tuple[np.ndarray, torch.Tensor]:
    """The full-gather loop: seen points, and their means in fp32."""
    sums = torch.zeros(len(points), DIM)
    counts = torch.zeros(len(points), 1)
    homogeneous = np.concatenate([points.astype(np.float64), np.ones((len(points), 1))], axis=1)
    for frame in frames:
        assert frame.depth is not None
        depth, camera = frame.depth.load(), frame.camera
        local = (np.linalg.inv(frame.world_from_camera) @ homogeneous.T).T
        with np.errstate(divide="ignore", invalid="ignore"):
            u = local[:, 0] / local[:, 2] * camera.fx + camera.cx
            v = local[:, 1] / local[:, 2] * camera.fy + camera.cy
        border = CONFIG.border * camera.width / 320
        seen = (local[:, 2] > 0) & (u >= border) & (v >= border)
        seen &= (u < camera.width - border) & (v < camera.height - border)
        column, row = np.zeros(len(points), np.int64), np.zeros(len(points), np.int64)
        column[seen], row[seen] = np.floor(u[seen]).astype(int), np.floor(v[seen]).astype(int)
        measured = depth[row, column].astype(np.float64)
        seen &= np.abs(measured - local[:, 2]) <= CONFIG.depth_tolerance * measured
        dense = source.map_of(frame).view(DIM, camera.height, camera.width)
        gathered = dense[:, torch.from_numpy(row), torch.from_numpy(column)].permute(1, 0)  # a row for every point
        mask = torch.from_numpy(seen)
        counts[mask] += 1
        sums[mask] += gathered[mask]
    means = sums / counts.clamp(min=1e-5)
    seen_points = np.flatnonzero(counts[:, 0].numpy())
    return seen_points, means[torch.from_numpy(seen_points)]


def peer_rows(points: np.ndarray, frames: list[Frame], source: DenseMaps) -> torch.Tensor:
    """What the peer stores: one fp16 row a seen point."""
    return peer(points, frames, source)[1].half()


def ours_rows(points: np.ndarray, frames: list[Frame], source: DenseMaps) -> np.ndarray:
    """What we store: one fp16 row a seen point (and its norm, its number of views, its point)."""
    return lift(PointCloud(points), frames, source, CONFIG).code


def largest_difference(points: np.ndarray, frames: list[Frame], source: DenseMaps) -> float:
    """Between the means of both, in fp32, relative to nothing; infinite where they see different points."""
    seen, means = peer(points, frames, source)
    views = Views(PointCloud(points), frames, CONFIG)
    counts = views.count()
    if not np.array_equal(seen, np.flatnonzero(counts)):
        return float("inf")
    return max(float(np.abs(mean - means[rows].numpy()).max()) for rows, mean in view_means(views, counts, source))


# ---------------------------------------------------------------------------------------------------------- the room


def room_points(rng: np.random.Generator) -> np.ndarray:
    """Points on the walls, the floor and some boxes, in an order as a scanner gives it: neighbours mostly together."""
    solids = [np.concatenate([np.zeros(3), ROOM]), *BOXES]
    faces = [(solid, axis, side) for solid in solids for axis in range(3) for side in (0, 1)]
    extents = np.array([np.prod(np.delete(solid[3:] - solid[:3], axis)) for solid, axis, _ in faces])
    numbers = rng.multinomial(NUM_POINTS, extents / extents.sum())
    parts = []
    for (solid, axis, side), number in zip(faces, numbers, strict=True):
        part = rng.uniform(solid[:3], solid[3:], (number, 3))
        part[:, axis] = solid[axis + 3 * side]
        parts.append(part)
    points = np.concatenate(parts)
    cell = np.floor(points / 0.25).astype(np.int64)
    return points[np.lexsort(cell.T)].astype(np.float32)


def room_depth(pose: np.ndarray) -> np.ndarray:
    """Exact depth inside the room: the far side of the walls, the near side of the boxes (slab test)."""
    uv = CAMERA.pixel_centres()
    rays = transform(pose, CAMERA.unproject(uv, np.ones(len(uv)))) - pose[:3, 3]
    depth = np.full(len(uv), np.inf)
    for idx, solid in enumerate([np.concatenate([np.zeros(3), ROOM]), *BOXES]):
        with np.errstate(divide="ignore"):
            low, high = (solid[:3] - pose[:3, 3]) / rays, (solid[3:] - pose[:3, 3]) / rays
        enter, leave = np.minimum(low, high).max(1), np.maximum(low, high).min(1)
        hit = leave if idx == 0 else np.where((enter <= leave) & (enter > 0), enter, np.inf)
        depth = np.minimum(depth, hit)
    return depth.reshape(CAMERA.height, CAMERA.width)


def make_inputs(folder: Path) -> tuple[np.ndarray, list[Frame], DenseMaps]:
    """The room's points, its posed views with depth images on disk, and the feature maps."""
    from PIL import Image

    rng = np.random.default_rng(0)
    points = room_points(rng)
    frames = []
    for idx in range(NUM_VIEWS):
        angle = 2 * np.pi * idx / NUM_VIEWS
        eye = np.array([3 + 2.7 * np.cos(angle), 2.5 + 2.2 * np.sin(angle), 1.5])  # along the walls, looking across
        pose = look_at(eye, np.array([3.0, 2.5, 0.4 + 0.6 * (idx % 3)]))
        path = folder / f"{idx}.png"
        Image.fromarray(np.round(room_depth(pose) * 1000).astype(np.uint16)).save(path)
        frames.append(Frame(str(idx), folder / "none.png", CAMERA, pose, DepthImage(path, 0.001, CAMERA)))
    generator = torch.Generator().manual_seed(0)
    size = (DIM, CAMERA.height * CAMERA.width)
    maps = [torch.randn(size, generator=generator).mul_(DIM**-0.5).half() for _ in range(NUM_MAPS)]
    return points, frames, DenseMaps(maps)


# ---------------------------------------------------------------------------------------------------------- measuring

RUNS: dict[str, Callable[[np.ndarray, list[Frame], DenseMaps], object]] = {"ours": ours_rows, "peer": peer_rows}


def _status(name: str) -> int:
    """A size of this process in bytes, from Linux."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def memory_growth(which: str) -> int:
    """Growth of the peak resident size while `which` runs, in bytes, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = make_inputs(Path(folder))
        # What only the first call allocates (thread pools, libraries) is not the method's: a small run first.
        RUNS[which](inputs[0][:2000], inputs[1][:1], inputs[2])
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before = _status("VmRSS")
        result = RUNS[which](*inputs)
        grown = _status("VmHWM") - before
        assert result is not None
    return grown


def in_own_process(which: str) -> int:
    """`memory_growth` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.fusion", "--memory", which]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", choices=sorted(RUNS), help="measure one side's memory in this process, print bytes")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    options = parser.parse_args()
    if options.memory:
        print(memory_growth(options.memory))
        return
    with tempfile.TemporaryDirectory() as folder:
        inputs = make_inputs(Path(folder))
        difference = largest_difference(*inputs)
        seconds: dict[str, list[float]] = {name: [] for name in RUNS}
        for _ in range(options.repeats):
            for name, function in RUNS.items():
                start = time.perf_counter()
                function(*inputs)
                seconds[name].append(time.perf_counter() - start)
    ours, theirs = (statistics.median(seconds[name]) for name in ("ours", "peer"))
    ratio = statistics.median(p / o for o, p in zip(seconds["ours"], seconds["peer"], strict=True))
    memory = {name: in_own_process(name) for name in RUNS}
    share = memory["ours"] / memory["peer"]
    print(f"{NUM_POINTS:,} points, {NUM_VIEWS} views of {CAMERA.width}x{CAMERA.height}, {DIM}-d fp16 maps")
    print(f"  time    ours {ours:7.3f} s   peer {theirs:7.3f} s   {ratio:.1f}x, median of {options.repeats} pairs")
    print(f"  memory  ours {memory['ours'] / 1e6:7.1f} MB  peer {memory['peer'] / 1e6:7.1f} MB  share {share:.3f}")
    print(f"  largest difference of the fp32 means {difference:.2e}")
    result = {
        "name": "fusion",
        "ours": round(ours, 4),
        "peer": round(theirs, 4),
        "unit": "s",
        "ratio": round(ratio, 2),
        "goal": 10.0,
        "met": ratio >= 10 and share <= 0.25 and difference <= 1e-6,
        "memory_ours": memory["ours"],
        "memory_peer": memory["peer"],
        "memory_share": round(share, 4),
        "memory_goal": 0.25,
        "largest_difference": difference,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
