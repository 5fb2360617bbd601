"""Build a room hung with photographs, and ask the room where the cat is."""

from __future__ import annotations

import sys
from pathlib import Path

import ov3d


def main(folder: Path) -> None:
    """Write a posed RGB-D capture, train on it, ask it."""
    room = ov3d.demo_scene(folder / "room", views=4)  # any capture of yours works as well: a path in a known layout

    run = ov3d.train("points", room.path, stages=["fuse"], outputs=folder / "outputs")
    for prompt in ("a cat", "a piano"):
        answer = ov3d.query(prompt, run)
        print(
            f"{prompt}: {answer.num_objects} found, best score {answer.best_score:.2f}, threshold {answer.threshold:.2f}"
        )
        for found in answer.objects[:1]:
            centre, size = found.centre.round(2).tolist(), found.size.round(2).tolist()
            print("  centre", centre, "size", size, room.world.unit_name)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "example-01"))
