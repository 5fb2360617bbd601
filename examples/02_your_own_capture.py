"""Bring a point cloud in any format with posed photographs, check that they fit together, and say how long a unit is."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import ov3d
from ov3d.common.checks.scene import describe_scene
from ov3d.common.scenes.scene import PointCloud
from ov3d.common.worlds.gallery import GalleryConfig, write_gallery
from ov3d.common.worlds.scannet_writer import write_cloud


def capture(folder: Path) -> Path:
    """What a scanner might leave: my-scan/scan.ply beside my-scan/photos/{color,pose,intrinsic,depth}."""
    config = GalleryConfig(num_views=3, width=96, height=72, photographs=(), furniture=2)
    room = write_gallery(folder / "made", config)
    assert room.cloud is not None
    shutil.copytree(room.path, folder / "my-scan" / "photos", dirs_exist_ok=True)
    (folder / "my-scan" / "photos" / "cloud.ply").unlink()
    write_cloud(folder / "my-scan" / "scan.ply", PointCloud(room.cloud.xyz, room.cloud.rgb))
    return folder / "my-scan"


def main(folder: Path) -> None:
    """Read it, check it, spoil it to see the check bite, and read it in other units."""
    scene = ov3d.load_scene(capture(folder))
    print(f"{scene.name}: layout {scene.layout}, {len(scene.frames)} frames, {len(scene.cloud or ())} points")
    for fact in describe_scene(scene):
        print(f"  {fact.state:6} {fact.name}: {fact.value} {fact.hint}")

    opengl = np.diag([1.0, -1.0, -1.0, 1.0])  # a usual mistake: y up, z backward
    frames = tuple(replace(frame, world_from_camera=frame.world_from_camera @ opengl) for frame in scene.frames)
    turned = replace(scene, frames=frames)
    seen = next(fact for fact in describe_scene(turned) if fact.name == "seen")
    print(f"with wrong axes: {seen.state}, {seen.value}; {seen.hint}")

    feet = ov3d.load_scene(scene.path, scale=0.3048)
    print(f"had the files been in feet: {feet.notes[-1]}, units {feet.world.units}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "example-02"))
