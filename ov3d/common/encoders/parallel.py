"""Small batches in parallel on a CPU.

torch splits each operation over its threads and waits for all of them before the next: a network of a hundred small operations
waits a hundred times per batch, and on a shared machine each wait lasts until the slowest thread is scheduled. Here each
thread processes whole batches without waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor


def map_batches(compute: Callable[[Tensor], Tensor], batches: Sequence[Tensor]) -> list[Tensor]:
    """The results of `compute` for each batch, in order, without gradients; as many at a time as torch has threads."""

    def without_gradients(batch: Tensor) -> Tensor:
        with torch.inference_mode():  # each thread has its own
            return compute(batch)

    num_threads = torch.get_num_threads()
    num_workers = min(num_threads, len(batches))
    if num_workers < 2:
        return [without_gradients(batch) for batch in batches]
    try:
        with ThreadPoolExecutor(num_workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(without_gradients, batches))
    finally:
        torch.set_num_threads(num_threads)  # threads started later use the number set last
