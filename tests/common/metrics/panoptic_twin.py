"""What the fast metric is compared with: a slow twin that walks over segments one by one, and the official tool itself.

The twin says the rules in sets of point numbers, so that nobody has to trust its arithmetic. The official tools are single
files of nuscenes-devkit that need NumPy alone; importing its package would need far more, so a file is loaded by its path
(pip install --no-deps nuscenes-devkit).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

Scan = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def official_tool() -> Any:
    """The class PanopticEval; skips the test where the package is not installed."""
    return _official_module("panoptic/panoptic_seg_evaluator.py").PanopticEval


def official_lidarseg() -> Any:
    """The class ConfusionMatrix of nuScenes-lidarseg; its file imports the data set's reader, which it does not need here."""
    reader, splits = ModuleType("nuscenes"), ModuleType("nuscenes.utils.splits")
    reader.NuScenes, splits.create_splits_scenes = None, None  # type: ignore[attr-defined]
    stand_ins = {"nuscenes": reader, "nuscenes.utils": ModuleType("nuscenes.utils"), "nuscenes.utils.splits": splits}
    with pytest.MonkeyPatch.context() as patch:
        for name, module in stand_ins.items():
            patch.setitem(sys.modules, name, module)
        return _official_module("lidarseg/utils.py").ConfusionMatrix


def _official_module(name: str) -> Any:
    """One file of nuscenes-devkit's `eval` folder; skips the test where the package is not installed."""
    try:
        place = importlib.metadata.distribution("nuscenes-devkit").locate_file(f"nuscenes/eval/{name}")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("not installed: pip install --no-deps nuscenes-devkit")
    spec = importlib.util.spec_from_file_location("official_" + Path(name).stem, str(place))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TwinScores(NamedTuple):
    """Counts a class, and the sum of IoUs as the twin met them."""

    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    sum_iou: np.ndarray


def twin_scan(scan: Scan, num_classes: int, ignore: set[int], min_points: int) -> TwinScores:
    """One scan by sets of points; `scan` is predicted class and id, true class and id."""
    predicted: dict[tuple[int, int], set[int]] = defaultdict(set)
    true: dict[tuple[int, int], set[int]] = defaultdict(set)
    for point, (found_class, found_id, true_class, true_id) in enumerate(
        zip(*(part.tolist() for part in scan), strict=True)
    ):
        if true_class in ignore:
            continue
        true[true_class, true_id].add(point)
        if found_class not in ignore:
            predicted[found_class, found_id].add(point)
    tp, fp, fn = (np.zeros(num_classes, np.int64) for _ in range(3))
    sum_iou = np.zeros(num_classes)
    matched = set()
    for truth, true_points in true.items():
        for found, found_points in predicted.items():
            shared = len(true_points & found_points)
            if found[0] == truth[0] and shared and shared / len(true_points | found_points) > 0.5:
                tp[truth[0]] += 1
                sum_iou[truth[0]] += shared / len(true_points | found_points)
                matched |= {("true", *truth), ("found", *found)}
    for truth, points in true.items():
        fn[truth[0]] += ("true", *truth) not in matched and len(points) >= min_points
    for found, points in predicted.items():
        fp[found[0]] += ("found", *found) not in matched and len(points) >= min_points
    return TwinScores(tp, fp, fn, sum_iou)


def random_scan(rng: np.random.Generator, num_classes: int, *, largest: int = 400) -> Scan:
    """A scan with every corner: void, crowded ids, instance bits on stuff, absent classes, tiny segments, all ignored."""
    kind = rng.integers(8)
    num = int(rng.integers(0, 3)) if kind == 0 else int(rng.integers(3, largest))
    classes = rng.choice(num_classes, size=rng.integers(1, num_classes + 1), replace=False)
    run = int(rng.integers(1, 30))
    true_class = np.repeat(rng.choice(classes, num // run + 1), run)[:num]
    ids = 3 if kind == 1 else 2**31 - 2 if kind == 2 else 40
    true_id = np.repeat(rng.integers(0, ids, num // run + 1), run)[:num]
    if kind == 3:
        true_class[:] = 0
    if kind == 4:  # the whole packed label as the id, as the tools do
        true_id = (true_id % 5 << 16) | true_class
    noise = rng.random(num) < rng.choice([0.0, 0.02, 0.3, 1.0])
    whole = np.repeat(rng.random(num // run + 1) < 0.3, run)[:num]
    swapped = np.repeat(rng.choice(num_classes, num // run + 1), run)[:num]
    found_class = np.where(noise, rng.integers(0, num_classes, num), np.where(whole, swapped, true_class))
    found_id = np.where(rng.random(num) < 0.1, rng.integers(0, ids, num), true_id)
    if kind == 5:
        found_class[rng.random(num) < 0.3] = 0
    if kind == 6:
        found_id[:] = 0
    return found_class, found_id, true_class, true_id
