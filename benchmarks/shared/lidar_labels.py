"""Label arrays like those of a LiDAR sweep, for the metrics' benchmarks.

Truth repeats along the scan for 38 points on average, as it does in the SemanticKITTI scans that were measured. Predictions
are the truth but for blobs of 8 points, 8 % of all, that have a wrong class and instance. Shuffled, nothing repeats: that is
the worst case.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NUM_POINTS, NUM_CLASSES, NUM_INSTANCES = 120_000, 20, 60
THINGS, IGNORED = range(1, 9), 0
TRUE_RUN, WRONG_RUN, WRONG_SHARE = 38, 8, 0.08


@dataclass(frozen=True)
class Scan:
    """One scan: classes and packed labels (class in the low 16 bits, instance above), int64 as the official tool has them."""

    found_class: np.ndarray
    found_id: np.ndarray
    true_class: np.ndarray
    true_id: np.ndarray

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """In the order of every tool's `update`."""
        return self.found_class, self.found_id, self.true_class, self.true_id


def make_scans(count: int, *, shuffled: bool, seed: int = 0) -> list[Scan]:
    """Random scans; `shuffled` takes the order of points away."""
    rng = np.random.default_rng(seed)
    return [_make_scan(rng, shuffled) for _ in range(count)]


def _make_scan(rng: np.random.Generator, shuffled: bool) -> Scan:
    things = rng.choice(THINGS, NUM_INSTANCES)
    segments = np.concatenate([np.arange(NUM_CLASSES), (np.arange(1, NUM_INSTANCES + 1) << 16) | things])
    true_id = _runs(rng, rng.choice(segments, NUM_POINTS), TRUE_RUN)
    other = np.repeat(rng.choice(segments, NUM_POINTS // WRONG_RUN), WRONG_RUN)
    wrong = np.repeat(rng.random(NUM_POINTS // WRONG_RUN) < WRONG_SHARE, WRONG_RUN)
    found_id = np.where(wrong, other, true_id)
    if shuffled:
        order = rng.permutation(NUM_POINTS)
        true_id, found_id = true_id[order], found_id[order]
    return Scan(found_id & 0xFFFF, found_id, true_id & 0xFFFF, true_id)


def _runs(rng: np.random.Generator, values: np.ndarray, mean: int) -> np.ndarray:
    """Values that each repeat a geometrically distributed number of times."""
    lengths = rng.geometric(1 / mean, 2 * NUM_POINTS // mean + 100)
    return np.repeat(values[: len(lengths)], lengths)[:NUM_POINTS]
