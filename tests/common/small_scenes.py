"""A tiny scene with exact geometry, for tests that need frames and points but no reader: a box in a room's corner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ov3d.common.scenes.cameras import Camera, look_at, transform
from ov3d.common.scenes.scene import DepthImage, Frame, LabelImage, PointCloud, Scene

CAMERA = Camera(64, 48, 60.0, 60.0, 32.0, 24.0)
CLASSES = ("floor", "box")


def _grid(*axes: np.ndarray) -> np.ndarray:
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def box_cloud(spacing: float = 0.02) -> PointCloud:
    """A floor of 2 x 2 m and a box of 0.5 m on it, coloured and labelled."""
    side = np.arange(-1, 1 + spacing / 2, spacing)
    floor = np.column_stack([_grid(side, side), np.zeros(len(side) ** 2)])
    edge = np.arange(-0.25, 0.25 + spacing / 2, spacing)
    flat = _grid(edge, edge)
    faces = []
    for axis in range(3):
        for sign in (-0.25, 0.25):
            faces.append(np.insert(flat, axis, sign, axis=1) + np.array([0, 0, 0.25]))
    box = np.concatenate(faces)
    floor = floor[(np.abs(floor[:, :2]) > 0.25).any(axis=1)]
    labels = np.repeat([0, 1], [len(floor), len(box)]).astype(np.int32)
    rgb = np.where(labels[:, None] == 0, (90, 90, 90), (200, 40, 40)).astype(np.uint8)
    return PointCloud(np.concatenate([floor, box]).astype(np.float32), rgb, labels, labels.copy())


def cast_box(camera: Camera, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact depth (0 = nothing) and class ids (-1 = nothing) of the floor and the box: slab test a pixel."""
    uv = camera.pixel_centres()
    rays = transform(pose, camera.unproject(uv, np.ones(len(uv)))) - pose[:3, 3]
    eye = pose[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        to_floor = -eye[2] / rays[:, 2]
        low, high = (np.array([-0.25, -0.25, 0]) - eye) / rays, (np.array([0.25, 0.25, 0.5]) - eye) / rays
    hit = eye + rays * to_floor[:, None]
    floor = np.where((to_floor > 0) & (np.abs(hit[:, :2]) <= 1).all(axis=1), to_floor, np.inf)
    enter, leave = np.minimum(low, high).max(axis=1), np.maximum(low, high).min(axis=1)
    box = np.where((enter <= leave) & (enter > 0), enter, np.inf)
    depth = np.minimum(floor, box)
    label = np.where(np.isinf(depth), -1, np.where(box <= floor, 1, 0))
    shape = (camera.height, camera.width)
    return np.where(np.isinf(depth), 0, depth).reshape(shape).astype(np.float32), label.reshape(shape)


def box_scene(folder: Path, num_views: int = 4, *, with_depth: bool = True, camera: Camera = CAMERA) -> Scene:
    """The box seen from a ring of cameras, its images, depths (u16 mm) and labels written to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = []
    for idx in range(num_views):
        angle = 2 * np.pi * idx / num_views + 0.3
        pose = look_at(np.array([1.6 * np.cos(angle), 1.6 * np.sin(angle), 1.2]), np.array([0.0, 0.0, 0.2]))
        depth, label = cast_box(camera, pose)
        stem = folder / f"{idx}"
        colour = np.array([(0, 0, 0), (90, 90, 90), (200, 40, 40)], np.uint8)[label + 1]
        Image.fromarray(colour).save(f"{stem}.color.png")
        Image.fromarray(np.round(depth * 1000).astype(np.uint16)).save(f"{stem}.depth.png")
        Image.fromarray(np.where(label < 0, 255, label).astype(np.uint8)).save(f"{stem}.label.png")
        measured = DepthImage(Path(f"{stem}.depth.png"), 0.001, camera) if with_depth else None
        labels = LabelImage(Path(f"{stem}.label.png"), len(CLASSES))
        frames.append(Frame(str(idx), Path(f"{stem}.color.png"), camera, pose, measured, labels))
    return Scene("box", folder, "test", tuple(frames), box_cloud(), classes=CLASSES)
