from __future__ import annotations

import threading

import pytest
import torch

from ov3d.common.sparse.schedule import Block
from ov3d.common.sparse.workers import MIN_OPERATIONS, deal, run_blocks

CPU = torch.device("cpu")
WIDE = int(MIN_OPERATIONS)


def blocks_of(products: list[int]) -> list[Block]:
    return [Block(10 * i, 10 * i + 10, [count], [0], 0, count) for i, count in enumerate(products)]


@pytest.mark.parametrize("products", [[5], [1, 1, 1, 1], [100, 0, 0, 0], [0, 0, 0, 100], [3, 9, 27, 81, 1, 1]])
@pytest.mark.parametrize("num_runs", [1, 2, 3])
def test_every_block_is_dealt_once_in_order(products: list[int], num_runs: int) -> None:
    blocks = blocks_of(products)
    runs = deal(blocks, num_runs)
    assert [block for run in runs for block in run] == blocks
    assert len(runs) <= num_runs


def test_runs_are_about_equal() -> None:
    runs = deal(blocks_of([50] * 40), 4)
    assert [len(run) for run in runs] == [10, 10, 10, 10]


def test_workers_use_one_thread_each_and_leave_the_callers_number_alone() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        seen = run_blocks(
            blocks_of([1] * 9), CPU, WIDE, lambda run: (threading.get_ident(), torch.get_num_threads(), len(run))
        )
        assert torch.get_num_threads() == 3
        assert [(threads, count) for _, threads, count in seen] == [(1, 3)] * 3
        assert threading.get_ident() not in {ident for ident, _, _ in seen}
        fresh: list[int] = []
        other = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert fresh == [3]
    finally:
        torch.set_num_threads(before)


def test_an_error_in_a_worker_reaches_the_caller() -> None:
    def fail(run: object) -> None:
        raise ValueError("block")

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ValueError, match="block"):
            run_blocks(blocks_of([1, 1]), CPU, WIDE, fail)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("width", "num_runs"), [(WIDE, 2), (WIDE * 3 // 5, 1)])
def test_small_products_are_not_spread(width: int, num_runs: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        threads = run_blocks(blocks_of([1, 1]), CPU, width, lambda run: torch.get_num_threads())
    finally:
        torch.set_num_threads(before)
    assert threads == [1] * num_runs


def test_one_large_block_stays_with_the_caller() -> None:
    assert run_blocks(blocks_of([4]), CPU, WIDE, lambda run: threading.get_ident()) == [threading.get_ident()]
