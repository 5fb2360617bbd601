"""Lifting onto a million points: ours against a loop that gathers a feature for every point and view.

A million points of a furnished room, 20 views of 320x240 with depth, dense maps of 512 numbers in fp16; the peer is that of
`benchmarks.fusion`. Both end with one fp16 row a seen point. Ours has the default budget of memory, in which the sums of a
million points take two blocks (2 GB); the peer holds them whole.

Run: python -m benchmarks.lifting
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import fusion
from ov3d.common.lifting.lift import LiftConfig

NUM_POINTS, DIM, REPEATS = 1_000_000, 512, 2
GOAL = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    options = parser.parse_args()
    fusion.NUM_POINTS, fusion.DIM = NUM_POINTS, DIM
    fusion.CONFIG = fusion.CONFIG.model_copy(update={"memory_mib": LiftConfig().memory_mib})
    seconds: dict[str, list[float]] = {name: [] for name in fusion.RUNS}
    with tempfile.TemporaryDirectory() as folder:
        inputs = fusion.make_inputs(Path(folder))
        rows = {}
        for _ in range(options.repeats):
            for name, function in fusion.RUNS.items():
                start = time.perf_counter()
                rows[name] = len(function(*inputs))  # type: ignore[arg-type]
                seconds[name].append(time.perf_counter() - start)
    assert rows["ours"] == rows["peer"], "both must see the same points"
    ours, theirs = (statistics.median(seconds[name]) for name in ("ours", "peer"))
    ratio = statistics.median(p / o for o, p in zip(seconds["ours"], seconds["peer"], strict=True))
    print(f"{len(inputs[0]):,} points, {rows['ours']:,} seen: ours {ours:.2f} s, peer {theirs:.2f} s ({ratio:.1f}x)")
    result = {
        "name": "lifting",
        "ours": round(ours, 3),
        "peer": round(theirs, 3),
        "unit": "s for 1M points, 20 views, 512 numbers",
        "ratio": round(ratio, 2),
        "goal": GOAL,
        "met": ratio >= GOAL,
        "rows": rows["ours"],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
