"""One generated room written in every layout is the same scene, as far as the layout can hold it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from ov3d.common.readers import LAYOUTS, load_scene
from ov3d.common.scenes.scene import IGNORE, Frame, PointCloud, Scene
from ov3d.common.worlds.scannet_writer import write_cloud
from tests.common.readers.cloud_writers import write_bin, write_las, write_pcd
from tests.common.readers.dataset_writers import (
    NYU40,
    S3DIS,
    class_names,
    write_2d3ds,
    write_filtered_labels,
    write_label_map,
    write_npy,
    write_openscene,
    write_pointcept,
    write_s3dis,
    write_scannet_raw,
)
from tests.common.readers.layouts import (
    ids_by_name,
    write_blender,
    write_colmap,
    write_llff,
    write_nerfstudio,
)


def _posed(folder: Path, room: Scene) -> Path:
    """The room's posed images without its cloud."""
    shutil.copytree(room.path, folder)
    (folder / "cloud.ply").unlink()
    return folder


def _scannet(folder: Path, room: Scene) -> Path:
    assert room.cloud is not None
    write_cloud(_posed(folder, room) / "cloud.ply", room.cloud)
    return folder


def _filtered(folder: Path, room: Scene) -> Path:
    _posed(folder, room)
    shutil.rmtree(folder / "label")
    (folder / "classes.txt").unlink()
    write_label_map(folder / "scannetv2-labels.combined.tsv", room.classes)
    write_filtered_labels(folder, room, [frame.name for frame in room.frames])
    return folder


def _beside(write: Callable[[Path, PointCloud], object], inner: str = "images") -> Callable[[Path, Scene], Path]:
    """A cloud in some format beside posed images."""

    def run(folder: Path, room: Scene) -> Path:
        assert room.cloud is not None
        _posed(folder / inner, room)
        write(folder, room.cloud)
        return folder

    return run


def _s3dis(folder: Path, room: Scene) -> Path:
    write_2d3ds(folder / "area_1" / "data", room)
    return write_s3dis(folder / "Area_1" / "office_1", room)


def _in(name: str, write: Callable[[Path, Scene], object]) -> Callable[[Path, Scene], Path]:
    def run(folder: Path, room: Scene) -> Path:
        write(folder / name, room)
        return folder / name

    return run


def _scans(labels_ply: bool) -> Callable[[Path, Scene], Path]:
    def run(folder: Path, room: Scene) -> Path:
        scan = write_scannet_raw(folder, room, labels_ply=labels_ply)
        if not labels_ply:
            write_filtered_labels(scan, room, ["0", "20", "40"])
        return scan

    return run


def _twenty(name: str) -> str:
    return name if name in NYU40 else "-"


def _thirteen(name: str) -> str:
    return name if name in S3DIS else "clutter"


@dataclass(frozen=True)
class Case:
    """How a layout is written, what it can hold, and to what tolerance.

    Attributes:
        write: writes the room, gives the path to read.
        layout: that should be found out.
        holds: of frames, depth, pixel labels, points, rgb, labels, instances.
        poses, metres: tolerances of poses (and intrinsics), and of points and depth.
        call: what the layout calls a class of the room.
    """

    write: Callable[[Path, Scene], Path]
    layout: str
    holds: str
    poses: float = 1e-9
    metres: float = 1e-6
    call: Callable[[str], str] = str


IMAGES, CLOUD = "frames depth pixels ", "points rgb labels instances"
CASES = {
    "scannet": Case(_scannet, "scannet", IMAGES + CLOUD),
    "scannet, label map": Case(_filtered, "scannet", IMAGES, call=_twenty),
    "PLY and images": Case(_beside(lambda f, c: write_cloud(f / "scan.ply", c)), "cloud", IMAGES + CLOUD),
    "LAS and images": Case(
        _beside(lambda f, c: write_las(f / "scan.las", c), ""), "cloud", IMAGES + "points rgb labels", metres=1e-4
    ),
    "PCD and images": Case(_beside(lambda f, c: write_pcd(f / "scan.pcd", c, "ascii")), "cloud", IMAGES + CLOUD),
    "PCD, binary": Case(_beside(lambda f, c: write_pcd(f / "scan.pcd", c, "binary")), "cloud", IMAGES + CLOUD),
    "PCD, compressed": Case(
        _beside(lambda f, c: write_pcd(f / "scan.pcd", c, "binary_compressed")), "cloud", IMAGES + CLOUD
    ),
    "KITTI bin and images": Case(_beside(lambda f, c: write_bin(f / "scan.bin", c, 4)), "cloud", IMAGES + "points"),
    "nuScenes bin": Case(_beside(lambda f, c: write_bin(f / "scan.pcd.bin", c, 5)), "cloud", IMAGES + "points"),
    "rgb bin": Case(_beside(lambda f, c: write_bin(f / "scan.bin", c, 6)), "cloud", IMAGES + "points rgb"),
    "scannet raw": Case(_scans(True), "scannet-raw", "frames depth points rgb labels instances", 1e-6, call=_twenty),
    "scannet raw, label map": Case(
        _scans(False), "scannet-raw", "frames depth pixels points rgb labels", 1e-6, call=_twenty
    ),
    "nerfstudio": Case(_in("room", write_nerfstudio), "nerfstudio", "frames depth"),
    "blender": Case(_in("room", write_blender), "blender", "frames"),
    "llff": Case(_in("room", lambda f, s: write_llff(f, s, masks_of=(0, 1, 2))), "llff", "frames pixels"),
    "colmap bin": Case(_in("room", lambda f, s: write_colmap(f, s, binary=True)), "colmap", "frames points rgb"),
    "colmap txt": Case(_in("room", lambda f, s: write_colmap(f, s, binary=False)), "colmap", "frames points rgb"),
    "s3dis and 2D-3D-S": Case(
        _s3dis, "s3dis", "frames depth points rgb labels instances", metres=1 / 1024, call=_thirteen
    ),
    "2D-3D-S": Case(lambda f, s: write_2d3ds(f / "data", s).parent, "2d3ds", "frames depth", metres=1 / 1024),
    "pointcept": Case(_in("room", write_pointcept), "pointcept", CLOUD),
    "openscene": Case(write_openscene, "openscene", "points rgb labels"),
    "npy": Case(write_npy, "npy", "points rgb labels"),
}


def test_every_layout_is_here() -> None:
    assert {case.layout for case in CASES.values()} == {layout.name for layout in LAYOUTS if layout.open is None}


@pytest.mark.parametrize("name", CASES)
def test_the_same_room(room: Scene, tmp_path: Path, name: str) -> None:
    case = CASES[name]
    if "LAS" in name:
        pytest.importorskip("laspy")
    scene = load_scene(case.write(tmp_path / "room", room))
    assert scene.layout == case.layout
    holds = case.holds.split()
    assert ("frames" in holds) == bool(scene.frames)
    if "frames" in holds:
        _same_frames(scene, room, case, holds)
    assert ("points" in holds) == (scene.cloud is not None)
    if "points" in holds:
        _same_points(scene, room, case, holds)


def _same_frames(scene: Scene, room: Scene, case: Case, holds: list[str]) -> None:
    pairs = list(zip(sorted(scene.frames, key=_number), room.frames, strict=True))
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours.world_from_camera, theirs.world_from_camera, atol=case.poses)
        np.testing.assert_allclose(ours.camera.matrix, theirs.camera.matrix, rtol=case.poses)
        np.testing.assert_array_equal(ours.load_image(), theirs.load_image())
        assert ("depth" in holds) == (ours.depth is not None)
        if ours.depth is not None and theirs.depth is not None:
            np.testing.assert_allclose(ours.depth.load(), theirs.depth.load(), atol=case.metres)
            np.testing.assert_allclose(ours.depth.camera.matrix, theirs.depth.camera.matrix, rtol=case.poses)
        assert ("pixels" in holds) == (ours.labels is not None)
        if ours.labels is not None and theirs.labels is not None:
            expected = np.vectorize(case.call)(ids_by_name(room, theirs.labels.load()))
            np.testing.assert_array_equal(ids_by_name(scene, ours.labels.load()), expected)


def _number(frame: Frame) -> int:
    """The room's number of a frame, whatever the layout calls it: the last number in its image's name."""
    return int("".join(c if c.isdigit() else " " for c in frame.image_path.stem).split()[-1])


def _same_points(scene: Scene, room: Scene, case: Case, holds: list[str]) -> None:
    """Each point of the room is there once, at its place, in any order."""
    ours, theirs = scene.cloud, room.cloud
    assert ours is not None and theirs is not None and len(ours) == len(theirs)
    found = ours.xyz.astype(np.float64) + scene.world.origin
    distance, idx = cKDTree(found).query(theirs.xyz.astype(np.float64))
    assert distance.max() <= case.metres and len(set(idx.tolist())) == len(theirs)
    assert ("rgb" in holds) == (ours.rgb is not None)
    if ours.rgb is not None:
        np.testing.assert_array_equal(ours.rgb[idx], theirs.rgb)
    assert ("labels" in holds) == (ours.labels is not None)
    if ours.labels is not None:
        names = class_names(replace(scene, cloud=PointCloud(ours.xyz[idx], labels=ours.labels[idx])))
        assert names == [case.call(name) for name in class_names(room)]
    if "instances" in holds:
        assert ours.instances is not None and theirs.instances is not None
        _same_partition(ours.instances[idx], theirs.instances, case)


def _same_partition(ours: np.ndarray, theirs: np.ndarray, case: Case) -> None:
    """Objects are the same sets of points; S3DIS has an object for every class where the room has none."""
    own = theirs != IGNORE
    pairs = set(zip(ours[own].tolist(), theirs[own].tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    if case.layout != "s3dis":
        assert (ours[~own] == IGNORE).all()


@pytest.mark.parametrize("name", ["PLY and images", "colmap bin", "llff", "blender", "scannet", "2D-3D-S", "npy"])
def test_a_unit_of_so_many_metres(room: Scene, tmp_path: Path, name: str) -> None:
    """Read with a scale, every length is so many times as long and the world metric."""
    path, factor = CASES[name].write(tmp_path / "room", room), 2.5
    plain, scaled = load_scene(path), load_scene(path, scale=factor)
    assert scaled.world.units == "metric" and scaled.world.up == plain.world.up
    assert any("2.5 m" in note for note in scaled.notes)
    for before, after in zip(plain.frames, scaled.frames, strict=True):
        np.testing.assert_allclose(after.world_from_camera[:3, 3], before.world_from_camera[:3, 3] * factor)
        np.testing.assert_array_equal(after.world_from_camera[:3, :3], before.world_from_camera[:3, :3])
        assert after.camera == before.camera
        if before.depth is not None and after.depth is not None:
            np.testing.assert_allclose(after.depth.load(), before.depth.load() * factor, rtol=1e-6)
        if before.depth_range is not None:
            assert after.depth_range == tuple(value * factor for value in before.depth_range)
    if plain.cloud is not None and scaled.cloud is not None:
        np.testing.assert_allclose(scaled.cloud.xyz, plain.cloud.xyz * factor, rtol=1e-6)


def test_what_scaling_moves_far_away_gets_an_origin(room: Scene, tmp_path: Path) -> None:
    path = _beside(lambda f, c: write_cloud(f / "scan.ply", c))(tmp_path / "room", room)
    plain, scaled = load_scene(path), load_scene(path, scale=1e5)
    assert plain.cloud is not None and scaled.cloud is not None and any(scaled.world.origin)
    origin = np.array(scaled.world.origin)
    np.testing.assert_allclose(
        scaled.cloud.xyz + origin, plain.cloud.xyz.astype(np.float64) * 1e5, rtol=1e-6, atol=0.05
    )
    for before, after in zip(plain.frames, scaled.frames, strict=True):
        np.testing.assert_allclose(after.world_from_camera[:3, 3] + origin, before.world_from_camera[:3, 3] * 1e5)
