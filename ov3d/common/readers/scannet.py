"""ScanNet's export layout: one folder of numbered files per kind of image.

    color/N.jpg|png|…   depth/N.png (16-bit millimetres)   pose/N.txt (4x4, camera-to-world, OpenCV axes)
    intrinsic/intrinsic_color.txt, intrinsic_depth.txt (4x4 or 3x3)
    label/N.png, instance/N.png, classes.txt, cloud.ply (all optional)
    label-filt/N.png instead of label/, with ScanNet's label map there or above (see `ov3d.common.readers.label_map`)

Line i of classes.txt names class id i; a label without a name is unknown. Instance 0 means no object.
ScanNet's pixel centres are at whole numbers (its tools round a projection to find its pixel), ours at +0.5: half a pixel is
added to the principal point.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Float64
from ov3d.common.datasets import load_dataset
from ov3d.common.readers.class_names import read_classes
from ov3d.common.readers.cloud_files import cloud_files
from ov3d.common.readers.label_map import FILE_NAMES, find_label_map, read_label_map
from ov3d.common.readers.layout import Layout, origin_of_cameras
from ov3d.common.readers.ply import read_ply
from ov3d.common.scenes.cameras import Camera, orthonormalised, pose_fault
from ov3d.common.scenes.images import IMAGE_ENDINGS, read_header
from ov3d.common.scenes.scene import DepthImage, Frame, LabelImage, Scene, World

DEPTH_SCALE = 0.001
NUM_INSTANCES = 1 << 16
CLOUD_NAME = "cloud.ply"
FILTERED_LABELS = "label-filt"

_EXACT = 1e-9


def is_posed_folder(path: Path) -> bool:
    """Whether a folder has photographs and poses in this layout."""
    return (path / "color").is_dir() and ((path / "pose").is_dir() or (path / "intrinsic").is_dir())


def load(path: Path) -> Scene:
    """Read a scene of this layout; raises `DataError` naming the faulty file."""
    if not (path / "color").is_dir():
        raise DataError(f"{path} has no folder color/ with photographs.", "Check the path.")
    frames, classes, notes = read_posed_folder(path)
    cloud_path = path / CLOUD_NAME
    cloud = None
    if cloud_path.is_file():
        cloud, world, cloud_notes = read_ply(cloud_path, num_classes=len(classes))
        notes += cloud_notes
    else:
        world = World(origin=origin_of_cameras(frames))
        others = [other.name for other in cloud_files(path)]
        if others:
            notes.append(f"{len(others)} clouds ({others[0]}, …) are left out: none of them is {CLOUD_NAME}")
    return LAYOUT.scene(path, frames, world, notes, cloud=cloud, classes=classes)


def read_posed_folder(path: Path) -> tuple[list[Frame], tuple[str, ...], list[str]]:
    """Frames, class names and notes of a folder in this layout; poses as in the files.

    Raises:
        DataError: no image has a usable pose, or files contradict each other; the message names them.
    """
    images, poses = _images(path / "color"), _by_stem(path / "pose", (".txt",))
    notes: list[str] = []
    names = [name for name in _in_order(images) if name in poses]
    if not names:
        raise _nothing_posed(path, images, poses)
    _count(notes, len(images) - len(names), "image has", "images have", "no pose and {} left out")
    _count(notes, len(poses.keys() - images.keys()), "pose has", "poses have", "no image and {} left out")
    tracked = {name: pose for name in names if (pose := _read_pose(poses[name])) is not None}
    if not tracked:
        raise DataError(
            f"None of the {len(names)} poses in {path / 'pose'} are finite: tracking was lost in every frame.",
            "Export the poses again.",
        )
    _count(notes, len(names) - len(tracked), "frame has", "frames have", "a pose that is not finite and {} left out")
    sizes = {name: size for name in tracked if (size := _image_size(images[name])) is not None}
    if not sizes:
        first = images[next(iter(tracked))]
        raise DataError(f"None of {len(tracked)} images in {path / 'color'} can be read (first: {first.name}).")
    unreadable = [images[name].name for name in tracked if name not in sizes]
    _count(notes, len(unreadable), "image", "images", f"cannot be read ({', '.join(unreadable[:3])}) and {{}} left out")
    camera = _colour_camera(path, images, sizes)
    classes = read_classes(path / "classes.txt")
    frames = [Frame(name, images[name], camera, tracked[name]) for name in sizes]
    frames = _with_depth(path, frames, camera, notes)
    if classes or not (path / FILTERED_LABELS).is_dir():
        return _with_truth(path, frames, classes, notes), classes, notes
    frames, classes = with_filtered_labels(path, _with_truth(path, frames, (), notes), notes)
    return frames, classes, notes


def _with_depth(path: Path, frames: list[Frame], camera: Camera, notes: list[str]) -> list[Frame]:
    files = _by_stem(path / "depth", (".png", ".tif", ".tiff"))
    files = {frame.name: files[frame.name] for frame in frames if frame.name in files}
    if not files:
        return frames
    size = next((size for file in files.values() if (size := _image_size(file)) is not None), None)
    if size is None:
        raise DataError(f"None of {len(files)} depth images in {path / 'depth'} can be read.", "Export them again.")
    _count(notes, len(frames) - len(files), "frame has", "frames have", "no depth image")
    intrinsic = path / "intrinsic" / "intrinsic_depth.txt"
    if intrinsic.is_file():
        depth_camera = _read_camera(intrinsic, size)
    else:
        depth_camera = camera.resized(*size)
        notes.append(f"{intrinsic.name} is missing: depth is assumed to have the photographs' field of view")
    if _turned(path / "intrinsic" / "extrinsic_depth.txt") or _turned(path / "intrinsic" / "extrinsic_color.txt"):
        notes.append("the offset between depth and colour cameras (intrinsic/extrinsic_*.txt) is ignored")
    return [
        replace(frame, depth=DepthImage(files[frame.name], DEPTH_SCALE, depth_camera)) if frame.name in files else frame
        for frame in frames
    ]


def with_filtered_labels(path: Path, frames: list[Frame], notes: list[str]) -> tuple[list[Frame], tuple[str, ...]]:
    """Frames with the labels of label-filt/N.png, mapped to classes by ScanNet's label map, and the class names.

    Args:
        path: the folder that has label-filt/.
        frames: named after the numbers.
        notes: appended to when labels are left out.

    Raises:
        DataError: the label map cannot be read.
    """
    files = _by_stem(path / FILTERED_LABELS, (".png",))
    table = find_label_map(path)
    if table is None:
        if files:
            notes.append(f"{FILTERED_LABELS}/ is left out: no {FILE_NAMES[0]} there or above to explain its numbers")
        return frames, ()
    names, by_id = load_dataset("scannet").names, read_label_map(table).by_id
    labelled = [
        replace(frame, labels=LabelImage(files[frame.name], len(names), table=by_id)) if frame.name in files else frame
        for frame in frames
    ]
    return labelled, names


def _with_truth(path: Path, frames: list[Frame], classes: tuple[str, ...], notes: list[str]) -> list[Frame]:
    labels, instances = _by_stem(path / "label", (".png",)), _by_stem(path / "instance", (".png",))
    if labels and not classes:
        notes.append("label/ is left out: no classes.txt names its ids")
        labels = {}
    return [
        replace(
            frame,
            labels=LabelImage(labels[frame.name], len(classes)) if frame.name in labels else None,
            instances=LabelImage(instances[frame.name], NUM_INSTANCES, void=0) if frame.name in instances else None,
        )
        for frame in frames
    ]


# ------------------------------------------------------------------------------------------------------------- files


def _by_stem(folder: Path, endings: tuple[str, ...]) -> dict[str, Path]:
    """Files in a folder by stem; hidden files (macOS leaves ._N.png) are ignored."""
    if not folder.is_dir():
        return {}
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() not in endings or file.name.startswith("."):
            continue
        if file.stem in found:
            raise DataError(f"{folder} has both {found[file.stem].name} and {file.name}.", "Remove one of them.")
        found[file.stem] = file
    return found


def _images(folder: Path) -> dict[str, Path]:
    images = _by_stem(folder, IMAGE_ENDINGS)
    if not images:
        raise DataError(f"No images in {folder} (looked for {', '.join(IMAGE_ENDINGS)}).", "Check the path.")
    return images


def _in_order(names: dict[str, Path]) -> list[str]:
    """Names in numeric order if all are numbers (2 before 10), else alphabetically."""
    if all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def _nothing_posed(path: Path, images: dict[str, Path], poses: dict[str, Path]) -> DataError:
    first = next(iter(images))
    if not poses:
        return DataError(
            f"{path} has {len(images)} images in color/ but no pose in pose/ (looked for pose/{first}.txt).",
            "Export the poses as 4x4 camera-to-world matrices.",
        )
    return DataError(
        f"No image in {path / 'color'} has a pose of the same name: {images[first].name} needs pose/{first}.txt, "
        f"but pose/ has {next(iter(poses.values())).name}.",
        "Give images and poses the same names.",
    )


def _image_size(path: Path) -> tuple[int, int] | None:
    """Width and height, upright, from the header alone; None if it is not an image."""
    header = read_header(path)
    return None if header is None else header.size


def _numbers(path: Path) -> Float64[Array, "rows columns"]:
    try:
        rows = [[float(text) for text in line.split()] for line in path.read_text().splitlines() if line.strip()]
    except (OSError, ValueError):
        rows = []
    if not rows or len({len(row) for row in rows}) != 1:
        raise DataError(
            f"{path} does not hold a matrix of numbers.", "It should be rows of numbers separated by spaces."
        )
    return np.array(rows, dtype=np.float64)


def _read_pose(path: Path) -> Float64[Array, "4 4"] | None:
    """A pose with an exact rotation; None if tracking was lost."""
    pose = _numbers(path)
    if pose.shape == (4, 4) and not np.isfinite(pose).all():
        return None
    if fault := pose_fault(pose):
        raise DataError(
            f"The pose {path} is invalid: {fault}.",
            "Poses should be 4x4, camera-to-world, OpenCV axes (x right, y down, z forward).",
        )
    rounding = np.abs(pose[:3, :3] @ pose[:3, :3].T - np.eye(3)).max()
    return orthonormalised(pose) if rounding > _EXACT else pose


def _turned(path: Path) -> bool:
    """Whether a file exists and holds anything but the identity."""
    if not path.is_file():
        return False
    matrix = _numbers(path)
    return matrix.shape != (4, 4) or not np.allclose(matrix, np.eye(4), atol=1e-4)


def _read_camera(path: Path, size: tuple[int, int]) -> Camera:
    matrix = _numbers(path)
    if matrix.shape not in ((3, 3), (4, 4), (3, 4)) or not np.isfinite(matrix).all():
        shape = "x".join(map(str, matrix.shape))
        raise DataError(f"The intrinsics {path} are not a finite 3x3 or 4x4 matrix ({shape}).", "Export them again.")
    fx, fy, cx, cy = (float(value) for value in (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]))
    width, height = size
    if fx <= 0 or fy <= 0 or not (0 < cx < width and 0 < cy < height):
        raise DataError(
            f"The intrinsics {path} (fx {fx:g}, fy {fy:g}, cx {cx:g}, cy {cy:g}) do not fit images of {width}x{height}.",
            "They are for another image size: scale them, or export them again.",
        )
    return Camera(width, height, fx, fy, cx + 0.5, cy + 0.5)


def _colour_camera(path: Path, images: dict[str, Path], sizes: dict[str, tuple[int, int]]) -> Camera:
    first, size = next(iter(sizes.items()))
    for name, other in sizes.items():
        if other != size:
            raise DataError(
                f"{images[name]} is {other[0]}x{other[1]} but {images[first].name} is {size[0]}x{size[1]}: "
                "one intrinsics file cannot fit both.",
                "Resize all images to one size.",
            )
    intrinsic = path / "intrinsic" / "intrinsic_color.txt"
    if not intrinsic.is_file():
        raise DataError(
            f"The photographs' intrinsics are missing: looked for {intrinsic}.", "Export them as a 4x4 or 3x3 matrix."
        )
    return _read_camera(intrinsic, size)


def _count(notes: list[str], count: int, one: str, many: str, what: str) -> None:
    if count:
        notes.append(f"{count} {one if count == 1 else many} {what.format('is' if count == 1 else 'are')}")


LAYOUT = Layout(
    name="scannet",
    looks_for="folders color/, pose/ and intrinsic/",
    matches=lambda path: is_posed_folder(path) and ((path / CLOUD_NAME).is_file() or len(cloud_files(path)) != 1),
    load=load,
)
