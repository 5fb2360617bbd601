"""Score a run's answers against the truth of a generated room, and write what it found as a coloured point cloud."""

from __future__ import annotations

import sys
from pathlib import Path

import ov3d
from ov3d.backends import get_backend
from ov3d.common.base.device import pick_device
from ov3d.common.base.progress import Silent
from ov3d.common.exporters.answers import write_answer
from ov3d.common.worlds.gallery import GalleryConfig, write_gallery


def main(folder: Path) -> None:
    """Train, evaluate over three classes, export one answer."""
    config = GalleryConfig(seed=100, num_views=2, width=160, height=120, photographs=("cat",))
    room = write_gallery(folder / "room", config)
    run = ov3d.train("points", room.path, "stages=[fuse]", outputs=folder / "outputs")

    report = get_backend("points").evaluate(run, room, device=pick_device("auto"), classes=("cat", "wall", "floor"))
    for table in report.to_json()["tables"]:
        print(f"{table['title']}: mIoU {table['mean_iou']:.3f}, mAcc {table['mean_accuracy']:.3f}")

    index_path = run.indexes[room.name]
    answer = ov3d.query("a cat", run.path)
    index = ov3d.load_index(index_path)
    for path in write_answer(folder / "answer", index, answer, index_path.parent, progress=Silent()):
        print("wrote", path)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "example-04"))
