"""The synthetic NeRF scenes, rendered with Blender: one transforms file per split.

    transforms_train.json, transforms_val.json, transforms_test.json: camera_angle_x,
    frames: [{file_path (without extension), transform_matrix (camera-to-world, OpenGL axes)}]

nerfstudio's keys (fl_x, k1, …) are read too. A frame is named after its split and its image: `train_r_0`.
Photographs are RGBA; their transparent background becomes white. Units are arbitrary, z is up.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ov3d.common.base.errors import DataError
from ov3d.common.readers.layout import Layout, origin_of_cameras
from ov3d.common.readers.nerfstudio import read_transforms, shots_of
from ov3d.common.readers.posed import frames_from, natural_order
from ov3d.common.scenes.scene import Frame, Scene, World

SPLITS = ("train", "val", "test")


def load(path: Path) -> Scene:
    """Read a scene of this layout; raises `DataError` naming the faulty file."""
    files = {split: path / f"transforms_{split}.json" for split in SPLITS}
    if not files["train"].is_file():
        raise DataError(f"{files['train']} does not exist.", "Check the path.")
    frames: list[Frame] = []
    notes: list[str] = []
    splits = {}
    for split, file in files.items():
        if not file.is_file():
            continue
        shots = [replace(shot, name=f"{split}_{shot.name}") for shot in shots_of(read_transforms(file), file)]
        found = sorted(frames_from(shots, file, notes), key=lambda frame: natural_order(frame.name))
        splits[split] = tuple(frame.name for frame in found)
        frames += found
    world = World(units="arbitrary", origin=origin_of_cameras(frames))
    return LAYOUT.scene(path, frames, world, notes, splits=splits)


LAYOUT = Layout(
    name="blender",
    looks_for="transforms_train.json",
    matches=lambda path: (path / "transforms_train.json").is_file(),
    load=load,
)
