"""How much memory large inputs need: a photograph of 100 megapixels, a cloud of 50 million points, 5,000 views.

Everything is generated. Each case runs in a process of its own, whose peak resident size is what counts, input and output
included; the goal is 4 GB for each. The encoder is a cheap one: what is measured is how much is held at once, not how fast.

- image-jpeg, image-alpha, image-16bit: decode, crop, encode, store and read one photograph of 11,600 x 8,700 pixels.
- cloud: read a binary PLY of 50 million points with colours, lift features of 384 numbers from six views in codes of 48, write
  and read the file.
- views: extract features of 5,000 small posed photographs, lift them onto a cloud, write and ask.

Run: python -m benchmarks.memory [CASE ...] [--scale 0.1]
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import in_own_process, parser, peak_bytes, report
from benchmarks.shared.mean_colours import DIM, MeanColours
from ov3d.common.features.extract import extract_features
from ov3d.common.features.store import FeatureStore
from ov3d.common.lifting.basis import BasisConfig, choose_basis
from ov3d.common.lifting.lift import LiftConfig, lift, read_lifted, write_lifted
from ov3d.common.scenes.cameras import Camera, look_at
from ov3d.common.scenes.scene import Frame, PointCloud

GOAL = 4e9
WIDTH, HEIGHT = 11_600, 8_700
NUM_POINTS, NUM_VIEWS = 50_000_000, 5_000


class WavePixels:
    """Unit features that depend smoothly on pixel and frame, made when they are asked for."""

    def key(self, frame: Frame) -> str:
        return frame.name

    def pixel_features(self, frame: Frame, uv: np.ndarray) -> np.ndarray:
        waves = np.random.default_rng(int(frame.name)).normal(size=(2, 12)).astype(np.float32) / 60
        spread = np.random.default_rng(7).normal(size=(12, DIM)).astype(np.float32)
        values = np.cos(uv.astype(np.float32) @ waves) @ spread
        return values / np.linalg.norm(values, axis=1, keepdims=True)


def image_case(folder: Path, scale: float, mode: str) -> dict[str, float]:
    """One photograph through decoding, cropping, encoding, storing and reading."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # of this benchmark's own writing; ov3d reads with Pillow's own limit
    width, height = int(WIDTH * scale**0.5), int(HEIGHT * scale**0.5)
    small = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((width, height))
    path = folder / ("image.jpg" if mode == "jpeg" else "image.png")
    if mode == "alpha":
        image.putalpha(200)
    elif mode == "16bit":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) << 8)
    image.save(path, **({"quality": 80} if mode == "jpeg" else {"compress_level": 1}))
    writing = peak_bytes()
    del image
    frame = Frame("0", path, Camera(width, height, width, width, width / 2, height / 2), np.eye(4))
    encoder = MeanColours()
    store = FeatureStore(folder / "features", encoder.card)
    report = extract_features([frame], store, encoder)
    uv = np.random.default_rng(0).uniform(0, (width, height), (100_000, 2))
    store.pixel_features(frame, uv)
    return {"megapixels": width * height / 1e6, "crops": report.crops, "peak_of_writing_it": writing}


def cloud_case(folder: Path, scale: float) -> dict[str, float]:
    """A large cloud: read, lifted in codes, written and read."""
    from ov3d.common.readers.ply import read_ply

    num_points = int(NUM_POINTS * scale)
    write_cloud(folder / "cloud.ply", num_points)
    cloud, _, _ = read_ply(folder / "cloud.ply", num_classes=0)
    camera = Camera(640, 480, 560.0, 560.0, 320.0, 240.0)
    frames = []
    for idx in range(6):
        eye = np.array([15.0 * idx + 10, 5.0, 6.0])
        frames.append(Frame(str(idx), folder / "none.png", camera, look_at(eye, eye + np.array([4.0, 12.0, -6.0]))))
    source, config = WavePixels(), LiftConfig(memory_mib=256)
    sample = lift(cloud, frames, source, config, sample_rows=16384)
    basis = choose_basis([(sample.key, sample.features())], sample.features()[:20], BasisConfig())
    lifted = lift(cloud, frames, source, config, coder=basis.coder(sample.features()))
    path = write_lifted(folder / "lifted.safetensors", lifted)
    rank = lifted.code.shape[1]
    del lifted  # who reads it is somebody else
    return {"points": len(cloud), "rows": len(read_lifted(path)), "rank": rank, "bytes": path.stat().st_size}


def write_cloud(path: Path, num_points: int) -> None:
    """A street 100 m long in the order of a scanner: ground and a wall; written in blocks."""
    row = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])
    names = ("x", "y", "z")
    with path.open("wb") as stream:
        head = ["ply", "format binary_little_endian 1.0", f"element vertex {num_points}"]
        head += [f"property float {name}" for name in names] + [f"property uchar {c}" for c in ("red", "green", "blue")]
        stream.write("\n".join([*head, "end_header", ""]).encode())
        for start in range(0, num_points, 1_000_000):
            count = min(1_000_000, num_points - start)
            rng = np.random.default_rng(start)
            block = np.zeros(count, row)
            along = (start + np.arange(count)) / num_points * 100
            wall = rng.random(count) < 0.5
            block["xyz"][:, 0] = along
            block["xyz"][:, 1] = np.where(wall, 20, rng.uniform(0, 20, count))
            block["xyz"][:, 2] = np.where(wall, rng.uniform(0, 8, count), 0)
            block["rgb"] = rng.integers(0, 256, (count, 3))
            stream.write(block.tobytes())


def views_case(folder: Path, scale: float) -> dict[str, float]:
    """Many posed photographs: extracted, lifted."""
    from PIL import Image

    num_views = int(NUM_VIEWS * scale)
    camera = Camera(96, 72, 90.0, 90.0, 48.0, 36.0)
    side = np.linspace(-2, 2, 100)
    x, y = (part.ravel() for part in np.meshgrid(side, side))
    cloud = PointCloud(np.column_stack([x, y, 0.1 * np.sin(3 * x)]).astype(np.float32))
    frames = []
    for idx in range(num_views):
        path = folder / f"{idx}.png"
        small = np.random.default_rng(idx).integers(0, 256, (3, 4, 3), dtype=np.uint8)
        Image.fromarray(small).resize((96, 72)).save(path, compress_level=1)
        angle = 0.3 + idx * 2.399963
        eye = np.array([2 * np.cos(angle), 2 * np.sin(angle), 1.5 + 0.3 * np.sin(idx)])
        frames.append(Frame(str(idx), path, camera, look_at(eye, np.zeros(3))))
    encoder = MeanColours()
    store = FeatureStore(folder / "features", encoder.card)
    report = extract_features(frames, store, encoder)
    lifted = lift(cloud, frames, store, LiftConfig(border=2, memory_mib=256))
    write_lifted(folder / "lifted.safetensors", lifted)
    shards = len(list((folder / "features").glob("*/shards/*.shard")))
    start = time.perf_counter()
    missing = FeatureStore(folder / "features", encoder.card).missing(frames)
    return {
        "views": num_views,
        "images": report.images,
        "shards": shards,
        "rows": len(lifted),
        "missing_after": len(missing),
        "start_seconds": round(time.perf_counter() - start, 2),
    }


CASES: dict[str, Callable[[Path, float], dict[str, float]]] = {
    "image-jpeg": lambda folder, scale: image_case(folder, scale, "jpeg"),
    "image-alpha": lambda folder, scale: image_case(folder, scale, "alpha"),
    "image-16bit": lambda folder, scale: image_case(folder, scale, "16bit"),
    "cloud": cloud_case,
    "views": views_case,
}


def main() -> None:
    """Run the cases, each in its own process, and print one JSON line."""
    arguments = parser(__doc__)
    arguments.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all by default")
    arguments.add_argument("--scale", type=float, default=1.0, help="share of the full size")
    arguments.add_argument("--here", action="store_true", help="run one case in this process, print its JSON")
    options = arguments.parse_args()
    torch.set_num_threads(1)  # a busy machine would wait for threads; memory is what counts
    if options.here:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            found = CASES[options.cases[0]](Path(folder), options.scale)
        print(json.dumps({**found, "peak_bytes": peak_bytes(), "seconds": round(time.perf_counter() - start, 1)}))
        return
    results = {}
    for name in options.cases or list(CASES):
        results[name] = in_own_process("memory", name, "--here", "--scale", options.scale)
        print(f"{name}: peak {results[name]['peak_bytes'] / 1e9:.2f} GB, {results[name]['seconds']:.0f} s", flush=True)
    worst = max(case["peak_bytes"] for case in results.values())
    report(
        "memory",
        ours=worst,
        peer=None,
        unit="bytes of resident memory, worst case",
        ratio=round(GOAL / worst, 2),
        goal=GOAL,
        met=worst < GOAL,
        save=options.save,
        scale=options.scale,
        cases=results,
    )


if __name__ == "__main__":
    main()
