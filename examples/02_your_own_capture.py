"""Bring a point cloud in any format with posed photographs, check that they fit together, and say how long a unit is."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import ov3d


def capture(folder: Path) -> Path:
    """What a scanner might leave: my-scan/scan.ply beside my-scan/photos/{color,pose,intrinsic,depth}."""
    room = ov3d.demo_scene(folder / "made", views=4)
    shutil.copytree(room.path, folder / "my-scan" / "photos", dirs_exist_ok=True)
    (folder / "my-scan" / "photos" / "cloud.ply").replace(folder / "my-scan" / "scan.ply")
    return folder / "my-scan"


def main(folder: Path) -> None:
    """Read it, check it, break it to see the check notice, and read it in other units."""
    scene = ov3d.load_scene(capture(folder))
    print(f"{scene.name}: layout {scene.layout}, {len(scene.frames)} frames, {len(scene.cloud or ())} points")
    for fact in ov3d.check_scene(scene):
        print(f"  {fact.state:6} {fact.name}: {fact.value} {fact.hint}")

    opengl = np.diag([1.0, -1.0, -1.0, 1.0])  # a common mistake: y up, z backward
    frames = tuple(replace(frame, world_from_camera=frame.world_from_camera @ opengl) for frame in scene.frames)
    turned = replace(scene, frames=frames)
    seen = next(fact for fact in ov3d.check_scene(turned) if fact.name == "seen")
    print(f"with wrong axes: {seen.state}, {seen.value}; {seen.hint}")

    feet = ov3d.load_scene(scene.path, scale=0.3048)
    print(f"had the files been in feet: {feet.notes[-1]}, units {feet.world.units}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "example-02"))
