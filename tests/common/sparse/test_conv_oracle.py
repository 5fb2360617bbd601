"""Forward, input and weight gradients against dense fp64 convolutions, on one, two and four threads."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
import torch

from ov3d.common.sparse import schedule, workers
from tests.common.sparse.oracle import Case, expected_targets, relative_error, run_dense, run_sparse

NUM_CASES = 200
CASES_A_TEST = 20


@pytest.fixture(params=[1, 2, 4])
def num_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@functools.cache
def expected_of(seed: int) -> tuple[torch.Tensor, ...]:
    """The dense result: once a case, not once a thread count."""
    case = Case.random(seed)
    return run_dense(case, *case.rows_and_gradient(seed))


@pytest.mark.parametrize("first", range(0, NUM_CASES, CASES_A_TEST))
def test_equals_dense_convolution(first: int, num_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(first, first + CASES_A_TEST):
        # Small blocks in every other case: otherwise grids of this size would all fit into one.
        monkeypatch.setattr(schedule, "MIN_BLOCK_ROWS", 32 if seed % 2 else 256)
        monkeypatch.setattr(schedule, "MAX_BLOCK_ROWS", 64 if seed % 2 else 4096)
        # Work of this size would stay on one thread: spread it all the same in two of three cases.
        monkeypatch.setattr(workers, "MIN_OPERATIONS", 2e6 if seed % 3 == 0 else 0)
        case = Case.random(seed)
        rows, gradient = case.rows_and_gradient(seed)
        for name, found, expected in zip(
            ("outputs", "input gradient", "weight gradient"),
            run_sparse(case, rows, gradient),
            expected_of(seed),
            strict=True,
        ):
            error = relative_error(found, expected)
            assert error < 1e-5, (
                f"seed {seed}, {num_threads} threads, {case.shape}, {case.direction}: {name} off by {error}"
            )


@pytest.mark.parametrize("seed", range(0, NUM_CASES, 4))
def test_output_voxels_are_those_some_input_meets(seed: int) -> None:
    from ov3d.common.sparse.kernel_map import kernel_map

    case = Case.random(seed)
    assert torch.equal(kernel_map(case.x.grid, case.shape).target.coords, expected_targets(case))


def test_the_same_bits_again(num_threads: int) -> None:
    case = Case.random(7)
    rows, gradient = case.rows_and_gradient(7)
    first = run_sparse(case, rows, gradient)
    for _ in range(3):
        case.x.grid.maps.clear()
        again = run_sparse(case, rows, gradient)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
