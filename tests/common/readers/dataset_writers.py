"""Write a scene as published data sets lay theirs out, with code that shares nothing with the readers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from plyfile import PlyData, PlyElement

from ov3d.common.scenes.scene import IGNORE, Scene
from tests.common.readers.test_scannet_raw import write_sens

S3DIS = [
    "ceiling",
    "floor",
    "wall",
    "beam",
    "column",
    "window",
    "door",
    "table",
    "chair",
    "sofa",
    "bookcase",
    "board",
    "clutter",
]
NYU40 = {"wall": 1, "floor": 2, "cabinet": 3, "table": 7}
"""Of the classes that the room has; NYU40 numbers the others as none of ScanNet's 20."""


def class_names(scene: Scene) -> list[str]:
    """The class of each point by name, `-` where unknown."""
    assert scene.cloud is not None and scene.cloud.labels is not None
    return ["-" if label == IGNORE else scene.classes[label] for label in scene.cloud.labels]


def write_s3dis(room_folder: Path, scene: Scene) -> Path:
    """One text file a pair of class and object."""
    cloud = scene.cloud
    assert cloud is not None and cloud.rgb is not None and cloud.instances is not None
    files: dict[tuple[str, int], list[str]] = {}
    for k, name in enumerate(class_names(scene)):
        x, y, z = (float(value) for value in cloud.xyz[k])
        r, g, b = cloud.rgb[k].tolist()
        files.setdefault((name, int(cloud.instances[k])), []).append(f"{x!r} {y!r} {z!r} {r} {g} {b}\n")
    (room_folder / "Annotations").mkdir(parents=True)
    for number, ((name, _), lines) in enumerate(sorted(files.items()), start=1):
        (room_folder / "Annotations" / f"{name}_{number}.txt").write_text("".join(lines))
    return room_folder


def write_2d3ds(data: Path, scene: Scene, *, room: str = "office_1") -> Path:
    """Photographs with poses from world to camera and depth in 1/512 m, 65535 where there is none."""
    for name in ("pose", "rgb", "depth"):
        (data / name).mkdir(parents=True)
    for k, frame in enumerate(scene.frames):
        stem = f"camera_{k:032x}_{room}_frame_{k}_domain"
        shutil.copy(frame.image_path, data / "rgb" / f"{stem}_rgb.png")
        pose = np.linalg.inv(frame.world_from_camera)[:3].tolist()
        facts = {"camera_k_matrix": frame.camera.matrix.tolist(), "camera_rt_matrix": pose, "room": room}
        (data / "pose" / f"{stem}_pose.json").write_text(json.dumps(facts))
        assert frame.depth is not None
        depth = frame.depth.load()
        steps = np.where(depth > 0, np.rint(depth * 512), 65535).astype(np.uint16)
        Image.fromarray(steps).save(data / "depth" / f"{stem}_depth.png")
    return data


def write_scannet_raw(folder: Path, scene: Scene, *, labels_ply: bool = True) -> Path:
    """A scan: recording, mesh, objects and either labels.ply or the label map."""
    scan = folder / "scene0000_00"
    scan.mkdir(parents=True)
    write_sens(scan / "scene0000_00.sens", scene)
    cloud = scene.cloud
    assert cloud is not None and cloud.rgb is not None and cloud.instances is not None
    vertices = np.zeros(len(cloud), [*((axis, "f4") for axis in "xyz"), *((c, "u1") for c in ("red", "green", "blue"))])
    for k, axis in enumerate("xyz"):
        vertices[axis] = cloud.xyz[:, k]
    for k, colour in enumerate(("red", "green", "blue")):
        vertices[colour] = cloud.rgb[:, k]
    PlyData([PlyElement.describe(vertices, "vertex")]).write(str(scan / "scene0000_00_vh_clean_2.ply"))
    names = class_names(scene)
    keys = [(name, int(owner)) for name, owner in zip(names, cloud.instances, strict=True)]
    segments = {key: number for number, key in enumerate(sorted(set(keys)), start=100)}
    (scan / "scene0000_00_vh_clean_2.0.010000.segs.json").write_text(
        json.dumps({"segIndices": [segments[key] for key in keys]})
    )
    groups = [
        {"objectId": number, "label": f"a {name}", "segments": [segment]}
        for number, ((name, owner), segment) in enumerate(segments.items())
        if owner >= 0 or not labels_ply
    ]
    (scan / "scene0000_00.aggregation.json").write_text(json.dumps({"segGroups": groups}))
    if labels_ply:
        labelled = np.zeros(len(cloud), [("x", "f4"), ("y", "f4"), ("z", "f4"), ("label", "u2")])
        labelled["label"] = [NYU40.get(name, 0) for name in names]
        PlyData([PlyElement.describe(labelled, "vertex")]).write(str(scan / "scene0000_00_vh_clean_2.labels.ply"))
    else:
        write_label_map(folder / "scannetv2-labels.combined.tsv", scene.classes)
    return scan


def write_label_map(path: Path, classes: tuple[str, ...]) -> None:
    """A table that calls class k by the number 10 k + 3."""
    lines = ["id\traw_category\tcategory\tcount\tnyu40id\tnyuClass"]
    lines += [f"{10 * k + 3}\ta {name}\t{name}\t5\t{NYU40.get(name, '')}\t{name}" for k, name in enumerate(classes)]
    path.write_text("\n".join(lines) + "\n")


def write_filtered_labels(folder: Path, scene: Scene, names: list[str]) -> None:
    """label-filt/NAME.png with the numbers of `write_label_map`, 0 where unknown."""
    (folder / "label-filt").mkdir(parents=True)
    for frame, name in zip(scene.frames, names, strict=True):
        assert frame.labels is not None
        ids = frame.labels.load()
        Image.fromarray(np.where(ids == IGNORE, 0, 10 * ids + 3).astype(np.uint16)).save(
            folder / "label-filt" / f"{name}.png"
        )


def write_pointcept(folder: Path, scene: Scene) -> Path:
    cloud = scene.cloud
    assert cloud is not None and cloud.rgb is not None and cloud.labels is not None and cloud.instances is not None
    folder.mkdir(parents=True)
    for name, array in (
        ("coord", cloud.xyz),
        ("color", cloud.rgb),
        ("segment", cloud.labels.astype(np.int16)),
        ("instance", cloud.instances),
    ):
        np.save(folder / f"{name}.npy", array)
    (folder / "classes.txt").write_text("\n".join(scene.classes))
    return folder


def write_openscene(folder: Path, scene: Scene) -> Path:
    cloud = scene.cloud
    assert cloud is not None and cloud.rgb is not None and cloud.labels is not None
    folder.mkdir(parents=True)
    labels = np.where(cloud.labels < 0, 255, cloud.labels).astype(np.uint8)
    torch.save((cloud.xyz, cloud.rgb.astype(np.float32) / 127.5 - 1, labels), folder / "room.pth")
    (folder / "classes.txt").write_text("\n".join(scene.classes))
    return folder / "room.pth"


def write_npy(folder: Path, scene: Scene) -> Path:
    cloud = scene.cloud
    assert cloud is not None and cloud.rgb is not None and cloud.labels is not None
    folder.mkdir(parents=True)
    np.save(folder / "room.npy", np.column_stack([cloud.xyz, cloud.rgb, cloud.labels]))
    (folder / "classes.txt").write_text("\n".join(scene.classes))
    return folder / "room.npy"


def write_lerf_annotations(
    folder: Path, boxes: dict[str, list[tuple[str, tuple[int, int, int, int]]]], size: tuple[int, int]
) -> None:
    """FRAME.json for each frame's boxes (category; left, top, right, bottom, borders included)."""
    folder.mkdir(parents=True)
    for frame, named in boxes.items():
        objects = [
            {
                "category": name,
                "bbox": [*box],
                "segmentation": [[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]]],
            }
            for name, box in named
        ]
        info = {"name": f"{frame}.jpg", "width": size[0], "height": size[1]}
        (folder / f"{frame}.json").write_text(json.dumps({"info": info, "objects": objects}))
