"""A SemanticKITTI tree of 200 scans, end to end, against the time to read its files plus the time of the metric alone.

The tree is made of the real sample scans (OV3D_DATA, or ../shared/data beside the repository), copied; predictions are the
truth with blobs of wrong labels. Reading alone, the metric alone on labels in memory, and the whole evaluation (find and pair
files, read, count, check ids, report) run in turn, in one process and one thread; medians are compared. The peer is the bound:
reading + metric.

Run: python -m benchmarks.eval_tree [--scans N] [--repeats N]     (needs nothing but ov3d and the scans)
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.harness import data_folder, interleaved, medians, parser, report, skip
from ov3d.common.datasets import load_dataset
from ov3d.common.metrics import PanopticQuality
from ov3d.common.metrics.counting import count_overlaps
from ov3d.common.metrics.folders import evaluate_folders
from ov3d.common.metrics.panoptic import SegmentPairs

GOAL = 0.8
RAW_IDS = np.array([10, 11, 15, 18, 30, 40, 48, 50, 70, 72, 80], np.uint32)


def main() -> None:
    """Make the tree, measure, and print one JSON line."""
    arguments = parser(__doc__)
    arguments.add_argument("--scans", type=int, default=200)
    arguments.add_argument("--repeats", type=int, default=7)
    options = arguments.parse_args()
    unit = f"s for {options.scans} scans"
    data = data_folder("lidar", "semantickitti")
    sources = sorted(data.rglob("*.label"))
    if not sources:
        skip("eval_tree", f"no SemanticKITTI sample scans at {data} (set OV3D_DATA)", unit=unit, goal=GOAL)
        return
    with tempfile.TemporaryDirectory() as folder:
        truth, found = make_tree(Path(folder), sources, options.scans)
        median = measure(truth, found, options.repeats)
    print(", ".join(f"{name} {1e3 * value:.0f} ms" for name, value in median.items()))
    bound = median["read"] + median["metric"]
    report(
        "eval_tree",
        ours=round(median["everything"], 4),
        peer=round(bound, 4),
        unit=unit,
        ratio=round(bound / median["everything"], 3),
        goal=GOAL,
        met=bound / median["everything"] >= GOAL,
        save=options.save,
        read=round(median["read"], 4),
        metric=round(median["metric"], 4),
        scans_per_second=round(options.scans / median["everything"], 1),
    )


def make_tree(root: Path, sources: list[Path], count: int) -> tuple[Path, Path]:
    """Copies of the scans as sequence 08, and predictions with 8 % of the points wrong, in blobs of 8."""
    rng = np.random.default_rng(0)
    truth, found = root / "truth/sequences/08/labels", root / "found/sequences/08/predictions"
    truth.mkdir(parents=True)
    found.mkdir(parents=True)
    for idx in range(count):
        labels = np.fromfile(sources[idx % len(sources)], np.uint32)
        wrong = np.repeat(rng.random(len(labels) // 8 + 1) < 0.08, 8)[: len(labels)]
        other = np.repeat(rng.choice(RAW_IDS, len(labels) // 8 + 1), 8)[: len(labels)]
        labels.tofile(truth / f"{idx:06d}.label")
        np.where(wrong, other, labels).astype(np.uint32).tofile(found / f"{idx:06d}.label")
    return root / "truth", root / "found"


def measure(truth: Path, found: Path, repeats: int) -> dict[str, float]:
    """Median seconds of reading, of the metric and of everything."""
    spec = load_dataset("semantickitti")
    files = [sorted(root.rglob("*.label")) for root in (truth, found)]
    pairs = [tuple(np.fromfile(path, np.uint32) for path in both) for both in zip(*files, strict=True)]
    table = spec.id_table("truth")

    def read() -> None:
        for both in zip(*files, strict=True):
            for path in both:
                np.fromfile(path, np.uint32)

    def metric() -> PanopticQuality:
        quality = PanopticQuality(len(spec.classes), spec.things, ignore=[0], min_points=spec.min_points)
        for true, predicted in pairs:
            pair = count_overlaps(predicted, true)
            classes = table[pair.prediction & 0xFFFF], table[pair.truth & 0xFFFF]
            quality.update_segments(SegmentPairs(classes[0], pair.prediction, classes[1], pair.truth, pair.counts))
        return quality

    def everything() -> float | None:
        return evaluate_folders(spec, truth, found, workers=1).means["PQ"]

    assert everything() == metric().compute().mean_pq
    return medians(interleaved({"read": read, "metric": metric, "everything": everything}, repeats, warm_up=0))


if __name__ == "__main__":
    main()
