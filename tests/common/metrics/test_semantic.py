"""The confusion matrix against torchmetrics and against plain loops, and the two mean IoUs of nuScenes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.metrics import PanopticQuality, SemanticConfusion
from ov3d.common.metrics.counting import BLOCK, PairCounter, count_overlaps, count_unique, fold_runs
from ov3d.common.metrics.semantic import lidarseg_scores
from tests.common.metrics.panoptic_twin import official_lidarseg

DTYPES = ["int8", "uint8", "int16", "int32", "int64", "uint64"]


def test_equals_torchmetrics_without_void() -> None:
    torch = pytest.importorskip("torch")
    from ov3d.common.encoders.torchvision_shim import import_torchvision

    import_torchvision()
    pytest.importorskip("torchmetrics")
    from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

    rng = np.random.default_rng(0)
    for _ in range(50):
        truth, found = rng.integers(0, 7, 500), rng.integers(0, 7, 500)
        ours = SemanticConfusion(7)
        ours.update(found, truth)
        matrix, jaccard = MulticlassConfusionMatrix(7), MulticlassJaccardIndex(7)
        for theirs in (matrix, jaccard):
            theirs.update(torch.as_tensor(found), torch.as_tensor(truth))
        np.testing.assert_array_equal(ours.matrix, matrix.compute().numpy())
        assert ours.compute().mean_iou == pytest.approx(float(jaccard.compute()), abs=1e-7)  # theirs is in fp32


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("run", [1, 40])
def test_counts_equal_a_masked_bincount(dtype: str, run: int) -> None:
    """Short and long runs, more points than a block, ignored and unanswered points."""
    rng = np.random.default_rng(1)
    num = BLOCK + 1234
    signed = dtype.startswith("int")
    low = -1 if signed else 0
    truth = np.repeat(rng.integers(low, 20, num // run + 1), run)[:num].astype(dtype)
    found = np.repeat(rng.integers(low, 20, num // run + 1), run)[:num].astype(dtype)
    metric = SemanticConfusion(20, ignore_label=-1, no_prediction=-1)
    metric.update(found, truth)
    both = (truth.astype(int) >= 0) & (found.astype(int) >= 0)
    expected = np.bincount(truth[both].astype(int) * 20 + found[both].astype(int), minlength=400).reshape(20, 20)
    np.testing.assert_array_equal(metric.matrix, expected)
    assert metric.compute().num_ignored == (truth.astype(int) < 0).sum()
    assert metric.unanswered.sum() == ((truth.astype(int) >= 0) & (found.astype(int) < 0)).sum()


@given(
    arrays(np.int64, st.integers(0, 60), elements=st.integers(-3, 9)),
    st.randoms(use_true_random=False),
    st.sampled_from([None, -1, 2, 255]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_label_is_counted_or_refused(truth: np.ndarray, random: object, ignore: int | None) -> None:
    found = np.array([random.randint(-2, 8) for _ in truth], np.int64)  # type: ignore[attr-defined]
    metric = SemanticConfusion(6, ignore_label=ignore)
    known = set(range(6)) | ({ignore} if ignore is not None else set())
    if set(truth.tolist()) <= known and set(found.tolist()) <= set(range(6)):
        metric.update(found, truth)
        for row, column in np.ndindex(6, 6):
            expected = 0 if row == ignore else int(((truth == row) & (found == column)).sum())
            assert metric.matrix[row, column] == expected
    else:
        with pytest.raises(DataError, match="labels are not classes"):
            metric.update(found, truth)
        assert metric.compute().num_points == 0


def test_scores_by_hand() -> None:
    metric = SemanticConfusion(4, ignore_label=-1, no_prediction=-1)
    metric.update([0, 0, 1, 1, -1, 2], [0, 0, 0, 1, 1, -1])
    scores = metric.compute()
    np.testing.assert_allclose(scores.iou, [2 / 3, 1 / 3, 0, 0])
    np.testing.assert_allclose(scores.accuracy, [2 / 3, 1 / 2, 0, 0])
    assert scores.mean_iou == pytest.approx(1 / 4)
    assert scores.mean_iou_present == pytest.approx(1 / 2)
    assert scores.mean_accuracy_present == pytest.approx(7 / 12)
    assert scores.overall_accuracy == pytest.approx(3 / 5)
    assert scores.coverage == pytest.approx(4 / 5)
    assert (scores.num_points, scores.num_ignored) == (5, 1)


def test_an_ignored_class_is_out_of_every_mean() -> None:
    metric = SemanticConfusion(3, ignore_label=0)
    metric.update([1, 0, 2, 2], [1, 1, 2, 0])
    scores = metric.compute()
    assert scores.included.tolist() == [False, True, True]
    assert scores.mean_iou == pytest.approx((1 / 2 + 1) / 2)


def test_nothing_counted_gives_nan_not_zero() -> None:
    scores = SemanticConfusion(3).compute()
    assert np.isnan([scores.mean_iou_present, scores.overall_accuracy, scores.coverage]).all()
    assert scores.mean_iou == 0


def test_parts_merge_to_the_whole() -> None:
    rng = np.random.default_rng(3)
    parts = [SemanticConfusion(5) for _ in range(3)]
    whole = SemanticConfusion(5)
    for idx in range(9):
        found, truth = rng.integers(0, 5, 50), rng.integers(0, 5, 50)
        parts[idx % 3].update(found, truth)
        whole.update(found, truth)
    parts[2].merge(parts[0])
    parts[2].merge(parts[1])
    np.testing.assert_array_equal(parts[2].matrix, whole.matrix)
    with pytest.raises(UsageError, match="different settings"):
        parts[0].merge(SemanticConfusion(5, ignore_label=-1))


def test_counted_pairs_equal_points() -> None:
    rng = np.random.default_rng(4)
    found, truth = (rng.integers(0, 5, 3000).astype(np.uint32) for _ in range(2))
    by_point, by_pair = SemanticConfusion(5), SemanticConfusion(5)
    by_point.update(found, truth)
    overlaps = count_overlaps(found, truth)
    by_pair.update_pairs(overlaps.prediction, overlaps.truth, overlaps.counts)
    np.testing.assert_array_equal(by_pair.matrix, by_point.matrix)


# ------------------------------------------------------------------------------- trap four: nuScenes' two mean IoUs


def confusion_of_nuscenes() -> tuple[np.ndarray, np.ndarray]:
    """Truth and predictions of 4 classes with 0 ignored: class 3 does not occur, and some points are predicted as ignored."""
    truth = np.repeat([0, 1, 1, 2, 2, 2], [50, 30, 10, 20, 7, 13])
    found = np.repeat([1, 1, 2, 2, 1, 2], [50, 30, 10, 20, 7, 13])
    return truth, found


def test_lidarseg_leaves_absent_classes_out_and_panoptic_does_not() -> None:
    truth, found = confusion_of_nuscenes()
    semantic = SemanticConfusion(4, ignore_label=0, no_prediction=-1)
    semantic.update(found, truth)
    lidarseg = lidarseg_scores(semantic.compute())
    panoptic = PanopticQuality(4, [1], ignore=[0])
    panoptic.update(found, found, truth, truth)
    iou = np.array([30 / 47, 33 / 50])
    assert lidarseg.mean_iou == pytest.approx(iou.sum() / 2)
    assert panoptic.compute().mean_iou == pytest.approx(iou.sum() / 3)


def test_lidarseg_divides_by_a_single_precision_union() -> None:
    """2^24 + 1 points round to 2^24 in single precision: the tool's IoU of a perfect class is then above 1."""
    metric = SemanticConfusion(2, ignore_label=0)
    metric.update_pairs(np.array([1]), np.array([1]), np.array([2**24 + 1]))
    assert lidarseg_scores(metric.compute()).mean_iou == (2**24 + 1) / 2**24


def test_lidarseg_zeroes_the_column_of_ignored_predictions_too() -> None:
    """10 of 40 points are predicted as ignored: a miss in panoptic nuScenes, nothing in lidarseg."""
    truth, found = np.repeat([1, 1, 2], [30, 10, 5]), np.repeat([1, 0, 2], [30, 10, 5])
    semantic = SemanticConfusion(3, ignore_label=0)
    semantic.update(found, truth)
    assert semantic.compute().iou[1] == 30 / 40
    assert lidarseg_scores(semantic.compute()).iou[1] == 1.0


def test_lidarseg_equals_the_official_tool() -> None:
    """Random scans with absent classes and ignored truth: the IoUs have the official bits."""
    rng = np.random.default_rng(8)
    for num_used in range(1, 7):
        official = official_lidarseg()(7, ignore_idx=0)
        semantic = SemanticConfusion(7, ignore_label=0)
        for _ in range(4):
            truth, found = rng.integers(0, num_used + 1, 300), rng.integers(1, num_used + 1, 300)
            official.update(truth, found)
            semantic.update(found, truth)
        scores = lidarseg_scores(semantic.compute())
        iou = official.get_per_class_iou()
        np.testing.assert_array_equal(scores.iou[~np.isnan(iou)], iou[~np.isnan(iou)])
        assert scores.mean_iou == pytest.approx(official.get_mean_iou(), abs=1e-15)


def test_panoptic_iou_keeps_points_predicted_as_ignored_as_misses() -> None:
    truth, found = confusion_of_nuscenes()
    found = np.where(truth == 2, 0, found)
    panoptic = PanopticQuality(4, [1], ignore=[0])
    panoptic.update(found, found, truth, truth)
    np.testing.assert_allclose(panoptic.compute().iou[1:], [30 / 40, 0, 0])


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("found", "truth", "said"),
    [
        ([0, -1], [0, 0], r"prediction holds -1 at index 1 \(1 of 2 labels are not classes; known: 0 to 2\)"),
        ([0, 0], [3, -1], r"truth holds 3 at index 0 \(2 of 2"),
        ([0, 300], [0, 0], "prediction holds 300"),
        ([0, 2**40], [0, 0], "prediction holds 1099511627776"),
        ([0.5, 1.0], [0, 0], "prediction has type float64; labels are integers"),
        ([0], [0, 0], "differ in length: prediction 1, truth 2"),
    ],
)
def test_bad_labels_name_argument_and_value(found: list[float], truth: list[int], said: str) -> None:
    with pytest.raises(DataError, match=said):
        SemanticConfusion(3).update(np.array(found), np.array(truth))


def test_a_label_between_classes_and_table_is_refused() -> None:
    """Three classes take two bits, so a 3 has a cell of its own: it must not be dropped silently."""
    with pytest.raises(DataError, match="prediction holds 3 at index 499"):
        SemanticConfusion(3).update([0] * 499 + [3], [0] * 500)


def test_bad_settings() -> None:
    with pytest.raises(UsageError, match="num_classes must be at least 1, got 0"):
        SemanticConfusion(0)
    with pytest.raises(UsageError, match="no_prediction must not be a class, got 1"):
        SemanticConfusion(3, no_prediction=1)


# -------------------------------------------------------------------------------------------------------------- counting


@pytest.mark.parametrize("num_keys", [1, 50, 3000, 60000])
@pytest.mark.parametrize("weighted", [False, True])
def test_unique_keys_whatever_collides(num_keys: int, weighted: bool) -> None:
    """Few keys are sorted, many meet a table; 60,000 keys collide in both tables."""
    rng = np.random.default_rng(7)
    keys = rng.integers(0, 2**64 - 1, num_keys, dtype=np.uint64)[rng.integers(0, num_keys, 70000)]
    weights = rng.integers(1, 9, len(keys)) if weighted else None
    unique, counts = count_unique(keys, weights)
    expected, inverse = np.unique(keys, return_inverse=True)
    np.testing.assert_array_equal(unique, expected)
    np.testing.assert_array_equal(counts, np.bincount(inverse, weights=weights).astype(np.int64))


@given(arrays(np.uint8, st.integers(0, 200), elements=st.integers(0, 3)), st.integers(1, 3))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_runs_unfold_to_the_points(values: np.ndarray, min_run: int) -> None:
    values = np.repeat(values, 4)
    other = values[::-1].copy()
    (first, second), lengths = fold_runs(values, other, min_run=min_run)
    if lengths is None:
        assert first is values
    else:
        np.testing.assert_array_equal(np.repeat(first, lengths), values)
        np.testing.assert_array_equal(np.repeat(second, lengths), other)


def test_labels_too_large_for_a_table_are_searched() -> None:
    counter = PairCounter([0, 1, 70000], [0, 5, -9])
    counts = counter(np.array([70000, 1, 1]), np.array([-9, 5, 5]))
    np.testing.assert_array_equal(counts, [[0, 0, 0], [0, 2, 0], [0, 0, 1]])
