"""Packed keys: the same for NumPy and torch, in the order of the rows, and back again."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ov3d.common.base.errors import DataError
from ov3d.common.base.packing import KEY_BITS, KeyLayout, distinct_cells

CYLINDER = KeyLayout.bounded(8, 480, 360, 32)
LAYOUTS = (CYLINDER, KeyLayout((21, 21, 21), (1 << 20, 0, 2)), KeyLayout((9, 18, 18, 18), (0, *[1 << 17] * 3)))


def _cells(layout: KeyLayout, count: int = 500) -> np.ndarray:
    """Random cells, and the corners of what fits."""
    rng = np.random.default_rng(0)
    drawn = [rng.integers(low, high + 1, count) for low, high in zip(layout.low, layout.high, strict=True)]
    return np.concatenate([np.column_stack(drawn), [layout.low, layout.high]]).astype(np.int64)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_keys_sort_as_rows_do_and_unpack(layout: KeyLayout) -> None:
    cells = _cells(layout)
    keys = layout.pack(*cells.T)
    assert keys.dtype == np.int64 and keys.min() >= 0
    assert np.array_equal(np.column_stack(layout.unpack(keys)), cells)
    assert np.array_equal(np.argsort(keys, kind="stable"), np.lexsort(cells.T[::-1]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_torch_packs_as_numpy_does(layout: KeyLayout) -> None:
    cells = _cells(layout)
    keys = layout.pack(*torch.from_numpy(cells).unbind(1))
    assert keys.dtype == torch.int64
    assert np.array_equal(keys.numpy(), layout.pack(*cells.T))
    assert np.array_equal(torch.stack(layout.unpack(keys), 1).numpy(), cells)
    first = cells[cells[:, 0] == cells[0, 0]]  # one number for a whole axis
    assert np.array_equal(layout.pack(int(cells[0, 0]), *first.T[1:]), layout.pack(*first.T))


def test_a_bounded_grid_takes_the_bits_of_its_own_extents() -> None:
    assert CYLINDER.bits == (3, 9, 9, 5)
    assert KeyLayout.bounded(1, 2, 3).bits == (0, 1, 2)
    assert KeyLayout.covering((-3, 5), (4, 5)) == KeyLayout((3, 0), (3, -5))


def test_steps_lead_to_the_next_cell() -> None:
    cell = np.array([[3, 40, 50, 6]])
    for axis, step in enumerate(CYLINDER.steps):
        moved = cell + np.eye(4, dtype=np.int64)[axis]
        assert CYLINDER.pack(*moved.T) - CYLINDER.pack(*cell.T) == step


def test_what_does_not_fit_into_a_key_is_refused() -> None:
    assert sum(KeyLayout((31, 32), (0, 0)).bits) == KEY_BITS
    with pytest.raises(DataError, match="32 \\+ 32 bits do not fit into a key of 63 bits"):
        KeyLayout((32, 32), (0, 0))
    with pytest.raises(DataError, match="do not fit"):
        distinct_cells(np.array([[0, 0, 0], [1 << 40, 1 << 40, 1 << 40]]))


@given(st.lists(st.tuples(*[st.integers(-(2**20), 2**20)] * 3), max_size=30))
def test_distinct_cells_are_those_of_numpy(rows: list[tuple[int, int, int]]) -> None:
    cells = np.array(rows * 2, np.int64).reshape(-1, 3)
    unique, place = distinct_cells(cells)
    expected, inverse = np.unique(cells, axis=0, return_inverse=True)
    assert np.array_equal(unique, expected)
    assert np.array_equal(place, inverse.reshape(-1))


def test_packing_loads_no_torch() -> None:
    code = "import sys, ov3d.common.base.packing; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
