"""Sparse convolution over three levels of a U-Net: ours against spconv's CPU wheel.

    python -m benchmarks.sparse_conv --peer-python peer/bin/python

One 3³ submanifold convolution a level (about 123,000, 31,000 and 8,000 voxels; 32, 64, 128 channels), kernel maps at hand,
forward and backward (gradients of inputs and weights). The peer is held to one thread in its own process, since with two its
results are wrong. Ours and the peer take turns; each repeat gives one ratio, the median counts. Also printed: agreement
with the peer from the same weights, memory against the features, bf16, and with a CUDA device the same there, which is also
written to benchmarks/results/.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import interleaved, median_ratio, medians, parser, report, write_result
from benchmarks.shared.sparse_levels import WIDTHS, LevelCase, room_levels
from benchmarks.shared.spconv_peer import Peer, open_peer
from ov3d.common.sparse import spconv_adapter
from ov3d.common.sparse.conv import cpu_has_bf16, sparse_conv
from ov3d.common.sparse.voxels import VoxelGrid

GOALS = {"one thread": 0.95, "two threads": 1.4, "bf16": 1.6}
MEMORY_GOAL = 3.0


def main() -> None:
    """Run all parts, print a table and the JSON line."""
    arguments = parser(__doc__)
    arguments.add_argument("--peer-python", help="interpreter of an environment with torch and spconv's CPU wheel")
    arguments.add_argument("--repeats", type=int, default=9)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    cases = [LevelCase(grid, width) for grid, width in zip(room_levels(), WIDTHS, strict=True)]
    for case in cases:
        print(f"{len(case.feats):,} voxels, {case.kernel.num_pairs / len(case.feats):.1f} pairs a voxel")
    found = memory(cases)
    with tempfile.TemporaryDirectory() as folder, open_peer(options.peer_python, cases, Path(folder)) as peer:
        if peer:
            found |= agreement(peer)
        found |= measure(cases, peer, options.repeats)
    if torch.cuda.is_available():
        found |= cuda(cases)
    unit = "s, forward + backward, one thread each"
    report("sparse_conv", unit=unit, goal=GOALS["one thread"], save=options.save, **found)


def measure(cases: list[LevelCase], peer: Peer | None, repeats: int) -> dict[str, Any]:
    """Ours on one and two threads, in fp32 and bf16, and the peer, by turns."""
    kinds = {"one thread": (1, torch.float32), "two threads": (2, torch.float32), "bf16": (1, torch.bfloat16)}
    calls = {name: partial(_ours, cases, *kind) for name, kind in kinds.items()}
    if peer:
        calls["peer"] = partial(_theirs, peer)
    times = interleaved(calls, repeats, at_most={"bf16": 3}, clock=None)  # the first round compiles kernels, too
    median = medians(times)
    for name, values in times.items():
        print(f"{name}: median {median[name] * 1e3:.0f} ms, least {min(values) * 1e3:.0f} ms")
    found: dict[str, Any] = {
        "ours": round(median["one thread"], 4),
        "bf16_speedup": round(median_ratio(times["one thread"], times["bf16"]), 2),
        "bf16_goal": GOALS["bf16"],
        "bf16_in_hardware": cpu_has_bf16(),
    }
    if not peer:
        return found | {"peer": None, "ratio": None, "met": None}
    one, two = (median_ratio(times["peer"], times[name]) for name in ("one thread", "two threads"))
    return found | {
        "peer": round(median["peer"], 4),
        "peer_version": f"spconv {peer.version}, CPU, one thread",
        "ratio": round(one, 3),
        "ratio_two_threads": round(two, 3),
        "goal_two_threads": GOALS["two threads"],
        "met": one >= GOALS["one thread"] and two >= GOALS["two threads"],
    }


def _ours(cases: list[LevelCase], num_threads: int, dtype: torch.dtype) -> float:
    torch.set_num_threads(num_threads)
    total = sum(case.seconds(dtype) for case in cases)
    torch.set_num_threads(1)
    return total


def _theirs(peer: Peer) -> float:
    answers = [peer.ask("convolve", level) for level in range(len(WIDTHS))]
    return sum(answer["forward"] + answer["backward"] for answer in answers)


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
        times = interleaved({name: lambda: sum(case.seconds(device="cuda") for case in moved)}, 10, clock=None)
        found[f"cuda_{name}_ms"] = round(medians(times)[name] * 1e3, 2)
    spconv_adapter._cuda_build = build
    write_result("sparse_conv_cuda", found)
    return found


if __name__ == "__main__":
    main()
