"""Panoptic quality of 50 scans of 120,000 points, 20 classes and 60 instances, against the official tool and torchmetrics.

All take the same int64 arrays, one thread each, in turn; medians of a scan's CPU time are compared. The counts are checked to
be bit-equal to the official tool's. torchmetrics is far slower, so it sees a few of the scans only.

Run: python -m benchmarks.panoptic_quality [--scans N]     (pip install '.[bench]'; pip install --no-deps nuscenes-devkit)
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.harness import interleaved, medians, parser, report
from benchmarks.shared.lidar_labels import IGNORED, NUM_CLASSES, THINGS, Scan, make_scans
from ov3d.common.metrics import PanopticQuality

GOAL, GOAL_TORCHMETRICS = 17.0, 200.0
MIN_POINTS = 50


def main() -> None:
    """Run both orders of points, and print one JSON line."""
    arguments = parser(__doc__)
    arguments.add_argument("--scans", type=int, default=50)
    arguments.add_argument("--torchmetrics-scans", type=int, default=4)
    options = arguments.parse_args()
    measured = {
        order: measure(make_scans(options.scans, shuffled=order == "shuffled"), options.torchmetrics_scans)
        for order in ("scan order", "shuffled")
    }
    for order, times in measured.items():
        print(f"{order}: " + ", ".join(f"{name} {1e3 * seconds:.2f} ms" for name, seconds in times.items()))
    times, worst = measured["scan order"], measured["shuffled"]
    ratio, ratio_torchmetrics = times["official"] / times["ours"], times["torchmetrics"] / times["ours"]
    report(
        "panoptic_quality",
        ours=round(1e3 * times["ours"], 3),
        peer=round(1e3 * times["official"], 3),
        unit="ms a scan",
        ratio=round(ratio, 1),
        goal=GOAL,
        met=ratio >= GOAL and ratio_torchmetrics >= GOAL_TORCHMETRICS,
        save=options.save,
        torchmetrics=round(1e3 * times["torchmetrics"], 1),
        ratio_torchmetrics=round(ratio_torchmetrics, 1),
        goal_torchmetrics=GOAL_TORCHMETRICS,
        shuffled={
            "ours": round(1e3 * worst["ours"], 3),
            "ratio": round(worst["official"] / worst["ours"], 1),
            "ratio_torchmetrics": round(worst["torchmetrics"] / worst["ours"], 1),
        },
    )


def measure(scans: list[Scan], num_torchmetrics: int) -> dict[str, float]:
    """Median seconds a scan of each; raises when the counts are not equal."""
    official = official_tool()(NUM_CLASSES, [IGNORED], min_points=MIN_POINTS)
    ours = PanopticQuality(NUM_CLASSES, THINGS, ignore=[IGNORED], min_points=MIN_POINTS)
    theirs, to_tensors = torchmetrics_tool()
    arrays = [scan.arrays() for scan in scans]
    tensors = [to_tensors(scan) for scan in scans[:num_torchmetrics]]
    # Each call takes the next scan. Processor time: what else the machine does meanwhile does not count.
    calls = {
        "official": partial(_on_next, official.addBatch, iter(arrays)),
        "ours": partial(_on_next, ours.update, iter(arrays)),
        "torchmetrics": partial(_on_next, theirs.update, iter(tensors)),
    }
    times = interleaved(
        calls, len(scans), warm_up=0, at_most={"torchmetrics": num_torchmetrics}, clock=time.thread_time
    )
    for name, count in (("tp", official.pan_tp), ("fp", official.pan_fp), ("fn", official.pan_fn)):
        np.testing.assert_array_equal(getattr(ours, name), count)
    np.testing.assert_array_equal(ours.confusion, official.px_iou_conf_matrix.T)
    np.testing.assert_allclose(ours.compute().mean_pq, official.getPQ()[0], rtol=0, atol=1e-12)
    return medians(times)


def _on_next(update: Callable[..., object], inputs: Iterator[Sequence[Any]]) -> object:
    return update(*next(inputs))


def official_tool() -> Any:
    """PanopticEval of nuscenes-devkit, from its one file: the package itself would import much more."""
    place = importlib.metadata.distribution("nuscenes-devkit").locate_file(
        "nuscenes/eval/panoptic/panoptic_seg_evaluator.py"
    )
    spec = importlib.util.spec_from_file_location("official_panoptic_eval", str(place))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PanopticEval


def torchmetrics_tool() -> tuple[Any, Callable[[Scan], tuple[Any, Any]]]:
    """torchmetrics' PanopticQuality, and what makes its input of a scan; void is stuff to it."""
    import torch

    from ov3d.common.encoders.torchvision_shim import import_torchvision

    torch.set_num_threads(1)
    import_torchvision()
    from torchmetrics.detection import PanopticQuality as Theirs

    metric = Theirs(things=set(THINGS), stuffs=set(range(NUM_CLASSES)) - set(THINGS), allow_unknown_preds_category=True)

    def tensors(scan: Scan) -> tuple[Any, Any]:
        pairs = (scan.found_class, scan.found_id), (scan.true_class, scan.true_id)
        found, true = (torch.as_tensor(np.stack(pair, axis=-1)[None]) for pair in pairs)
        return found, true

    return metric, tensors


if __name__ == "__main__":
    main()
