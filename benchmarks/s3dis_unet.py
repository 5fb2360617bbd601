"""How soon a closed-set sparse U-Net knows a room: 95 % training accuracy on a 5 m crop of S3DIS, on a CPU.

    python -m benchmarks.s3dis_unet [--file s3dis-crop.h5]

The file is the crop of superpoint_transformer's tests (`level_0/pos`, `rgb`, and 13-class label histograms in CSR form),
read with h5py (extra `bench`); by default `points/s3dis-crop.h5` under $OV3D_DATA or ../shared/data. Without the file or
h5py this prints a line and measures nothing. Seconds count from the points to the accuracy, everything included:
voxelising, kernel maps, training and the passes that measure.
"""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import data_folder, parser, report, skip
from ov3d.common.sparse.unet import Level, UNet, UNetSpec
from ov3d.common.sparse.voxels import SparseTensor, average_by_voxel, voxelise

NUM_CLASSES = 13
GOAL_ACCURACY, GOAL_SECONDS = 0.95, 180.0
VOXEL_SIZE = 0.05
SPEC = UNetSpec(
    in_dim=4,
    out_dim=NUM_CLASSES,
    stem_dim=32,
    levels=(Level(32, 64), Level(64, 64), Level(128, 96), Level(128, 96)),
    stem_size=3,
    num_blocks=1,
)


def main() -> None:
    """Train until the accuracy or the time is reached; print it as it grows, and the JSON line."""
    arguments = parser(__doc__)
    arguments.add_argument("--file", type=Path, default=data_folder("points", "s3dis-crop.h5"))
    arguments.add_argument("--threads", type=int, default=2)
    options = arguments.parse_args()
    missing = None
    if importlib.util.find_spec("h5py") is None:
        missing = "h5py is not installed (pip install 'ov3d[bench]')"
    elif not options.file.is_file():
        missing = f"there is no {options.file}; pass --file or set OV3D_DATA"
    unit = f"s to {GOAL_ACCURACY:.0%} training accuracy"
    if missing:
        skip("s3dis_unet", missing, unit=unit, goal=GOAL_SECONDS)
        return
    torch.set_num_threads(options.threads)
    found = train(*read_crop(options.file))
    seconds = found.pop("seconds")
    report(
        "s3dis_unet",
        ours=seconds,
        peer=None,
        unit=unit,
        ratio=round(GOAL_SECONDS / seconds, 2),
        goal=GOAL_SECONDS,
        met=found["accuracy"] >= GOAL_ACCURACY and seconds <= GOAL_SECONDS,
        save=options.save,
        **found,
        threads=options.threads,
    )


def read_crop(path: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Points in metres, colours in [0, 1] and labels; -1 where no class has a vote."""
    import h5py

    with h5py.File(path) as file:
        level = file["level_0"]
        points, colours = level["pos"][()], level["rgb"][()]
        votes = level["_csr_/y"]
        pointers, columns, values = (votes[name][()] for name in ("pointers", "columns", "values"))
    histogram = np.zeros((len(points), NUM_CLASSES + 1), np.int64)
    rows = np.repeat(np.arange(len(points)), np.diff(pointers.astype(np.int64)))
    histogram[rows, columns.astype(np.int64)] = values
    known = histogram[:, :NUM_CLASSES]
    labels = np.where(known.any(1), known.argmax(1), -1)
    return torch.from_numpy(points), torch.from_numpy(colours).float() / 255, torch.from_numpy(labels)


def train(points: Tensor, colours: Tensor, labels: Tensor) -> dict[str, Any]:
    """Train on voxels with the points' labels; accuracy is over labelled points, in evaluation mode."""
    torch.manual_seed(0)
    start = time.perf_counter()
    grid, inverse = voxelise(points, VOXEL_SIZE)
    inputs = torch.cat([colours * 2 - 1, points[:, 2:] - points[:, 2:].mean()], 1)
    x = SparseTensor(grid, average_by_voxel(inputs, inverse, grid.num_voxels))
    known = labels >= 0
    network = UNet(SPEC)
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    accuracy, steps = 0.0, 0
    while accuracy < GOAL_ACCURACY and time.perf_counter() - start < GOAL_SECONDS:
        for _ in range(10):
            logits = network.train()(x).feats[inverse]
            loss = torch.nn.functional.cross_entropy(logits[known], labels[known])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            steps += 1
        with torch.no_grad():
            found = network.eval()(x).feats[inverse].argmax(1)
        accuracy = float((found == labels)[known].float().mean())
        print(f"{time.perf_counter() - start:6.1f} s, step {steps}: loss {loss.item():.3f}, accuracy {accuracy:.3f}")
    seconds = round(time.perf_counter() - start, 1)
    return {
        "seconds": seconds,
        "accuracy": round(accuracy, 4),
        "steps": steps,
        "num_points": len(points),
        "num_voxels": grid.num_voxels,
    }


if __name__ == "__main__":
    main()
