"""A tiny capture in ScanNet's layout, for the command line to work on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.common.small_scenes import CAMERA, CLASSES, box_scene


def write_capture(folder: Path, num_views: int = 5) -> Path:
    """The box of `tests.common.scenes` as a folder of color/, depth/, pose/, intrinsic/, label/ and classes.txt."""
    scene = box_scene(folder.with_name(f"{folder.name}-raw"), num_views)
    for name in ("color", "depth", "pose", "intrinsic", "label"):
        (folder / name).mkdir(parents=True)
    matrix = CAMERA.matrix - np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # ScanNet counts pixel centres as whole
    np.savetxt(folder / "intrinsic" / "intrinsic_color.txt", matrix)
    np.savetxt(folder / "intrinsic" / "intrinsic_depth.txt", matrix)
    for idx, frame in enumerate(scene.frames):
        Image.fromarray(frame.load_image()).save(folder / "color" / f"{idx}.png")
        assert frame.depth is not None
        assert frame.labels is not None
        Image.fromarray((frame.depth.load() * 1000).round().astype(np.uint16)).save(folder / "depth" / f"{idx}.png")
        labels = frame.labels.load()
        Image.fromarray(np.where(labels < 0, 255, labels).astype(np.uint8)).save(folder / "label" / f"{idx}.png")
        np.savetxt(folder / "pose" / f"{idx}.txt", frame.world_from_camera)
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return folder
