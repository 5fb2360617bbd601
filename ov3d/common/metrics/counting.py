"""Counting label pairs: the single pass over the points that all metrics here are based on.

A confusion matrix and a table of segment overlaps are both histograms of (truth, prediction). Points are counted once, and
everything else is arithmetic on a table of a few hundred rows. Two facts make the pass short:

- Labels repeat along a scan line or an image row, so points are first folded into runs (`fold_runs`), and only one
  point per run is looked at again. Where labels do not repeat, a probe of a few thousand points says so, and nothing is lost.
- No mask is made and nothing is sorted. A label outside the range shows itself in the extremes of the array, or as a count
  in a cell that no class owns; `count_unique` counts 64-bit keys in a small hash table and checks every one of them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Bool, Int64, Integer, Shaped, UInt32, UInt64

MAX_BITS = 8
"""Labels of up to this many bits (after the shift) are counted in a dense table of at most 4^8 cells."""

BLOCK = 1 << 15
"""Points per block, so that temporaries stay in the processor's cache."""

FOLD_BLOCK = 1 << 17
"""The same if only one-byte flags are kept: a whole scan."""

RUN_PROBE = 2048
"""Points probed to see whether labels repeat."""

LABEL_RUN = 6
"""Small labels are folded into runs if the mean run of the probe has at least this many points."""

KEY_RUN = 5
"""The same for 64-bit keys, which cost more to count."""

HASH_BITS = (14, 16)
"""Slots of the first and the second hash table, as powers of two: 128 and 512 KiB of keys."""

FEW_KEYS = 1 << 14
"""Up to this many keys are sorted instead, because a table is not worthwhile."""

HASH_MULTIPLIERS = (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03)
"""2^64 over the golden ratio, odd (multiplicative hashing: Knuth, *The Art of Computer Programming* 3, section 6.4), and
2^64 over the plastic number squared, its counterpart for a second and independent hash."""


def as_labels(name: str, values: object) -> Integer[Array, " n"]:
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
    """Raise for arrays of different lengths, naming all of them."""
    if len({len(array) for array in arrays.values()}) > 1:
        lengths = ", ".join(f"{name} {len(array)}" for name, array in arrays.items())
        raise DataError(f"The arrays differ in length: {lengths}.", "One label per point in each.")


def check_labels(name: str, labels: Integer[Array, " n"], allowed: Int64[Array, " k"]) -> None:
    """Raise for labels that are not in the sorted array `allowed`, naming the first and their number."""
    wrong = np.flatnonzero(~np.isin(labels, allowed))
    if len(wrong):
        first = int(wrong[0])
        classes = f"{int(allowed.min())} to {int(allowed.max())}" if len(allowed) else "none"
        raise DataError(
            f"{name} holds {int(labels[first])} at index {first} ({len(wrong)} of {len(labels)} labels are not classes; "
            f"known: {classes}).",
            "Map raw ids to class ids first; declare the label of unknown points, it is never guessed.",
        )


class PairCounter:
    """Counts the points of each pair of (true label, predicted label).

    Args:
        truth_labels: every label the truth may hold, in the order of the rows.
        prediction_labels: every label a prediction may hold, in the order of the columns.
    """

    def __init__(self, truth_labels: Sequence[int], prediction_labels: Sequence[int]) -> None:
        self._rows, self._columns = np.array(truth_labels, np.int64), np.array(prediction_labels, np.int64)
        self._lows = min(int(self._rows.min()), 0), min(int(self._columns.min()), 0)
        spans = int(self._rows.max()) - self._lows[0], int(self._columns.max()) - self._lows[1]
        self._num_bits = max(spans).bit_length()
        rows, columns = self._rows - self._lows[0], self._columns - self._lows[1]
        self._cells = (rows[:, None] << self._num_bits) | columns

    def __call__(self, truth: Integer[Array, " n"], prediction: Integer[Array, " n"]) -> Int64[Array, "t p"]:
        """The number of points with each true label (row) and predicted label (column).

        Raises:
            DataError: a label is not allowed.
        """
        if self._num_bits > MAX_BITS:
            row, column = self.positions(truth, prediction)
            return np.bincount(row * len(self._columns) + column, minlength=self._cells.size).reshape(self._cells.shape)
        (rows, columns), lengths = fold_runs(truth, prediction, min_run=LABEL_RUN)
        num_cells = 1 << (2 * self._num_bits)
        table = np.zeros(num_cells, np.int64)
        block = max(BLOCK, 2 * num_cells)
        for start in range(0, len(rows), block):
            part = slice(start, start + block)
            code = _pair_code(rows[part], columns[part], self._lows, self._num_bits)
            if code is None:
                self._refuse(truth, prediction)
            else:
                table += weighted_bincount(code, None if lengths is None else lengths[part], num_cells)
        counts = table.take(self._cells)
        if counts.sum() != len(truth):  # a label that fits the bits but is not a class
            self._refuse(truth, prediction)
        return counts

    def positions(
        self, truth: Integer[Array, " n"], prediction: Integer[Array, " n"]
    ) -> tuple[Int64[Array, " n"], Int64[Array, " n"]]:
        """Row and column of each point.

        Raises:
            DataError: a label is not allowed.
        """
        self._refuse(truth, prediction)
        found = []
        for labels, allowed in ((truth, self._rows), (prediction, self._columns)):
            order = np.argsort(allowed)
            found.append(order[np.searchsorted(allowed, labels, sorter=order)])
        return found[0], found[1]

    def _refuse(self, truth: Integer[Array, " n"], prediction: Integer[Array, " n"]) -> None:
        """Raise for the first label that is not allowed."""
        check_labels("prediction", prediction, np.sort(self._columns))
        check_labels("truth", truth, np.sort(self._rows))


class _Scratch(threading.local):
    """Memory that each thread keeps: allocating fresh memory per scan is slow, and would evict labels from the cache."""

    def __init__(self) -> None:
        self.flags = np.empty((2, FOLD_BLOCK), bool)


_SCRATCH = _Scratch()


def fold_runs(
    *arrays: Shaped[Array, " n"], min_run: int = KEY_RUN
) -> tuple[tuple[Shaped[Array, " r"], ...], Int64[Array, " r"] | None]:
    """Fold neighbours that are equal in every array into one.

    Args:
        arrays: arrays of the same length.
        min_run: smallest mean length of runs, in the probed points, at which folding is worthwhile.

    Returns:
        The values of each run in each array, and the number of points of each run; where runs are too short, the arrays
        themselves and None.
    """
    num = len(arrays[0])
    probe = min(num, RUN_PROBE)
    if probe < 2:
        return arrays, None
    scratch = _SCRATCH.flags
    if np.count_nonzero(_changes(arrays, 1, probe, scratch)) * min_run > probe:
        return arrays, None
    blocks = range(1, num, FOLD_BLOCK)
    parts = [_changes(arrays, begin, min(num, begin + FOLD_BLOCK), scratch).nonzero()[0] for begin in blocks]
    bounds = np.empty(sum(map(len, parts)) + 2, np.int64)
    bounds[0], bounds[-1] = 0, num
    done = 1
    for begin, changes in zip(blocks, parts, strict=True):
        np.add(changes, begin, out=bounds[done : done + len(changes)])
        done += len(changes)
    starts = bounds[:-1]
    return tuple(array.take(starts) for array in arrays), bounds[1:] - starts


def count_unique(
    keys: UInt64[Array, " n"], weights: Int64[Array, " n"] | None = None
) -> tuple[UInt64[Array, " u"], Int64[Array, " u"]]:
    """The distinct keys, in ascending order, and how often each occurs (or the sum of its weights).

    Every key writes itself into the slot of its hash, and is then compared with the slot's content. Keys that lost the slot to
    another key are subtracted from its count and counted in a second, larger table with another multiplier; keys that lose
    there as well are sorted, and so are few keys from the start. The result is exact for any keys.
    """
    found: list[tuple[UInt64[Array, ...], Int64[Array, ...]]] = []
    for num_bits, multiplier in zip(HASH_BITS, HASH_MULTIPLIERS, strict=True):
        if len(keys) <= FEW_KEYS:
            break
        slot = keys * np.uint64(multiplier)
        slot >>= np.uint64(64 - num_bits)
        slot = slot.view(np.int64)
        table = np.empty(1 << num_bits, np.uint64)
        table[slot] = keys
        lost = np.flatnonzero(table.take(slot) != keys)
        counts = weighted_bincount(slot, weights, 1 << num_bits)
        lost_weights = None if weights is None else weights[lost]
        if len(lost):
            counts -= weighted_bincount(slot[lost], lost_weights, 1 << num_bits)
        used = np.flatnonzero(counts)
        found.append((table[used], counts[used]))
        keys, weights = keys[lost], lost_weights
    if len(keys):
        found.append(_sorted_unique(keys, weights))
        if len(found) == 1:
            return found[0]
    if not found:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    unique, counts = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(unique)
    return unique[order], counts[order]


def _sorted_unique(
    keys: UInt64[Array, " n"], weights: Int64[Array, " n"] | None
) -> tuple[UInt64[Array, " u"], Int64[Array, " u"]]:
    """`count_unique` of at least one key by sorting."""
    if weights is None:
        return np.unique(keys, return_counts=True)
    weight_bits = int(weights.max()).bit_length()
    if int(keys.max()).bit_length() + weight_bits <= 64:
        # The weight travels in the key's low bits: sorting numbers is several times faster than sorting their places.
        packed = keys << np.uint64(weight_bits)
        packed |= weights.view(np.uint64)
        packed.sort()
        keys = packed >> np.uint64(weight_bits)
        weights = (packed & np.uint64((1 << weight_bits) - 1)).view(np.int64)
    else:
        order = np.argsort(keys)
        keys, weights = keys.take(order), weights.take(order)
    starts = np.concatenate([np.zeros(1, np.int64), np.flatnonzero(keys[1:] != keys[:-1]) + 1])
    return keys.take(starts), np.add.reduceat(weights, starts)


class Overlaps(NamedTuple):
    """The distinct pairs of a true and a predicted label of one scan, and the points of each."""

    truth: Int64[Array, " u"]
    prediction: Int64[Array, " u"]
    counts: Int64[Array, " u"]


def count_overlaps(prediction: UInt32[Array, " n"], truth: UInt32[Array, " n"]) -> Overlaps:
    """Count the points of each pair of labels as they are in files: a class map is then read once per pair, not a point."""
    (true, predicted), lengths = fold_runs(truth, prediction)
    pair = np.empty((len(true), 2), np.uint32)
    low, high = (0, 1) if np.little_endian else (1, 0)
    pair[:, low], pair[:, high] = predicted, true
    keys, counts = count_unique(pair.view(np.uint64)[:, 0], lengths)
    shift, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    return Overlaps((keys >> shift).astype(np.int64), (keys & mask).astype(np.int64), counts)


def weighted_bincount(
    slot: Integer[Array, " n"], weights: Int64[Array, " n"] | None, num_slots: int
) -> Int64[Array, " s"]:
    """Count (or add the weights of) the entries of each slot; exact up to a total of 2^53, the precision of a double."""
    if weights is None:
        return np.bincount(slot, minlength=num_slots)
    return np.bincount(slot, weights=weights, minlength=num_slots).astype(np.int64)


def largest_unsigned(labels: Integer[Array, " n"]) -> int:
    """The maximum of at least one label, read as unsigned, so that negative labels show up as huge values."""
    unsigned = _UNSIGNED.get(labels.dtype)
    return int(np.maximum.reduce(labels if unsigned is None else labels.view(unsigned)))


_UNSIGNED = {np.dtype(f"{order}i{size}"): np.dtype(f"{order}u{size}") for size in (1, 2, 4, 8) for order in "<>"}
"""The unsigned type of each signed one, in both byte orders."""


def _changes(
    arrays: Sequence[Shaped[Array, " n"]], begin: int, end: int, scratch: Bool[Array, "2 b"]
) -> Bool[Array, " m"]:
    """Whether a point differs from the one before it, for points `begin` to `end` - 1; valid until the next call."""
    changes, other = scratch[:, : end - begin]
    np.not_equal(arrays[0][begin:end], arrays[0][begin - 1 : end - 1], out=changes)
    for array in arrays[1:]:
        np.not_equal(array[begin:end], array[begin - 1 : end - 1], out=other)
        np.logical_or(changes, other, out=changes)
    return changes


def _pair_code(
    truth: Integer[Array, " n"], prediction: Integer[Array, " n"], lows: tuple[int, int], num_bits: int
) -> Integer[Array, " n"] | None:
    """(truth - low) 2^k + (prediction - low), or None if a label needs more than k bits."""
    if not (_fits(truth, lows[0], num_bits) and _fits(prediction, lows[1], num_bits)):
        return None
    if truth.dtype.itemsize == 8:
        code = np.left_shift(truth.view(np.int64), num_bits)
    else:
        code = truth.astype(np.int16)
        code <<= np.int16(num_bits)
    np.add(code, prediction, out=code, casting="unsafe")
    offset = -(lows[0] << num_bits) - lows[1]
    if offset:
        code += code.dtype.type(offset)
    return code if code.dtype.itemsize == 8 else code.view(np.uint16)


def _fits(labels: Integer[Array, " n"], low: int, num_bits: int) -> bool:
    """Whether all labels are in low to low + 2^k - 1."""
    if low == 0:
        return not largest_unsigned(labels) >> num_bits
    return int(np.minimum.reduce(labels)) >= low and not (int(np.maximum.reduce(labels)) - low) >> num_bits
