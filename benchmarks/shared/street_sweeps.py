"""A generated sweep as large as those of a LiDAR with 64 beams."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ov3d.common.worlds.street import Drive, StreetConfig, Sweep, build_drive

NUM_POINTS = 120_000


def street_sweep() -> tuple[Drive, Sweep]:
    """An even 120,000 points of a sweep, in the order in which they were measured."""
    drive = build_drive(StreetConfig(seed=3, num_sweeps=1, beams=64, columns=2600, width=1600, height=900))
    sweep = drive.sweep(0, photographs=False)
    if len(sweep.xyz) < NUM_POINTS:
        raise SystemExit(f"The sweep has only {len(sweep.xyz):,} points.")
    rows = np.linspace(0, len(sweep.xyz) - 1, NUM_POINTS).astype(np.int64)
    return drive, replace(sweep, xyz=sweep.xyz[rows], intensity=sweep.intensity[rows])
