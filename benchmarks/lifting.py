"""Lifting onto a million points: ours against a loop that gathers a feature for every point and view.

A million points of a furnished room, 20 views of 320x240 with depth, dense maps of 512 numbers in fp16; inputs and peer are
those of `benchmarks.fusion`. Ours has the default budget of memory, in which the sums of a million points take two blocks
(2 GB); the peer holds them whole.

Run: python -m benchmarks.lifting
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.harness import interleaved, median_ratio, medians, parser, report
from benchmarks.shared.dense_fusion import make_fusion
from ov3d.common.lifting.lift import LiftConfig

NUM_POINTS, DIM, REPEATS = 1_000_000, 512, 2
GOAL = 10.0


def main() -> None:
    """Measure, and print one JSON line."""
    arguments = parser(__doc__)
    arguments.add_argument("--repeats", type=int, default=REPEATS)
    options = arguments.parse_args()
    rows: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        fusion = make_fusion(Path(folder), num_points=NUM_POINTS, dim=DIM, memory_mib=LiftConfig().memory_mib)
        calls = fusion.calls()
        counted = {name: lambda name=name: rows.update({name: len(calls[name]())}) for name in calls}
        times = interleaved(counted, options.repeats, warm_up=0)
    assert rows["ours"] == rows["peer"], "both must see the same points"
    median, ratio = medians(times), median_ratio(times["peer"], times["ours"])
    print(
        f"{NUM_POINTS:,} points, {rows['ours']:,} seen: ours {median['ours']:.2f} s, peer {median['peer']:.2f} s "
        f"({ratio:.1f}x)"
    )
    report(
        "lifting",
        ours=round(median["ours"], 3),
        peer=round(median["peer"], 3),
        unit="s for 1M points, 20 views, 512 numbers",
        ratio=round(ratio, 2),
        goal=GOAL,
        met=ratio >= GOAL,
        save=options.save,
        rows=rows["ours"],
    )


if __name__ == "__main__":
    main()
