"""A confusion matrix of 120,000 labels and 20 classes with unknown truth, against a masked bincount and torchmetrics.

The masked bincount is what most code bases write: keep the points of known truth, add up class pairs, count. All take the
same int64 arrays, one thread each, in turn; medians of CPU time are compared, and the counts checked to be equal. Labels of
other types and shuffled points are printed as well.

Run: python -m benchmarks.confusion [--repeats N]     (pip install '.[bench]')
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.harness import interleaved, medians, parser, report
from benchmarks.shared.lidar_labels import IGNORED, NUM_CLASSES, make_scans
from ov3d.common.metrics import SemanticConfusion

GOAL, GOAL_TORCHMETRICS = 5.0, 50.0
CLASSES = NUM_CLASSES - 1
UNKNOWN = -1


def main() -> None:
    """Run every case, and print one JSON line."""
    arguments = parser(__doc__)
    arguments.add_argument("--repeats", type=int, default=41)
    options = arguments.parse_args()
    cases = {}
    for order in ("scan order", "shuffled"):
        for dtype in ("int64", "int32", "int8"):
            found, truth = labels(order == "shuffled", dtype)
            times = measure(found, truth, options.repeats, torchmetrics=dtype == "int64")
            cases[order, dtype] = times
            print(f"{order}, {dtype}: " + ", ".join(f"{name} {1e3 * value:.3f} ms" for name, value in times.items()))
    times = cases["scan order", "int64"]
    ratio, ratio_torchmetrics = times["bincount"] / times["ours"], times["torchmetrics"] / times["ours"]
    report(
        "confusion",
        ours=round(1e3 * times["ours"], 4),
        peer=round(1e3 * times["bincount"], 4),
        unit="ms a scan",
        ratio=round(ratio, 2),
        goal=GOAL,
        met=ratio >= GOAL and ratio_torchmetrics >= GOAL_TORCHMETRICS,
        save=options.save,
        torchmetrics=round(1e3 * times["torchmetrics"], 3),
        ratio_torchmetrics=round(ratio_torchmetrics, 1),
        goal_torchmetrics=GOAL_TORCHMETRICS,
        other_ratios={" ".join(case): round(one["bincount"] / one["ours"], 2) for case, one in cases.items()},
    )


def labels(shuffled: bool, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true classes 0 to 18, truth -1 where it is unknown."""
    scan = make_scans(1, shuffled=shuffled)[0]
    truth = np.where(scan.true_class == IGNORED, UNKNOWN, scan.true_class - 1)
    return np.maximum(scan.found_class - 1, 0).astype(dtype), truth.astype(dtype)


def measure(found: np.ndarray, truth: np.ndarray, repeats: int, *, torchmetrics: bool) -> dict[str, float]:
    """Median seconds of each; raises when the counts are not equal."""
    ours = SemanticConfusion(CLASSES, ignore_label=UNKNOWN)
    work: dict[str, Callable[[], object]] = {
        "bincount": lambda: masked_bincount(found, truth),
        "ours": lambda: ours.update(found, truth),
    }
    if torchmetrics:
        work["torchmetrics"] = torchmetrics_update(found, truth)
    # Processor time: what else the machine does meanwhile does not count.
    times = interleaved(work, repeats, warm_up=0, at_most={"torchmetrics": 5}, clock=time.thread_time)
    np.testing.assert_array_equal(ours.matrix, repeats * masked_bincount(found, truth))
    return medians(times)


def masked_bincount(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The usual confusion matrix of semantic segmentation code."""
    known = (truth >= 0) & (truth < CLASSES)
    pair = CLASSES * truth[known].astype(int) + found[known]
    return np.bincount(pair, minlength=CLASSES * CLASSES).reshape(CLASSES, CLASSES)


def torchmetrics_update(found: np.ndarray, truth: np.ndarray) -> Callable[[], Any]:
    """One update of torchmetrics' matrix with the same unknown label."""
    import torch

    from ov3d.common.encoders.torchvision_shim import import_torchvision

    torch.set_num_threads(1)
    import_torchvision()
    from torchmetrics.classification import MulticlassConfusionMatrix

    metric = MulticlassConfusionMatrix(CLASSES, ignore_index=UNKNOWN)
    tensors = torch.as_tensor(found), torch.as_tensor(truth)
    return lambda: metric.update(*tensors)


if __name__ == "__main__":
    main()
