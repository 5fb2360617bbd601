"""Fusing dense feature maps onto points: `ov3d.common.lifting.lift` against a loop that gathers a row per point and view.

100,000 points of a furnished room, 20 views, a dense map of 768 numbers for each; the peer is described in
`benchmarks.shared.dense_fusion.py`. Ours has a small budget of memory, because the maps are in memory anyway.

Equal: the same points are seen, and the means in fp32, before they are rounded to fp16, differ by at most 1e-6.
Memory: growth of the peak resident size over the inputs, each in a process of its own.

Run: python -m benchmarks.fusion
"""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.harness import in_own_process, interleaved, median_ratio, medians, parser, report
from benchmarks.shared.dense_fusion import CAMERA, NUM_VIEWS, Fusion, make_fusion

NUM_POINTS, DIM, MEMORY_MIB = 100_000, 768, 32
REPEATS = 3
GOAL, GOAL_MEMORY, GOAL_DIFFERENCE = 10.0, 0.25, 1e-6


def inputs(folder: str) -> Fusion:
    """What both fuse."""
    return make_fusion(Path(folder), num_points=NUM_POINTS, dim=DIM, memory_mib=MEMORY_MIB)


def memory_growth(which: str) -> int:
    """Growth of the peak resident size while `which` runs, in bytes, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        fusion = inputs(folder)
        # What only the first call allocates (thread pools, libraries) is not the method's: a small run first.
        replace(fusion, points=fusion.points[:2000], frames=fusion.frames[:1]).calls()[which]()
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before = _status("VmRSS")
        result = fusion.calls()[which]()
        grown = _status("VmHWM") - before
        assert result is not None
    return grown


def _status(name: str) -> int:
    """A size of this process in bytes, from Linux."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def main() -> None:
    """Measure time, memory and agreement, and print one JSON line."""
    arguments = parser(__doc__)
    arguments.add_argument("--memory", choices=("ours", "peer"), help="measure its memory in this process, print bytes")
    arguments.add_argument("--repeats", type=int, default=REPEATS)
    options = arguments.parse_args()
    if options.memory:
        print(json.dumps(memory_growth(options.memory)))
        return
    with tempfile.TemporaryDirectory() as folder:
        fusion = inputs(folder)
        difference = fusion.largest_difference()  # the warm-up of both
        times = interleaved(fusion.calls(), options.repeats, warm_up=0)
    median, ratio = medians(times), median_ratio(times["peer"], times["ours"])
    memory = {name: in_own_process("fusion", "--memory", name) for name in median}
    share = memory["ours"] / memory["peer"]
    print(f"{NUM_POINTS:,} points, {NUM_VIEWS} views of {CAMERA.width}x{CAMERA.height}, {DIM}-d fp16 maps")
    print(
        f"  time    ours {median['ours']:7.3f} s   peer {median['peer']:7.3f} s   {ratio:.1f}x, "
        f"median of {options.repeats} pairs"
    )
    print(f"  memory  ours {memory['ours'] / 1e6:7.1f} MB  peer {memory['peer'] / 1e6:7.1f} MB  share {share:.3f}")
    print(f"  largest difference of the fp32 means {difference:.2e}")
    report(
        "fusion",
        ours=round(median["ours"], 4),
        peer=round(median["peer"], 4),
        unit="s",
        ratio=round(ratio, 2),
        goal=GOAL,
        met=ratio >= GOAL and share <= GOAL_MEMORY and difference <= GOAL_DIFFERENCE,
        save=options.save,
        memory_ours=memory["ours"],
        memory_peer=memory["peer"],
        memory_share=round(share, 4),
        memory_goal=GOAL_MEMORY,
        largest_difference=difference,
    )


if __name__ == "__main__":
    main()
