"""Build a room hung with a photograph of a cat, and ask the room where the cat is."""

from __future__ import annotations

import sys
from pathlib import Path

import ov3d
from ov3d.common.worlds.gallery import GalleryConfig, write_gallery


def main(folder: Path) -> None:
    """Write a posed RGB-D capture, train on it, ask it."""
    config = GalleryConfig(seed=100, num_views=2, width=160, height=120, photographs=("cat",))
    room = write_gallery(folder / "room", config)  # any capture of yours works as well: a path in a known layout

    run = ov3d.train("points", room.path, "stages=[fuse]", outputs=folder / "outputs")
    for prompt in ("a cat", "a piano"):
        answer = ov3d.query(prompt, run.path)
        print(
            f"{prompt}: {answer.num_objects} found, best score {answer.best_score:.2f} (here from {answer.threshold:.2f})"
        )
        for found in answer.objects[:1]:
            print(
                "  centre", found.centre.round(2).tolist(), "size", found.size.round(2).tolist(), room.world.unit_name
            )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "example-01"))
