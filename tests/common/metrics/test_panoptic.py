"""Panoptic quality against the official tool, a slow twin and torchmetrics; each trap of the official tools by itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.metrics import PanopticQuality
from tests.common.metrics.panoptic_twin import Scan, official_tool, random_scan, twin_scan

NUM_CLASSES, THINGS, IGNORE, MIN_POINTS = 12, range(1, 6), {0}, 15
NUM_SCANS = 300


def scans(seed: int = 0, count: int = NUM_SCANS) -> list[Scan]:
    rng = np.random.default_rng(seed)
    return [random_scan(rng, NUM_CLASSES) for _ in range(count)]


def counted(many: list[Scan], **options: int) -> PanopticQuality:
    metric = PanopticQuality(NUM_CLASSES, THINGS, ignore=IGNORE, min_points=options.get("min_points", MIN_POINTS))
    for scan in many:
        metric.update(*scan)
    return metric


def one(
    found_class: list[int], found_id: list[int], true_class: list[int], true_id: list[int], *, min_points: int = 1
) -> PanopticQuality:
    metric = PanopticQuality(4, [1], ignore=[0], min_points=min_points)
    metric.update(found_class, found_id, true_class, true_id)
    return metric


# ------------------------------------------------------------------------------------------------- third-party reference


def test_equals_the_official_tool() -> None:
    official = official_tool()(NUM_CLASSES, sorted(IGNORE), min_points=MIN_POINTS)
    many = scans()
    for scan in many:
        if len(scan[0]):
            official.addBatch(*(part.astype(np.int64) for part in scan))
    metric = counted(many)
    scores = metric.compute()
    np.testing.assert_array_equal(metric.tp, official.pan_tp)
    np.testing.assert_array_equal(metric.fp, official.pan_fp)
    np.testing.assert_array_equal(metric.fn, official.pan_fn)
    np.testing.assert_array_equal(metric.confusion, official.px_iou_conf_matrix.T)
    mean_pq, mean_sq, mean_rq, pq, sq, rq = official.getPQ()
    for ours, theirs in ((scores.pq, pq), (scores.sq, sq), (scores.rq, rq)):
        np.testing.assert_allclose(ours[1:], theirs[1:], rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        [scores.mean_pq, scores.mean_sq, scores.mean_rq], [mean_pq, mean_sq, mean_rq], rtol=0, atol=1e-12
    )
    mean_iou, iou = official.getSemIoU()
    np.testing.assert_array_equal(scores.iou[1:], iou[1:])
    assert scores.mean_iou == pytest.approx(mean_iou, abs=1e-15)
    assert min(metric.tp.sum(), metric.fp.sum(), metric.fn.sum()) > 300  # the scans do have something of everything


def test_equals_the_slow_twin() -> None:
    many = scans(1, 60)
    twins = [twin_scan(scan, NUM_CLASSES, IGNORE, MIN_POINTS) for scan in many]
    metric = counted(many)
    for name in ("tp", "fp", "fn"):
        np.testing.assert_array_equal(getattr(metric, name), sum(getattr(twin, name) for twin in twins))
    np.testing.assert_allclose(metric.compute().sum_iou, sum(twin.sum_iou for twin in twins), rtol=0, atol=1e-12)


def test_equals_torchmetrics_without_void() -> None:
    torch = pytest.importorskip("torch")
    panoptic = _torchmetrics().detection.PanopticQuality
    rng = np.random.default_rng(2)
    for _ in range(50):
        classes = np.repeat(rng.integers(0, 6, 40), 25)
        ids = np.where(classes < 3, np.repeat(rng.integers(0, 9, 40), 25), 0)
        found = np.where(rng.random(1000) < 0.2, rng.integers(0, 6, 1000), classes)
        found_ids = np.where(found < 3, ids, 0)
        theirs = panoptic(things={0, 1, 2}, stuffs={3, 4, 5})
        theirs.update(_pair(torch, found, found_ids), _pair(torch, classes, ids))
        metric = PanopticQuality(6, [0, 1, 2], min_points=1)
        metric.update(found, found_ids, classes, ids)
        scores = metric.compute()
        occurs = scores.tp + scores.fp + scores.fn > 0  # torchmetrics leaves classes without a segment out of the mean
        assert scores.pq[occurs].mean() == pytest.approx(float(theirs.compute()), abs=2e-8)


def _pair(torch: object, classes: np.ndarray, ids: np.ndarray) -> object:
    return torch.as_tensor(np.stack([classes, ids], axis=-1)[None])  # type: ignore[attr-defined]


def _torchmetrics() -> object:
    from ov3d.common.encoders.torchvision_shim import import_torchvision

    import_torchvision()
    pytest.importorskip("torchmetrics")
    import torchmetrics.detection

    return torchmetrics


# ------------------------------------------------------------------------------------------------------------------ traps


def test_trap_one_raw_classes_of_one_class_stay_segments() -> None:
    """Road (40) and lane marking (60) are class 1 both; the packed label as the id keeps them apart."""
    road, lane = [1] * 60, [1] * 40
    truth_id = [40] * 60 + [60] * 40
    split = one(road + lane, truth_id, road + lane, truth_id)
    merged = one(road + lane, [40] * 100, road + lane, truth_id)
    assert split.tp[1] == 2
    assert (merged.tp[1], merged.fp[1], merged.fn[1]) == (1, 0, 1)  # 60 of 100: a match, and the lane is missed


def test_trap_two_instance_bits_split_stuff() -> None:
    """Class 2 is stuff; two ids on it are two segments, and the truth is one."""
    metric = one([2] * 100, [0] * 50 + [7] * 50, [2] * 100, [0] * 100)
    assert (metric.tp[2], metric.fp[2], metric.fn[2]) == (0, 2, 1)


def test_trap_three_predicting_ignore_costs_misses_and_iou_only() -> None:
    metric = one([0] * 60 + [1] * 40, [5] * 60 + [1] * 40, [1] * 100, [1] * 100)
    scores = metric.compute()
    assert (scores.tp[1], scores.fp[1], scores.fn[1]) == (0, 1, 1)
    assert scores.fp[0] == 0
    assert scores.iou[1] == pytest.approx(0.4)
    assert scores.coverage == pytest.approx(0.4)


def test_trap_three_spilling_onto_ignored_truth_is_free() -> None:
    metric = one([1] * 300, [1] * 300, [1] * 100 + [0] * 200, [1] * 300)
    scores = metric.compute()
    assert (scores.tp[1], scores.fp[1], scores.fn[1]) == (1, 0, 0)
    assert scores.pq[1] == 1.0
    assert scores.iou[1] == 1.0


def test_a_segment_that_only_spills_is_no_false_positive() -> None:
    """All but 10 points of the prediction are on ignored truth: what is left is under min_points."""
    metric = one([1] * 110, [9] * 110, [0] * 100 + [2] * 10, [0] * 110, min_points=15)
    assert metric.fp[1] == 0
    larger = one([1] * 115, [9] * 115, [0] * 100 + [2] * 15, [0] * 115, min_points=15)
    assert larger.fp[1] == 1


def test_a_match_of_exactly_half_is_none() -> None:
    metric = one([1] * 50 + [2] * 50, [1] * 100, [1] * 100, [1] * 100)
    assert (metric.tp[1], metric.fp[1], metric.fn[1]) == (0, 1, 1)
    above = one([1] * 51 + [2] * 49, [1] * 100, [1] * 100, [1] * 100)
    assert above.tp[1] == 1


def test_small_matches_count_and_small_misses_do_not() -> None:
    metric = one([1] * 3 + [2] * 4, [1] * 7, [1] * 3 + [3] * 4, [1] * 7, min_points=50)
    assert metric.tp[1] == 1
    assert metric.fp.sum() == metric.fn.sum() == 0


def test_instance_zero_of_a_thing_is_a_segment() -> None:
    metric = one([1] * 20, [0] * 20, [1] * 20, [0] * 20)
    assert metric.tp[1] == 1


def test_absent_classes_count_as_zero_in_means() -> None:
    scores = one([1] * 20, [1] * 20, [1] * 20, [1] * 20).compute()
    assert scores.mean_pq == pytest.approx(1 / 3)
    assert scores.mean_iou == pytest.approx(1 / 3)


def test_dagger_takes_iou_for_stuff() -> None:
    """Class 1 is a thing with PQ 1; class 2 is stuff of IoU 0.4 and PQ 0; class 3 is absent."""
    scores = one([1] * 10 + [2] * 4 + [0] * 6, [1] * 20, [1] * 10 + [2] * 10, [1] * 20).compute()
    assert scores.pq[2] == 0
    assert scores.pq_dagger == pytest.approx((1 + 0.4 + 0) / 3)


# -------------------------------------------------------------------------------------------------- streaming and merging


@given(st.randoms(use_true_random=False), st.integers(1, 7))
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_order_and_any_parts_give_the_same_bits(random: object, num_parts: int) -> None:
    many = scans(3, 15)
    whole = counted(many).compute()
    random.shuffle(many)  # type: ignore[attr-defined]
    parts = [counted(many[start::num_parts]) for start in range(num_parts)]
    for part in parts[1:]:
        parts[0].merge(part)
    merged = parts[0].compute()
    assert merged.sum_iou.tobytes() == whole.sum_iou.tobytes()
    assert merged.mean_pq == whole.mean_pq
    np.testing.assert_array_equal(parts[0].confusion, counted(many).confusion)


def test_sums_of_iou_are_rounded_once() -> None:
    """Many IoUs of 2/3: the sum is the double nearest to theirs, which adding doubles misses."""
    metric = PanopticQuality(4, [1], ignore=[0], min_points=1)
    for _ in range(200):
        metric.update([1, 1, 2], [1] * 3, [1] * 3, [1] * 3)
    assert metric.compute().sum_iou[1] == float(np.longdouble(2 / 3) * 200)
    assert sum([2 / 3] * 200) != metric.compute().sum_iou[1]


def test_huge_ids_on_both_sides() -> None:
    """Two 32-bit ids and two classes do not fit 64 bits: the segments are numbered first."""
    rng = np.random.default_rng(5)
    true_id = np.repeat(rng.integers(2**31, 2**32, 50), 20)
    classes = np.repeat(rng.integers(0, NUM_CLASSES, 50), 20)
    found_id = np.where(rng.random(1000) < 0.1, 2**32 - 1, true_id)
    scan = classes, found_id, classes, true_id
    metric = counted([scan])
    twin = twin_scan(scan, NUM_CLASSES, IGNORE, MIN_POINTS)
    np.testing.assert_array_equal(metric.tp, twin.tp)
    np.testing.assert_array_equal(metric.fp, twin.fp)


# -------------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("argument", "values", "said"),
    [
        (0, [1, -1], "prediction_class holds -1 at index 1"),
        (0, [1, 4], "prediction_class holds 4 at index 1"),
        (2, [-1, 1], "truth_class holds -1 at index 0"),
        (1, [3, -1], "prediction_instance holds -1 at index 1"),
        (3, [2**32, 1], "truth_instance holds 4294967296 at index 0"),
        (0, [1.0, 1.0], "prediction_class has type float64"),
        (2, [1, 1, 1], "differ in length"),
    ],
)
def test_bad_labels_are_refused_and_nothing_is_counted(argument: int, values: list[float], said: str) -> None:
    metric = PanopticQuality(4, [1], ignore=[0])
    arrays: list[object] = [[1, 1], [1, 1], [1, 1], [1, 1]]
    arrays[argument] = np.array(values)
    with pytest.raises(DataError, match=said):
        metric.update(*arrays)
    assert metric.num_scans == 0
    assert metric.confusion.sum() == 0


def test_the_official_tool_wraps_minus_one() -> None:
    """Why a label of -1 is refused here: there it is silently the last class."""
    official = official_tool()(4, [0], min_points=1)
    label = np.array([-1] * 10)
    official.addBatch(label, label, np.full(10, 3), np.full(10, 3))
    assert official.px_iou_conf_matrix[3, 3] == 10


def test_bad_settings() -> None:
    with pytest.raises(UsageError, match="things must hold classes from 0 to 3, got 4"):
        PanopticQuality(4, [4])
    with pytest.raises(UsageError, match="both a thing and ignored"):
        PanopticQuality(4, [0, 1], ignore=[0])
    with pytest.raises(UsageError, match="cannot be merged"):
        PanopticQuality(4, [1]).merge(PanopticQuality(4, [1], min_points=15))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_every_integer_type(dtype: str) -> None:
    rng = np.random.default_rng(6)
    scan = [np.repeat(rng.integers(0, 12, 30), 20) for _ in range(4)]
    expected = counted([tuple(scan)])  # type: ignore[list-item]
    found = counted([tuple(part.astype(dtype) for part in scan)])  # type: ignore[list-item]
    np.testing.assert_array_equal(found.confusion, expected.confusion)
    np.testing.assert_array_equal(found.tp, expected.tp)
