"""Sparse convolution over three levels of a U-Net: ours against spconv's CPU wheel.

    python -m benchmarks.sparse_conv --peer-python peer/bin/python

One 3³ submanifold convolution a level (about 123,000, 31,000 and 8,000 voxels; 32, 64, 128 channels), kernel maps at hand,
forward and backward (gradients of inputs and weights). The peer is held to one thread in its own process, since with two its
results are wrong. Ours and the peer take turns; each repeat gives one ratio, the median counts. Also printed: agreement
with the peer from the same weights, memory against the features, bf16, and with a CUDA device the same there, which is also
written to benchmarks/results/.
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

from benchmarks.sparse_room import room_levels
from benchmarks.spconv_peer import NO_PEER, Peer
from ov3d.common.sparse import spconv_adapter
from ov3d.common.sparse.conv import cpu_has_bf16, sparse_conv
from ov3d.common.sparse.kernel_map import KernelMap, kernel_map
from ov3d.common.sparse.kernel_shape import KernelShape
from ov3d.common.sparse.voxels import VoxelGrid

WIDTHS = (32, 64, 128)
GOALS = {"one thread": 0.95, "two threads": 1.4, "bf16": 1.6}
MEMORY_GOAL = 3.0
SHAPE = KernelShape.of_submanifold(3)


class LevelCase:
    """One level: its map, and leaves to differentiate by."""

    def __init__(self, grid: VoxelGrid, width: int) -> None:
        generator = torch.Generator().manual_seed(width)
        self.kernel: KernelMap = kernel_map(grid, SHAPE)
        self.kernel.schedule("forward")
        self.feats = torch.randn(grid.num_voxels, width, generator=generator)
        self.weight = torch.randn(SHAPE.volume, width, width, generator=generator) / (27 * width) ** 0.5
        self.gradient = torch.randn(grid.num_voxels, width, generator=generator)

    def save(self, path: Path) -> None:
        """What the peer needs of it."""
        torch.save(
            {
                "coords": self.kernel.source.coords,
                "feats": self.feats,
                "weight": self.weight,
                "gradient": self.gradient,
            },
            path,
        )

    def seconds(self, dtype: torch.dtype = torch.float32, device: str = "cpu") -> float:
        """Time of one forward and backward."""
        feats = self.feats.to(device, dtype).requires_grad_()
        weight = self.weight.to(device, dtype).requires_grad_()
        gradient = self.gradient.to(device, dtype)
        _wait(device)
        start = time.perf_counter()
        sparse_conv(feats, weight, self.kernel).backward(gradient)
        _wait(device)
        return time.perf_counter() - start


def main() -> None:
    """Run all parts, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="interpreter of an environment with torch and spconv's CPU wheel")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = [LevelCase(grid, width) for grid, width in zip(room_levels(), WIDTHS, strict=True)]
    for case in cases:
        print(f"{len(case.feats):,} voxels, {case.kernel.num_pairs / len(case.feats):.1f} pairs a voxel")
    result: dict[str, Any] = {"name": "sparse_conv", "unit": "s, forward + backward, one thread each"}
    result |= memory(cases)
    with tempfile.TemporaryDirectory() as folder:
        peer = None
        if options.peer_python:
            for number, case in enumerate(cases):
                case.save(Path(folder) / f"level{number}.pt")
            peer = Peer(options.peer_python, Path(folder))
            result |= agreement(peer)
        else:
            print(NO_PEER)
        result |= times(cases, peer, options.repeats)
        if peer:
            peer.close()
    if torch.cuda.is_available():
        result |= cuda(cases)
    print(json.dumps(result))


def times(cases: list[LevelCase], peer: Peer | None, repeats: int) -> dict[str, Any]:
    """Ours on one and two threads, in fp32 and bf16, and the peer, by turns."""
    kinds = {"one thread": (1, torch.float32), "two threads": (2, torch.float32), "bf16": (1, torch.bfloat16)}
    seconds: dict[str, list[float]] = {name: [] for name in (*kinds, "peer")}
    for repeat in range(repeats + 1):
        for name, (num_threads, dtype) in kinds.items():
            if name == "bf16" and repeat > 3:
                continue
            torch.set_num_threads(num_threads)
            total = sum(case.seconds(dtype) for case in cases)
            torch.set_num_threads(1)
            if repeat:  # the first round warms caches and compiled kernels up
                seconds[name].append(total)
        if peer:
            answers = [peer.ask("convolve", level) for level in range(len(cases))]
            if repeat:
                seconds["peer"].append(sum(answer["forward"] + answer["backward"] for answer in answers))
    for name, values in seconds.items():
        if values:
            print(f"{name}: median {statistics.median(values) * 1e3:.0f} ms, least {min(values) * 1e3:.0f} ms")
    ours = seconds["one thread"]
    found: dict[str, Any] = {
        "ours": round(statistics.median(ours), 4),
        "bf16_speedup": round(statistics.median(a / b for a, b in zip(ours, seconds["bf16"], strict=False)), 2),
        "bf16_goal": GOALS["bf16"],
        "bf16_in_hardware": cpu_has_bf16(),
    }
    if not peer:
        return found | {"peer": None, "ratio": None, "goal": GOALS["one thread"], "met": None}
    theirs = seconds["peer"]
    one, two = (
        statistics.median(b / a for a, b in zip(seconds[name], theirs, strict=True))
        for name in ("one thread", "two threads")
    )
    return found | {
        "peer": round(statistics.median(theirs), 4),
        "peer_version": f"spconv {peer.version}, CPU, one thread",
        "ratio": round(one, 3),
        "goal": GOALS["one thread"],
        "ratio_two_threads": round(two, 3),
        "goal_two_threads": GOALS["two threads"],
        "met": one >= GOALS["one thread"] and two >= GOALS["two threads"],
    }


def agreement(peer: Peer) -> dict[str, float]:
    """Ours and spconv's from the same weights: its own module, and its functions as the adapter calls them on CUDA."""
    answers = [peer.ask("check", level) for level in range(len(WIDTHS))]
    worst = {kind: max(answer[kind] for answer in answers) for kind in ("module", "adapter")}
    print(f"largest relative deviation from spconv: module {worst['module']:.1e}, adapter {worst['adapter']:.1e}")
    return {f"deviation_{kind}": value for kind, value in worst.items()}


def memory(cases: list[LevelCase]) -> dict[str, Any]:
    """Peak memory of a forward and backward in units of the features (inputs and outputs), without the kernel maps.

    Counted: inputs, outputs, both gradients and every buffer, by torch's own record of allocations on one thread; not
    counted: the weights and their gradient, which do not grow with the scene.
    """
    ratios = []
    for case in cases:
        peak = case.feats.nbytes + case.gradient.nbytes + _peak_bytes(case) - case.weight.nbytes
        ratios.append(peak / (2 * case.feats.nbytes))
        print(
            f"{len(case.feats):,} voxels x {case.feats.shape[1]}: peak {peak / 1e6:.1f} MB = {ratios[-1]:.2f}x features "
            f"(of {2 * case.feats.nbytes / 1e6:.1f} MB), maps {case.kernel.num_bytes() / 1e6:.1f} MB"
        )
    return {
        "memory_ratio": round(max(ratios), 2),
        "memory_goal": MEMORY_GOAL,
        "memory_met": max(ratios) <= MEMORY_GOAL,
        "map_bytes_a_pair": round(cases[0].kernel.num_bytes() / cases[0].kernel.num_pairs, 2),
    }


def _peak_bytes(case: LevelCase) -> int:
    feats, weight = case.feats.clone().requires_grad_(), case.weight.clone().requires_grad_()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        sparse_conv(feats, weight, case.kernel).backward(case.gradient)
    assert profile.profiler is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def cuda(cases: list[LevelCase]) -> dict[str, Any]:
    """The same on CUDA: pure torch, and spconv's kernels where its CUDA build is installed; written to results/."""
    moved, device = [], torch.device("cuda")
    for case in cases:
        grid = VoxelGrid(case.kernel.source.coords.to(device))
        moved.append(LevelCase(grid, case.feats.shape[1]))
    build = spconv_adapter._cuda_build
    engines: dict[str, Any] = {"torch": lambda: None}
    if build() is not None:
        engines["spconv"] = build
    found: dict[str, Any] = {"cuda_device": torch.cuda.get_device_name()}
    for name, chosen in engines.items():
        spconv_adapter._cuda_build = chosen
        runs = [sum(case.seconds(device="cuda") for case in moved) for _ in range(11)]
        found[f"cuda_{name}_ms"] = round(statistics.median(runs[1:]) * 1e3, 2)
    spconv_adapter._cuda_build = build
    path = Path(__file__).parent / "results" / "sparse_conv_cuda.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
