"""Projecting a sweep of 120,000 points into six cameras, against the path of nuScenes' devkit.

A generated street with a LiDAR of 64 beams and cameras of 1600 x 900; ours gives rows, pixels and depths for all cameras. The
peer works as the devkit does, camera by camera. Its points are kept in fp64, so that its counts must be equal to ours in fp64
and in fp32; the devkit itself stores fp32 after every step, which is timed as well. One thread each, taking turns; medians of
the repeats' ratios of processor time, because the machine may be shared.

    OMP_NUM_THREADS=1 python -m benchmarks.project_sweep [--repeats N]
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import interleaved, median_ratio, medians, parser, report
from benchmarks.shared.devkit_projection import DevkitCloud, devkit_projection
from benchmarks.shared.street_sweeps import street_sweep
from ov3d.common.lifting.sweep_projection import SweepProjectionConfig, project_sweep
from ov3d.common.scenes.cameras import invert_pose
from ov3d.common.scenes.scene import Frame
from ov3d.common.worlds.street import Drive, Sweep
from ov3d.common.worlds.street_writing import written_matrix

GOAL, GOAL_FP32 = 4.0, 12.0
CELL = 4.0


def main() -> None:
    """Check that counts are equal, time all by turns, print the JSON line."""
    arguments = parser(__doc__)
    arguments.add_argument("--repeats", type=int, default=41)
    options = arguments.parse_args()
    drive, sweep = street_sweep()
    frames, cameras = posed(drive, sweep)
    rounded = DevkitCloud(np.vstack([sweep.xyz.T, sweep.intensity]))
    cloud = DevkitCloud(rounded.points.astype(np.float64))
    hiding = SweepProjectionConfig(cell=CELL)
    calls: dict[str, Any] = {
        "fp64": lambda: project_sweep(sweep.xyz, frames),
        "fp32": lambda: project_sweep(sweep.xyz, frames, dtype="float32"),
        "fp64 with z-buffer": lambda: project_sweep(sweep.xyz, frames, hiding),
        "devkit": lambda: [devkit_projection(cloud, *camera) for camera in cameras],
        "devkit storing fp32": lambda: [devkit_projection(rounded, *camera) for camera in cameras],
    }
    counts = [int(mask.sum()) for *_, mask in calls["devkit"]()]
    equal = all([len(view) for view in calls[name]().views] == counts for name in ("fp64", "fp32"))
    times = interleaved(calls, options.repeats, warm_up=3, clock=time.thread_time)
    median = medians(times)
    ratios = {name: median_ratio(times["devkit"], times[name]) for name in calls if "devkit" not in name}
    for name, value in median.items():
        print(f"{name}: {1e3 * value:.2f} ms" + (f", {ratios[name]:.1f}x" if name in ratios else ""))
    report(
        "project_sweep",
        ours=round(1e3 * median["fp64"], 3),
        peer=round(1e3 * median["devkit"], 2),
        unit=f"ms of processor time, {len(sweep.xyz):,} points into 6 cameras, fp64, one thread",
        ratio=round(ratios["fp64"], 2),
        goal=GOAL,
        met=equal and ratios["fp64"] >= GOAL and ratios["fp32"] >= GOAL_FP32,
        save=options.save,
        equal_counts=equal,
        counts=counts,
        ratio_fp32=round(ratios["fp32"], 2),
        goal_fp32=GOAL_FP32,
        other_ms={name: round(1e3 * median[name], 3) for name in ("fp32", "fp64 with z-buffer", "devkit storing fp32")},
        ratio_fp32_both=round(median_ratio(times["devkit storing fp32"], times["fp32"]), 2),
    )


def posed(drive: Drive, sweep: Sweep) -> tuple[list[Frame], list[tuple[list[np.ndarray], np.ndarray, tuple[int, int]]]]:
    """The six cameras as frames, and as the devkit has them."""
    lidar_from_world = invert_pose(sweep.world_from_ego @ sweep.ego_from_lidar)
    frames, cameras = [], []
    for mount in drive.rig.cameras:
        moved = drive.world_from_ego(sweep.timestamp + round(1e6 * (mount.trigger - drive.rig.reference)))
        chain = [sweep.ego_from_lidar, sweep.world_from_ego, moved, mount.ego_from_camera]
        frames.append(
            Frame(mount.name, Path(mount.name), mount.camera, lidar_from_world @ moved @ mount.ego_from_camera)
        )
        cameras.append((chain, written_matrix(mount.camera), (mount.camera.width, mount.camera.height)))
    return frames, cameras


if __name__ == "__main__":
    main()
