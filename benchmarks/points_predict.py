"""A scan of five million points labelled by `ov3d predict`'s code: memory and seconds, in a process of its own.

The scan is a generated building: rooms of 5 x 5 m side by side, with floors, walls and boxes, a point every 2 cm or so, as a
binary PLY with colours and with every thousandth point not finite. The network has the shape of a preset, its weights come
from a seed: what is measured is how much is held at once and how long it takes, not how well it labels.

Run: python -m benchmarks.points_predict [--points 5000000] [--preset cpu]
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import in_own_process, parser, peak_bytes, report
from ov3d.common.base.progress import Silent
from ov3d.common.exporters.labelled import write_labelled
from ov3d.common.language.cards import NO_IMAGE, EncoderCard, Identity
from ov3d.common.readers.scan import read_scan
from ov3d.points.config import PRESETS, GuideConfig
from ov3d.points.network import NetworkSpec, PointNetwork
from ov3d.points.predict import label_scan

GOAL = 4e9
NUM_POINTS, ROOM_POINTS, NUM_CLASSES, DIM = 5_000_000, 125_000, 20, 384
ROOM = 5.0


def write_building(path: Path, num_points: int) -> None:
    """Rooms in a row of rows, written one after the other."""
    row = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])
    names = [f"property float {name}" for name in "xyz"] + [f"property uchar {c}" for c in ("red", "green", "blue")]
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {num_points}", *names, "end_header", ""]
    num_rooms = -(-num_points // ROOM_POINTS)
    across = int(np.ceil(np.sqrt(num_rooms)))
    with path.open("wb") as stream:
        stream.write("\n".join(head).encode())
        for number in range(num_rooms):
            count = min(ROOM_POINTS, num_points - number * ROOM_POINTS)
            block = np.zeros(count, row)
            xyz, rgb = one_room(np.random.default_rng(number), count)
            block["xyz"] = xyz + np.array([number % across, number // across, 0]) * (ROOM + 0.2)
            block["rgb"] = rgb
            block["xyz"][::1000, 0] = np.nan
            stream.write(block.tobytes())


def one_room(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points on a floor, four walls and twelve boxes."""
    surface = rng.choice(6, count, p=[0.25, 0.125, 0.125, 0.125, 0.125, 0.25])
    u, v = rng.uniform(0, ROOM, (2, count))
    height = 0.5 * v
    planes = np.stack(
        [
            np.column_stack([u, v, 0 * u]),
            np.column_stack([u, 0 * u, height]),
            np.column_stack([u, 0 * u + ROOM, height]),
            np.column_stack([0 * u, u, height]),
            np.column_stack([0 * u + ROOM, u, height]),
        ]
    )
    xyz = planes[np.minimum(surface, 4), np.arange(count)]
    box = rng.integers(12, size=count)
    corner, edge = rng.uniform(0.3, ROOM - 1.2, (12, 3)) * (1, 1, 0), rng.uniform(0.3, 0.9, (12, 3))
    face = rng.uniform(0, 1, (count, 3))
    face[np.arange(count), rng.integers(3, size=count)] = rng.integers(2, size=count)
    xyz[surface == 5] = (corner[box] + face * edge[box])[surface == 5]
    paint = rng.integers(40, 216, (17, 3))
    rgb = paint[np.where(surface == 5, 5 + box, surface)] + rng.integers(-20, 20, (count, 3))
    return xyz.astype(np.float32), rgb.astype(np.uint8)


def make_network(preset: str) -> PointNetwork:
    """The preset's network, untrained."""
    torch.manual_seed(0)
    identity = Identity("none", "seed:0", "none", "float32")
    card = EncoderCard("none", NO_IMAGE, identity, DIM, 10.0, 0.2, True)
    config = GuideConfig(**PRESETS[preset].get("guide", {}))
    return PointNetwork(NetworkSpec.of(config, DIM), card, tuple(f"class {k}" for k in range(NUM_CLASSES)))


def measure(scan_path: Path, folder: Path, preset: str, threads: int) -> dict[str, Any]:
    """Read, label, write; in this process."""
    torch.set_num_threads(threads)
    before = peak_bytes()
    network = make_network(preset)
    text = np.random.default_rng(0).normal(size=(NUM_CLASSES, DIM)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    clock = [(time.perf_counter(), time.process_time())]
    scan = read_scan(scan_path)
    clock.append((time.perf_counter(), time.process_time()))
    labelled = label_scan(network, scan, text, progress=Silent())
    clock.append((time.perf_counter(), time.process_time()))
    out = write_labelled(folder / "out.ply", scan, labelled.labels, labelled.scores, network.vocabulary)
    clock.append((time.perf_counter(), time.process_time()))
    parts = dict(zip(("read", "label", "write"), np.diff(np.array(clock), axis=0).round(2).tolist(), strict=True))
    return {
        "points": len(scan),
        "not_finite": scan.num_dropped,
        "voxels": labelled.num_voxels,
        "tiles": labelled.num_tiles,
        "seconds": round(clock[-1][0] - clock[0][0], 2),
        "processor_seconds": round(clock[-1][1] - clock[0][1], 2),
        "parts_wall_and_processor": parts,
        "bytes_written": out.stat().st_size,
        "imports_bytes": before,
        "peak_rss": peak_bytes(),
    }


def main() -> None:
    """Write the scan, label it in another process, and print one JSON line."""
    arguments = parser(__doc__)
    arguments.add_argument("--points", type=int, default=NUM_POINTS)
    arguments.add_argument("--preset", choices=("cpu", "gpu", "paper"), default="cpu")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--here", type=Path, help="label this scan in this process, print its JSON")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.here is not None:
            print(json.dumps(measure(options.here, folder, options.preset, options.threads)))
            return
        scan = folder / "scan.ply"
        write_building(scan, options.points)
        same = ("--preset", options.preset, "--threads", options.threads)
        found = in_own_process("points_predict", "--here", scan, *same)
    print(f"{found['points']:,} points, {found['voxels']:,} voxels in {found['tiles']} tiles: {found['seconds']} s")
    report(
        "points_predict",
        ours=found["seconds"],
        peer=None,
        unit=f"seconds for {found['points']:,} points, preset {options.preset}, {options.threads} threads",
        ratio=round(GOAL / found["peak_rss"], 2),
        goal=GOAL,
        met=found["peak_rss"] < GOAL,
        save=options.save,
        **found,
    )


if __name__ == "__main__":
    main()
