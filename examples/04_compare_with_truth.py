"""Score a run's answers against the truth of a generated room, and write what it found as a coloured point cloud."""

from __future__ import annotations

import sys
from pathlib import Path

import ov3d


def main(folder: Path) -> None:
    """Train, evaluate over three classes, export one answer."""
    room = ov3d.demo_scene(folder / "room", views=4)
    run = ov3d.train("points", room.path, stages=["fuse"], outputs=folder / "outputs")

    for report in ov3d.evaluate(run, classes=("cat", "wall", "floor")):
        print(report.title, *(f"{name} {value:.3f}" for name, value in report.means.items() if value is not None))

    ov3d.query("a cat", run, output=folder / "answer")
    for path in sorted((folder / "answer").iterdir()):
        print("wrote", path)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "example-04"))
