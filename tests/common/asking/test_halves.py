"""The fast conversion of halves is NumPy's own, bit for bit."""

from __future__ import annotations

import numpy as np

from ov3d.common.asking.index import half_to_single


def test_every_finite_half_is_converted_bit_for_bit() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    np.testing.assert_array_equal(half_to_single(halves).view(np.int32), halves.astype(np.float32).view(np.int32))


def test_any_shape_and_stride_is_taken() -> None:
    halves = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float16)
    for part in (halves, halves[:, ::2], halves.T, halves[:0]):
        np.testing.assert_array_equal(half_to_single(part), part.astype(np.float32))
