"""Write a scene in each layout, with code that shares nothing with the readers."""

from __future__ import annotations

import json
import shutil
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from ov3d.common.base.errors import DataError
from ov3d.common.readers import load_scene
from ov3d.common.scenes.scene import IGNORE, Frame, PointCloud, Scene
from ov3d.common.worlds.gallery import GalleryConfig, write_gallery


def gallery_room(folder: Path) -> Scene:
    """A small furnished room: three views of 96x72 with depth and labels, and some points; needs no photographs."""
    config = GalleryConfig(num_views=3, width=96, height=72, photographs=(), furniture=2, num_boxes=1, num_pedestals=1)
    scene = write_gallery(folder, config)
    cloud = scene.cloud
    assert cloud is not None and cloud.rgb is not None and cloud.labels is not None and cloud.instances is not None
    thinned = PointCloud(cloud.xyz[::50], cloud.rgb[::50], cloud.labels[::50], cloud.instances[::50])
    return replace(scene, cloud=thinned)


def opengl_pose(frame: Frame) -> list[list[float]]:
    pose = frame.world_from_camera.copy()
    pose[:, 1] *= -1
    pose[:, 2] *= -1
    return pose.tolist()


def copy_images(scene: Scene, folder: Path) -> list[str]:
    """Copies the photographs; gives their paths from the folder's parent."""
    folder.mkdir(parents=True)
    for frame in scene.frames:
        shutil.copy(frame.image_path, folder / f"{frame.name}.png")
    return [f"{folder.name}/{frame.name}.png" for frame in scene.frames]


def write_nerfstudio(folder: Path, scene: Scene, *, with_depth: bool = True) -> dict[str, Any]:
    """The scene as nerfstudio lays it out; gives the JSON object, to be changed and written by `write_json`."""
    names = copy_images(scene, folder / "images")
    camera = scene.frames[0].camera
    frames = []
    for frame, name in zip(scene.frames, names, strict=True):
        entry: dict[str, Any] = {"file_path": name, "transform_matrix": opengl_pose(frame)}
        if with_depth and frame.depth is not None:
            (folder / "depth").mkdir(exist_ok=True)
            shutil.copy(frame.depth.path, folder / "depth" / f"{frame.name}.png")
            entry["depth_file_path"] = f"depth/{frame.name}.png"
        frames.append(entry)
    data = {
        "camera_model": "OPENCV",
        "fl_x": camera.fx,
        "fl_y": camera.fy,
        "cx": camera.cx,
        "cy": camera.cy,
        "w": camera.width,
        "h": camera.height,
        "frames": frames,
    }
    write_json(folder / "transforms.json", data)
    return data


def write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data))


def write_blender(folder: Path, scene: Scene) -> None:
    """The first frame as test, the others as train; images with an alpha channel."""
    camera = scene.frames[0].camera
    for split, frames in (("test", scene.frames[:1]), ("train", scene.frames[1:])):
        (folder / split).mkdir(parents=True)
        entries = []
        for frame in frames:
            Image.open(frame.image_path).convert("RGBA").save(folder / split / f"r_{frame.name}.png")
            entries.append({"file_path": f"./{split}/r_{frame.name}", "transform_matrix": opengl_pose(frame)})
        angle = 2 * np.arctan(camera.width / 2 / camera.fx)
        write_json(folder / f"transforms_{split}.json", {"camera_angle_x": angle, "frames": entries})


COLMAP_PARAMETERS = {
    "SIMPLE_PINHOLE": (0, "f cx cy"),
    "PINHOLE": (1, "fx fy cx cy"),
    "SIMPLE_RADIAL": (2, "f cx cy k1"),
    "RADIAL": (3, "f cx cy k1 k2"),
    "OPENCV": (4, "fx fy cx cy k1 k2 p1 p2"),
    "OPENCV_FISHEYE": (5, "fx fy cx cy k1 k2 k3 k4"),
    "FULL_OPENCV": (6, "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6"),
    "FOV": (7, "fx fy cx cy k1"),
    "SIMPLE_RADIAL_FISHEYE": (8, "f cx cy k1"),
    "RADIAL_FISHEYE": (9, "f cx cy k1 k2"),
}


def write_colmap(
    folder: Path, scene: Scene, *, binary: bool, model: str = "PINHOLE", distortion: dict[str, float] | None = None
) -> Path:
    """The scene as COLMAP lays it out, with the cloud's first points; gives the model's folder."""
    copy_images(scene, folder / "images")
    sparse = folder / "sparse" / "0"
    sparse.mkdir(parents=True)
    camera = scene.frames[0].camera
    number, names = COLMAP_PARAMETERS[model]
    known = {"f": camera.fx, "fx": camera.fx, "fy": camera.fy, "cx": camera.cx, "cy": camera.cy, **(distortion or {})}
    parameters = [known.get(name, 0.0) for name in names.split()]
    poses = []
    for frame in scene.frames:
        inverse = np.linalg.inv(frame.world_from_camera)
        x, y, z, w = Rotation.from_matrix(inverse[:3, :3]).as_quat()
        poses.append((w, x, y, z, *inverse[:3, 3]))
    assert scene.cloud is not None and scene.cloud.rgb is not None
    points = list(zip(scene.cloud.xyz.tolist(), scene.cloud.rgb.tolist(), strict=True))
    if binary:
        (sparse / "cameras.bin").write_bytes(
            struct.pack(f"<QiiQQ{len(parameters)}d", 1, 7, number, camera.width, camera.height, *parameters)
        )
        records = struct.pack("<Q", len(poses))
        for idx, (frame, pose) in enumerate(zip(scene.frames, poses, strict=True)):
            records += struct.pack("<i7di", idx + 1, *pose, 7) + f"{frame.name}.png".encode() + b"\0"
            records += struct.pack("<Q", idx) + struct.pack("<ddq", 1.0, 2.0, -1) * idx
        (sparse / "images.bin").write_bytes(records)
        records = struct.pack("<Q", len(points))
        for idx, (xyz, rgb) in enumerate(points):
            records += struct.pack("<Q3d3BdQ", idx, *xyz, *rgb, 0.5, idx % 3) + struct.pack("<ii", 1, 2) * (idx % 3)
        (sparse / "points3D.bin").write_bytes(records)
        return sparse
    numbers = " ".join(map(repr, map(float, parameters)))
    (sparse / "cameras.txt").write_text(f"# remark\n7 {model} {camera.width} {camera.height} {numbers}\n")
    lines = ["# two lines an image"]
    for idx, (frame, pose) in enumerate(zip(scene.frames, poses, strict=True)):
        lines.append(f"{idx + 1} {' '.join(map(repr, map(float, pose)))} 7 {frame.name}.png")
        lines.append("" if idx % 2 else "1.0 2.0 -1")
    (sparse / "images.txt").write_text("\n".join(lines) + "\n")
    rows = [f"{i} {' '.join(map(repr, xyz))} {' '.join(map(str, rgb))} 0.5 1 2" for i, (xyz, rgb) in enumerate(points)]
    (sparse / "points3D.txt").write_text("\n".join(rows) + "\n")
    return sparse


def write_llff(folder: Path, scene: Scene, *, masks_of: tuple[int, ...] = ()) -> None:
    """The scene as LLFF lays it out, and masks of some images as 3D-OVS does."""
    copy_images(scene, folder / "images")
    rows = []
    for frame in scene.frames:
        c, pose = frame.camera, frame.world_from_camera
        block = np.column_stack([pose[:3, 1], pose[:3, 0], -pose[:3, 2], pose[:3, 3], (c.height, c.width, c.fx)])
        rows.append([*block.reshape(-1), 0.5, 8.0])
    np.save(folder / "poses_bounds.npy", np.array(rows))
    if not masks_of:
        return
    (folder / "segmentations").mkdir()
    (folder / "segmentations" / "classes.txt").write_text("\n".join(reversed(scene.classes)) + "\n")
    for idx in masks_of:
        (folder / "segmentations" / str(idx)).mkdir()
        labels = scene.frames[idx].labels
        assert labels is not None
        ids = labels.load()
        for number, name in enumerate(scene.classes):
            mask = Image.fromarray(np.where(ids == number, 255, 0).astype(np.uint8))
            mask.save(folder / "segmentations" / str(idx) / f"{name}.png")


def assert_same_frames(found: Scene, expected: Scene) -> None:
    """Poses, cameras, pixels of both, in the order of the frames."""
    assert len(found.frames) == len(expected.frames)
    for ours, theirs in zip(found.frames, expected.frames, strict=True):
        np.testing.assert_allclose(_absolute(found, ours), _absolute(expected, theirs), atol=1e-9)
        np.testing.assert_allclose(ours.camera.matrix, theirs.camera.matrix, rtol=1e-9)
        assert (ours.camera.width, ours.camera.height) == (theirs.camera.width, theirs.camera.height)
        np.testing.assert_array_equal(ours.load_image(), theirs.load_image())


def _absolute(scene: Scene, frame: Frame) -> np.ndarray:
    pose = frame.world_from_camera.copy()
    pose[:3, 3] += scene.world.origin
    return pose


def error_of(folder: Path, layout: str | None = None) -> DataError:
    """The error that reading gives: one line, with a hint."""
    with pytest.raises(DataError) as caught:
        load_scene(folder, layout=layout)
    assert "\n" not in str(caught.value) and caught.value.hint
    return caught.value


def ids_by_name(scene: Scene, ids: np.ndarray) -> np.ndarray:
    """Class names a pixel, for scenes that number their classes differently."""
    return np.array([*scene.classes, "-"])[np.where(ids == IGNORE, len(scene.classes), ids)]
