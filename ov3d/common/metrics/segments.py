"""The overlaps of predicted and true segments of a scan, in points: the table that panoptic quality is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ov3d.common.base.shapes import Array, Int64, Integer, UInt64
from ov3d.common.metrics.counting import count_unique


class SegmentPairs(NamedTuple):
    """The overlaps of one scan: u pairs of a predicted and a true segment, and their points in common."""

    prediction_class: Int64[Array, " u"]
    prediction_id: Int64[Array, " u"]
    truth_class: Int64[Array, " u"]
    truth_id: Int64[Array, " u"]
    counts: Int64[Array, " u"]


def overlaps(
    predicted: Sequence[Integer[Array, " r"]],
    true: Sequence[Integer[Array, " r"]],
    lengths: Int64[Array, " r"] | None,
    id_bits: tuple[int, int],
    class_bits: int,
) -> tuple[Int64[Array, " u"], Int64[Array, " u"], Int64[Array, " u"]]:
    """The distinct pairs of a predicted and a true segment, and the points of each.

    Args:
        predicted, true: class and id of each run of points.
        lengths: points of each run; None where every run is a single point.
        id_bits: bits of the largest predicted and true id.
        class_bits: bits of a class.

    Returns:
        Two keys, (id, class) with the class in the low bits, and a count per pair.
    """
    found_bits = id_bits[0] + class_bits
    if found_bits + id_bits[1] + class_bits <= 64:
        key = _packed(true[1], true[0], class_bits)
        for part, bits in ((predicted[1], id_bits[0]), (predicted[0], class_bits)):
            np.left_shift(key, np.uint64(bits), out=key)
            np.bitwise_or(key, _as_uint64(part), out=key)
        keys, counts = count_unique(key, lengths)
        found, truth = keys & np.uint64((1 << found_bits) - 1), keys >> np.uint64(found_bits)
        return found.view(np.int64), truth.view(np.int64), counts
    # Ids too large for one key: number the segments of each side first.
    found_segments, found_idx = np.unique(_packed(predicted[1], predicted[0], class_bits), return_inverse=True)
    true_segments, true_idx = np.unique(_packed(true[1], true[0], class_bits), return_inverse=True)
    keys, counts = count_unique((true_idx * len(found_segments) + found_idx).astype(np.uint64), lengths)
    pair = keys.view(np.int64)
    found, truth = found_segments[pair % len(found_segments)], true_segments[pair // len(found_segments)]
    return found.view(np.int64), truth.view(np.int64), counts


def numbered(keys: Int64[Array, " k"]) -> tuple[Int64[Array, " s"], Int64[Array, " k"]]:
    """The distinct keys in ascending order, and the index of each key among them."""
    row_bits = len(keys).bit_length()
    if len(keys) and int(keys.max()).bit_length() + row_bits > 63:
        return np.unique(keys, return_inverse=True)
    # The row travels in the key's low bits: sorting numbers is several times faster than sorting their places.
    packed = keys << row_bits
    packed |= np.arange(len(keys))
    packed.sort()
    row = packed & ((1 << row_bits) - 1)
    packed >>= row_bits
    is_first = np.ones(len(keys), bool)
    np.not_equal(packed[1:], packed[:-1], out=is_first[1:])
    idx = np.empty_like(row)
    idx[row] = np.cumsum(is_first) - 1
    return packed[is_first], idx


def _packed(ids: Integer[Array, " n"], classes: Integer[Array, " n"], class_bits: int) -> UInt64[Array, " n"]:
    """Id and class in one unsigned 64-bit key."""
    key = np.left_shift(_as_uint64(ids), np.uint64(class_bits))
    np.bitwise_or(key, _as_uint64(classes), out=key)
    return key


def _as_uint64(values: Integer[Array, " n"]) -> UInt64[Array, " n"]:
    """The same non-negative numbers as unsigned, without a copy if possible."""
    return values.view(np.uint64) if values.dtype == np.int64 else values.astype(np.uint64, copy=False)
