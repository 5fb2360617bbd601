"""A plain cloud with a folder of posed images: the most common layout for your own captures.

    ROOM/anything.ply beside ROOM/color, pose, intrinsic, or beside ROOM/IMAGES/color, pose, intrinsic

PLY, LAS, PCD, .npy or .bin; see `ov3d.common.readers.cloud_files`. The images are in ScanNet's layout (see
`ov3d.common.readers.scannet`). The path may also be the cloud itself. A cloud without images is a scene too: a network
trained on points can label it.
"""

from __future__ import annotations

from pathlib import Path

from ov3d.common.base.errors import DataError
from ov3d.common.readers.class_names import read_classes
from ov3d.common.readers.cloud_files import cloud_files, is_cloud_file, read_cloud
from ov3d.common.readers.layout import Layout
from ov3d.common.readers.scannet import is_posed_folder, read_posed_folder
from ov3d.common.scenes.scene import Frame, Scene


def load(path: Path) -> Scene:
    """Read a scene of this layout; raises `DataError` naming the faulty file."""
    cloud_path, images = _cloud_path(path), _images_folder(path)
    frames: list[Frame] = []
    notes: list[str] = []
    classes = read_classes(cloud_path.parent / "classes.txt")
    if images is None:
        notes.append(f"no posed images beside {cloud_path.name} (looked for color/, pose/ and intrinsic/)")
    else:
        frames, named, notes = read_posed_folder(images)
        classes = named or classes
    cloud, world, cloud_notes = read_cloud(cloud_path, num_classes=len(classes))
    return LAYOUT.scene(path, frames, world, [*notes, *cloud_notes], cloud=cloud, classes=classes)


def _matches(path: Path) -> bool:
    if path.is_file():
        return is_cloud_file(path) and path.suffix.lower() != ".npy"  # .npy has its own layout
    return path.is_dir() and len(cloud_files(path)) == 1 and len(_posed_folders(path)) == 1


def _cloud_path(path: Path) -> Path:
    if not path.is_dir():
        return path
    clouds = cloud_files(path)
    if len(clouds) != 1:
        found = ", ".join(cloud.name for cloud in clouds[:3]) or "none"
        raise DataError(
            f"{path} should hold one cloud but holds {len(clouds)} ({found}).", "Give the path of the cloud to read."
        )
    return clouds[0]


def _images_folder(path: Path) -> Path | None:
    """The folder with color/ and pose/: the scene's own, the one inside it, or, of several, the one named like the cloud."""
    folder = path if path.is_dir() else path.parent
    found = _posed_folders(folder)
    if len(found) > 1:
        named_alike = [inner for inner in found if inner.name == path.stem]
        if not named_alike:
            names = ", ".join(inner.name for inner in found[:3])
            raise DataError(
                f"{folder} has {len(found)} folders of posed images ({names}), none named like {path.name}.",
                "Give the cloud the same name as its image folder.",
            )
        found = named_alike
    return found[0] if found else None


def _posed_folders(folder: Path) -> list[Path]:
    if is_posed_folder(folder):
        return [folder]
    return [inner for inner in sorted(folder.iterdir()) if inner.is_dir() and is_posed_folder(inner)]


LAYOUT = Layout(
    name="cloud",
    looks_for="one cloud (.ply, .las, .pcd, .npy, .bin) beside posed images (color/, pose/, intrinsic/; or in a sub-folder)",
    matches=_matches,
    load=load,
)
