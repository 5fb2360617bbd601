"""Counting label pairs: the one pass over the points that every metric here is made from.

A confusion matrix and a table of segment overlaps are both histograms of (truth, prediction). Points are counted once, and
everything else is arithmetic on a table of a few hundred rows.

`pair_histogram` counts small labels into a dense matrix. Truth and prediction are packed into one 16-bit code of 2 k bits;
codes that repeat along the scan are counted by run. No mask is made: a label outside the range shows itself in the bitwise
"or" of all labels, or as a count in a column that no class owns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ov3d.common.errors import DataError
from ov3d.common.shapes import Array, Int, Int64, Shaped

MAX_BITS = 8
"""Labels of up to so many bits (after the shift) are counted densely: a table of at most 4^8 cells."""

MIN_BLOCK = 1 << 15
"""Points a block: its temporaries stay in the processor's cache."""

RUN_GAIN = 4
"""Codes are counted by run where the mean run is at least so many points long."""


def as_labels(name: str, values: object) -> Int[Array, " n"]:
    """One flat array of integer labels.

    Args:
        name: the argument's name, for the error.
        values: a NumPy array, a CPU tensor or a list of integers, of any shape.

    Raises:
        DataError: it does not hold integers.
    """
    labels = np.asarray(values)
    if labels.dtype.kind not in "iu":
        if labels.size == 0:
            return np.zeros(0, np.int64)
        raise DataError(f"{name} has type {labels.dtype}; labels are integers.", f"Convert it: {name}.astype('int64').")
    return labels.reshape(-1)


def check_same_length(**arrays: Shaped[Array, " _"]) -> None:
    """Refuse arrays of different lengths, naming all of them."""
    if len({len(array) for array in arrays.values()}) > 1:
        lengths = ", ".join(f"{name} {len(array)}" for name, array in arrays.items())
        raise DataError(f"The arrays differ in length: {lengths}.", "One label a point in each.")


def check_labels(name: str, labels: Int[Array, " n"], allowed: Int64[Array, " k"]) -> None:
    """Refuse labels that are not in the sorted array `allowed`, naming the first one and how many there are."""
    wrong = np.flatnonzero(~np.isin(labels, allowed))
    if len(wrong):
        first = int(wrong[0])
        classes = f"{int(allowed.min())} to {int(allowed.max())}" if len(allowed) else "none"
        raise DataError(
            f"{name} holds {int(labels[first])} at index {first} ({len(wrong)} of {len(labels)} labels are no class; "
            f"known: {classes}).",
            "Map raw ids to class ids first; declare the label of unknown points, it is never guessed.",
        )


def pair_histogram(
    truth: Int[Array, " n"],
    prediction: Int[Array, " n"],
    truth_labels: Sequence[int],
    prediction_labels: Sequence[int],
) -> Int64[Array, "t p"]:
    """Count the points of each pair of labels.

    Args:
        truth: true label a point.
        prediction: predicted label a point.
        truth_labels: every label `truth` may hold, in the order of the rows.
        prediction_labels: every label `prediction` may hold, in the order of the columns.

    Returns:
        Number of points with truth `truth_labels[i]` and prediction `prediction_labels[j]`.

    Raises:
        DataError: lengths differ, or a label is none of those allowed.
    """
    check_same_length(prediction=prediction, truth=truth)
    rows, columns = np.array(truth_labels, np.int64), np.array(prediction_labels, np.int64)
    low = int(min(rows.min(), columns.min()))
    num_bits = int(max(rows.max(), columns.max()) - low).bit_length()
    if num_bits > MAX_BITS:
        return _sparse_histogram(truth, prediction, rows, columns)
    table = np.zeros(1 << (2 * num_bits), np.int64)
    block = max(MIN_BLOCK, 2 * len(table))
    for start in range(0, len(truth), block):
        stop = min(start + block, len(truth))
        code = _pair_code(truth[start:stop], prediction[start:stop], low, num_bits)
        if code is None:
            _refuse(truth, prediction, rows, columns)
        else:
            table += _code_histogram(code, len(table))
    full = table.reshape(1 << num_bits, 1 << num_bits)
    counts = full[np.ix_(rows - low, columns - low)]
    if counts.sum() != len(truth):
        _refuse(truth, prediction, rows, columns)
    return counts


def run_starts(code: Shaped[Array, " n"]) -> Int64[Array, " r"] | None:
    """Where runs of equal codes start, or none where runs are too short to be worth it."""
    if len(code) < RUN_GAIN:
        return None
    changes = code[1:] != code[:-1]
    if np.count_nonzero(changes) * RUN_GAIN > len(code):
        return None
    return np.concatenate([np.zeros(1, np.int64), np.flatnonzero(changes) + 1])


def _pair_code(
    truth: Int[Array, " n"], prediction: Int[Array, " n"], low: int, num_bits: int
) -> Int[Array, " n"] | None:
    """(truth - low) 2^k + (prediction - low) in 16 bits, or none where a label needs more than k bits."""
    shifted = []
    for labels in (truth, prediction):
        if low:
            wide = labels if labels.dtype.itemsize >= 4 else labels.astype(np.int32)
            labels = wide.astype(np.int64) - low if wide.dtype.kind == "u" else wide - wide.dtype.type(low)
        union = int(np.bitwise_or.reduce(labels)) if len(labels) else 0
        if union < 0 or union >> num_bits:
            return None
        shifted.append(labels.astype(np.uint16))
    code = shifted[0]
    code <<= np.uint16(num_bits)
    code |= shifted[1]
    return code


def _code_histogram(code: Int[Array, " n"], num_codes: int) -> Int64[Array, " c"]:
    starts = run_starts(code)
    if starts is None:
        return np.bincount(code, minlength=num_codes)
    lengths = np.diff(starts, append=len(code))
    # Weighted counts are doubles, exact up to 2^53 points.
    return np.bincount(code[starts], weights=lengths, minlength=num_codes).astype(np.int64)


def _sparse_histogram(
    truth: Int[Array, " n"], prediction: Int[Array, " n"], rows: Int64[Array, " t"], columns: Int64[Array, " p"]
) -> Int64[Array, "t p"]:
    """The same by search, for labels too large for a dense table."""
    positions = []
    for name, labels, allowed in (("truth", truth, rows), ("prediction", prediction, columns)):
        check_labels(name, labels, np.sort(allowed))
        order = np.argsort(allowed)
        positions.append(order[np.searchsorted(allowed, labels, sorter=order)])
    code = positions[0] * len(columns) + positions[1]
    return np.bincount(code, minlength=len(rows) * len(columns)).reshape(len(rows), len(columns))


def _refuse(
    truth: Int[Array, " n"], prediction: Int[Array, " n"], rows: Int64[Array, " t"], columns: Int64[Array, " p"]
) -> None:
    check_labels("prediction", prediction, np.sort(columns))
    check_labels("truth", truth, np.sort(rows))
    raise AssertionError("a label was refused by the count, but not by the search")  # pragma: no cover
