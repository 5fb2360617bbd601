"""How long a run over 168,000 stored images takes to see that all are stored: 28,130 nuScenes keyframes of six cameras.

Generated: as many small distinct image files, and their features in shards as `Shards.pack` leaves them (the layout of
docs/formats.md, written here directly: extracting so many would take hours and is not what is measured). The first process
hashes every image's content; a second one, which finds the hashes remembered, is the start that counts. The peer is hashing
again, as a cache without that memory must.

Run: python -m benchmarks.store_start [--images 168000]
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.harness import in_own_process, parser, peak_bytes, report
from benchmarks.shared.mean_colours import MeanColours
from ov3d.common.base.files import hash_text
from ov3d.common.features.shards import ENDING, FOLDER_NAME, MAGIC, SHARD_ENTRIES
from ov3d.common.features.store import FeatureStore
from ov3d.common.scenes.cameras import Camera
from ov3d.common.scenes.scene import Frame

NUM_IMAGES = 168_780
CARD = replace(MeanColours.card, dim=4)
"""So narrow an encoder, because entries are counted here and never read: at 512 numbers they would fill 90 GB."""
GOAL_SECONDS = 60.0
CAMERA = Camera(96, 72, 90.0, 90.0, 48.0, 36.0)


def frames_of(folder: Path, count: int) -> list[Frame]:
    """Frames of the generated images, a thousand a folder."""
    pose = np.eye(4)
    return [Frame(str(idx), folder / f"{idx // 1000:03d}" / f"{idx}.png", CAMERA, pose) for idx in range(count)]


def write_images(frames: list[Frame]) -> None:
    """One small file a frame; what decides is that the contents differ."""
    from PIL import Image

    for start in range(0, len(frames), 1000):
        frames[start].image_path.parent.mkdir(parents=True)
    path = frames[0].image_path
    Image.fromarray(np.zeros((72, 96, 3), np.uint8)).save(path)
    data = path.read_bytes()
    for idx, frame in enumerate(frames[1:], 1):
        frame.image_path.write_bytes(data + idx.to_bytes(4, "little"))


def write_shards(store: FeatureStore, frames: list[Frame]) -> None:
    """Features of all frames in full shards: one entry's bytes under every key."""
    grids = store.plan.boxes(CAMERA.width, CAMERA.height)  # type: ignore[union-attr]
    vectors = [np.full((len(grid), store.card.dim), store.card.dim**-0.5, np.float32) for grid in grids]
    single = store.write_crops(frames[0], vectors)
    data = single.read_bytes()
    place = single.parents[1] / FOLDER_NAME
    place.mkdir()
    for start in range(0, len(frames), SHARD_ENTRIES):
        keys = sorted(store.key(frame) for frame in frames[start : start + SHARD_ENTRIES])
        entries = {key: [number * len(data), len(data)] for number, key in enumerate(keys)}
        text = json.dumps(entries, separators=(",", ":"), sort_keys=True)
        document = {"xxh3_128": hash_text(text), "entries": entries}
        head = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
        with (place / f"{hash_text(text)}{ENDING}").open("wb") as stream:
            stream.write(MAGIC + len(head).to_bytes(8, "little") + head)
            for _ in keys:
                stream.write(data)
    single.unlink()


def start(folder: Path, count: int) -> dict[str, float]:
    """Open the store and ask what is missing, in this process."""
    frames = frames_of(folder / "images", count)
    begun = time.perf_counter()
    missing = FeatureStore(folder / "features", CARD).missing(frames)
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "missing": len(missing), "peak_bytes": peak_bytes()}


def main() -> None:
    """Write images and shards, start in another process, and print one JSON line."""
    arguments = parser(__doc__)
    arguments.add_argument("--images", type=int, default=NUM_IMAGES)
    arguments.add_argument("--here", type=Path, help="only start, on what that folder holds, and print JSON")
    options = arguments.parse_args()
    if options.here is not None:
        print(json.dumps(start(options.here, options.images)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frames = frames_of(folder / "images", options.images)
        write_images(frames)
        time.sleep(2.5)  # a file that was changed just now is hashed, but not remembered
        store = FeatureStore(folder / "features", CARD)
        begun = time.perf_counter()
        for frame in frames:
            store.key(frame)
        hashing = time.perf_counter() - begun
        write_shards(store, frames)
        found = in_own_process("store_start", "--images", options.images, "--here", name)
    print(f"{options.images:,} images: hashed in {hashing:.1f} s, found stored in {found['seconds']:.1f} s")
    report(
        "store_start",
        ours=round(found["seconds"], 2),
        peer=round(hashing, 2),
        unit=f"s to see that {options.images} images are stored; peer: hashing small files of so many",
        ratio=round(hashing / found["seconds"], 2),
        goal=GOAL_SECONDS,
        met=found["seconds"] <= GOAL_SECONDS and found["missing"] == 0,
        save=options.save,
        missing=found["missing"],
        peak_bytes=found["peak_bytes"],
    )


if __name__ == "__main__":
    main()
