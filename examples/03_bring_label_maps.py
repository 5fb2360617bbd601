"""Use the label maps of any 2D segmenter as the teacher, and ask the room for a class in your own words."""

from __future__ import annotations

import sys
from pathlib import Path

import ov3d


def main(folder: Path) -> None:
    """Take the generated room's own label images for a segmenter's: `labels:DIR` names a folder of id images instead."""
    room = ov3d.demo_scene(folder / "room", views=4)
    run = ov3d.train("points", room.path, stages=["fuse"], encoder="labels:scene", outputs=folder / "outputs")
    for prompt in ("the floor", "a wall", "a giraffe"):
        answer = ov3d.query(prompt, run)
        print(f"{prompt}: {answer.num_objects} found, best score {answer.best_score:.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "example-03"))
