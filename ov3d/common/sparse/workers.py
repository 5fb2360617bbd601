"""Threads that each process whole blocks with single-threaded operations.

torch's own threads split every small operation and synchronise after it: thousands of times per convolution, each costing
a time slice if another program holds a core. Here threads synchronise once per convolution. Blocks are assigned in advance, so
that sums over blocks have the same order, and the same bits, in every run with the same number of threads.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from ov3d.common.sparse.schedule import Block

Result = TypeVar("Result")

_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}


MIN_OPERATIONS = 2e6
"""Least multiply-adds per matrix product to justify a thread of its own: below it, threads would mostly wait for
Python's lock."""


def run_blocks(
    blocks: Sequence[Block], device: torch.device, width: int, task: Callable[[Sequence[Block]], Result]
) -> list[Result]:
    """Run `task` on runs of consecutive blocks, one run per thread; results in the order of the blocks.

    Args:
        blocks: all blocks of a schedule.
        device: device of the tensors; devices other than the CPU are driven from the calling thread.
        width: multiply-adds for one product of a row and a matrix.
        task: called with a run of blocks, with gradients disabled.
    """
    if device.type != "cpu" or torch.get_num_threads() == 1:
        return [task(blocks)]
    operations = width * sum(block.num_products for block in blocks)
    large = operations >= MIN_OPERATIONS * sum(size > 0 for block in blocks for size in block.sizes)
    if operations <= MIN_OPERATIONS or (large and len(blocks) == 1):
        # Too little work for threads, or one block of large products, which torch's own threads split well.
        return [task(blocks)]
    num_threads = min(torch.get_num_threads(), len(blocks)) if large else 1
    return list(_pool(num_threads).map(torch.no_grad()(task), deal(blocks, num_threads)))


def deal(blocks: Sequence[Block], num_runs: int) -> list[Sequence[Block]]:
    """Consecutive runs with about equally many products (or rows, for blocks without products)."""
    weights = [block.num_products + block.last - block.first for block in blocks]
    total, done, cuts = sum(weights), 0, [0]
    for number, weight in enumerate(weights):
        if done >= total * len(cuts) / num_runs and len(cuts) < num_runs:
            cuts.append(number)
        done += weight
    cuts.append(len(blocks))
    return [blocks[start:end] for start, end in itertools.pairwise(cuts)]


def _pool(num_threads: int) -> ThreadPoolExecutor:
    with _lock:
        if num_threads not in _pools:
            before = torch.get_num_threads()
            together = threading.Barrier(num_threads)

            def start() -> None:
                torch.get_num_threads()  # a thread picks up the common number at its first use of torch: trigger that now
                torch.set_num_threads(1)
                together.wait()

            pool = ThreadPoolExecutor(num_threads, thread_name_prefix="ov3d-sparse")
            list(pool.map(lambda _: start(), range(num_threads)))
            # torch keeps one number per thread; the call above also changed the one that new threads start with.
            torch.set_num_threads(before)
            _pools[num_threads] = pool
        return _pools[num_threads]


# A forked process does not inherit its parent's threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)
