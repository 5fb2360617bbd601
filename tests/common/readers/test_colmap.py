"""COLMAP sparse models, binary and text."""

from __future__ import annotations

import re
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ov3d.common.readers import load_scene
from ov3d.common.scenes.scene import Scene
from tests.common.readers.layouts import COLMAP_PARAMETERS, assert_same_frames, error_of, write_colmap

BINARY = pytest.mark.parametrize("binary", [True, False], ids=["bin", "txt"])


@BINARY
def test_a_room_in_this_layout_is_the_same_scene(room: Scene, tmp_path: Path, binary: bool) -> None:
    write_colmap(tmp_path / "room", room, binary=binary)
    scene = load_scene(tmp_path / "room")
    assert (scene.name, scene.layout, scene.notes) == ("room", "colmap", ())
    assert_same_frames(scene, room)
    assert scene.cloud is not None and room.cloud is not None
    np.testing.assert_array_equal(scene.cloud.xyz, room.cloud.xyz)
    np.testing.assert_array_equal(scene.cloud.rgb, room.cloud.rgb)
    assert scene.world.units == "arbitrary" and np.allclose(scene.world.up, (0, 0, 1), atol=0.05)


@BINARY
@pytest.mark.parametrize(
    ("model", "distortion", "read_as", "coefficients"),
    [
        ("SIMPLE_PINHOLE", {}, None, None),
        ("SIMPLE_RADIAL", {"k1": 0.05}, "opencv", (0.05, 0, 0, 0, 0, 0, 0, 0)),
        ("RADIAL", {"k1": 0.05, "k2": -0.01}, "opencv", (0.05, -0.01, 0, 0, 0, 0, 0, 0)),
        ("OPENCV", {"k1": 0.05, "p1": 0.01, "p2": 0.02}, "opencv", (0.05, 0, 0.01, 0.02, 0, 0, 0, 0)),
        ("OPENCV", {}, None, None),
        ("OPENCV_FISHEYE", {"k1": 0.05, "k4": 0.01}, "fisheye", (0.05, 0, 0, 0.01)),
        ("FULL_OPENCV", {"k3": 0.03, "k6": 0.06, "p2": 0.02}, "opencv", (0, 0, 0, 0.02, 0.03, 0, 0, 0.06)),
        ("SIMPLE_RADIAL_FISHEYE", {"k1": 0.05}, "fisheye", (0.05, 0, 0, 0)),
        ("RADIAL_FISHEYE", {"k1": 0.05, "k2": 0.01}, "fisheye", (0.05, 0.01, 0, 0)),
    ],
)
def test_camera_models(
    room: Scene,
    tmp_path: Path,
    binary: bool,
    model: str,
    distortion: dict[str, float],
    read_as: str | None,
    coefficients: tuple[float, ...] | None,
) -> None:
    write_colmap(tmp_path, room, binary=binary, model=model, distortion=distortion)
    frame, expected = load_scene(tmp_path).frames[0], room.frames[0]
    lens = frame.distortion
    assert (lens and lens.model, lens and lens.coefficients) == (read_as, coefficients)
    if lens is None:
        np.testing.assert_allclose(frame.camera.matrix, expected.camera.matrix)
    else:
        np.testing.assert_allclose(lens.camera.matrix, expected.camera.matrix)
        assert frame.load_image().shape == (72, 96, 3)


@pytest.mark.parametrize("inner", ["sparse/0", "sparse", "."])
def test_the_model_may_be_named_and_may_lie_elsewhere(room: Scene, tmp_path: Path, inner: str) -> None:
    sparse = write_colmap(tmp_path / "room", room, binary=True)
    if inner != "sparse/0":
        for path in sparse.iterdir():
            shutil.move(path, tmp_path / "room" / inner / path.name)
        sparse.rmdir()
    for path in {tmp_path / "room" / inner, tmp_path / "room"}:
        scene = load_scene(path)
        assert scene.name == "room"
        assert_same_frames(scene, room)


def test_sub_models_missing_images_and_missing_points_are_noted(room: Scene, tmp_path: Path) -> None:
    sparse = write_colmap(tmp_path, room, binary=True)
    shutil.copytree(sparse, sparse.parent / "1")
    (tmp_path / "images" / "1.png").unlink()
    (sparse / "points3D.bin").unlink()
    scene = load_scene(tmp_path)
    assert [frame.name for frame in scene.frames] == ["0", "2"] and scene.cloud is None
    assert scene.notes == (
        "1 other sub-models, each in its own coordinates: left out (1)",
        "1 of 3 listed photographs: missing (1.png)",
        "there is no points3D.bin: the scene has no points",
    )


def test_images_in_a_smaller_folder_are_found_and_intrinsics_follow(room: Scene, tmp_path: Path) -> None:
    write_colmap(tmp_path, room, binary=True)
    (tmp_path / "images").rename(tmp_path / "images_2")
    for path in (tmp_path / "images_2").iterdir():
        Image.open(path).resize((48, 36)).save(path)
    camera = load_scene(tmp_path).frames[0].camera
    np.testing.assert_allclose(camera.matrix[:2], room.frames[0].camera.matrix[:2] / 2)


def test_geographic_coordinates_keep_their_millimetres(room: Scene, tmp_path: Path) -> None:
    assert room.cloud is not None
    far = np.array([400_000.0, 5_000_000.0, 100.0])
    frames = []
    for frame in room.frames:
        pose = frame.world_from_camera.copy()
        pose[:3, 3] += far
        frames.append(replace(frame, world_from_camera=pose))
    sparse = write_colmap(tmp_path, replace(room, frames=tuple(frames)), binary=True)
    data = bytearray((sparse / "points3D.bin").read_bytes())
    at = 8
    for idx, xyz in enumerate(room.cloud.xyz.astype(np.float64) + far):
        data[at + 8 : at + 32] = struct.pack("<3d", *xyz)
        at += 51 + 8 * (idx % 3)
    (sparse / "points3D.bin").write_bytes(bytes(data))
    scene = load_scene(tmp_path)
    assert scene.cloud is not None
    found = scene.cloud.xyz + np.array(scene.world.origin)
    assert np.abs(found - far - room.cloud.xyz).max() < 5e-5
    poses = [f.world_from_camera[:3, 3] + scene.world.origin - far for f in scene.frames]
    np.testing.assert_allclose(poses, [f.world_from_camera[:3, 3] for f in room.frames], atol=1e-6)


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
def test_binary_files_cut_anywhere_are_refused(room: Scene, tmp_path: Path, name: str) -> None:
    sparse = write_colmap(tmp_path, room, binary=True)
    whole = (sparse / name).read_bytes()
    for length in sorted({0, 7, 20, len(whole) // 3, len(whole) // 2, len(whole) - 1}):
        (sparse / name).write_bytes(whole[:length])
        message = error_of(tmp_path).message
        assert f"{name} ends after {length} bytes" in message
    (sparse / name).write_bytes(whole + b"\0")
    assert "1 bytes after them" in error_of(tmp_path).message


def _line(name: str, number: int, text: str) -> Callable[[Path], None]:
    def change(sparse: Path) -> None:
        lines = (sparse / name).read_text().splitlines()
        lines[number] = text
        (sparse / name).write_text("\n".join(lines) + "\n")

    return change


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_line("cameras.txt", 1, "7 PINHOLE 96 72 80.0 80.0"), r"Line 1 of .*cameras.txt .* is not ID MODEL"),
        (_line("cameras.txt", 1, "7 PINHOLE 96 wide 80 80 48 36"), r"Line 1 of .*cameras.txt"),
        (_line("cameras.txt", 1, "7 FOV 96 72 80 80 48 36 0.1"), "model FOV, which ov3d cannot undistort"),
        (_line("cameras.txt", 1, "7 PINHOLE 96 72 -80 80 48 36"), "cannot form an image"),
        (_line("cameras.txt", 1, "8 PINHOLE 96 72 80 80 48 36"), "0.png camera 7, which is not in cameras.txt"),
        (_line("cameras.txt", 1, "7 PINHOLE 96 96 80 80 48 48"), "0.png is 96x72, its intrinsics .*96x96"),
        (_line("images.txt", 3, "2 1 0 0 0 0 0 7 1.png"), "Line 3 of .*images.txt .* is not ID QW"),
        (_line("images.txt", 3, "2 1 0 0 0 0 0 0 7 0.png"), "lists 0.png twice"),
        (_line("points3D.txt", 0, "1 0 0 0 300 0 0 0.5"), "Line 1 of .*points3D.txt"),
        (_line("points3D.txt", 2, "1 0 0"), "Line 3 of .*points3D.txt"),
        (lambda sparse: (sparse / "images.txt").write_text("# none\n"), "lists no photograph"),
        (lambda sparse: shutil.rmtree(sparse.parents[1] / "images"), "None of the 3 photographs"),
        (lambda sparse: (sparse / "images.txt").unlink(), "is not a scene"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    room: Scene, tmp_path: Path, spoil: Callable[[Path], object], says: str
) -> None:
    spoil(write_colmap(tmp_path, room, binary=False))
    assert re.search(says, error_of(tmp_path).message)


def test_unknown_models_and_lost_poses(room: Scene, tmp_path: Path) -> None:
    sparse = write_colmap(tmp_path, room, binary=True)
    images = bytearray((sparse / "images.bin").read_bytes())
    images[12:44] = bytes(32)  # the first quaternion
    (sparse / "images.bin").write_bytes(bytes(images))
    assert "non-finite poses: left out (0.png)" in load_scene(tmp_path).notes[0]
    cameras = bytearray((sparse / "cameras.bin").read_bytes())
    for number, says in ((99, "unknown model number 99"), (COLMAP_PARAMETERS["FOV"][0], "model FOV")):
        cameras[12:16] = struct.pack("<i", number)
        (sparse / "cameras.bin").write_bytes(bytes(cameras))
        assert says in error_of(tmp_path).message


def test_points_that_are_not_finite_are_left_out(room: Scene, tmp_path: Path) -> None:
    sparse = write_colmap(tmp_path, room, binary=False)
    _line("points3D.txt", 0, "1 nan 0 0 1 2 3 0.5")(sparse)
    scene = load_scene(tmp_path)
    assert scene.cloud is not None and room.cloud is not None
    assert len(scene.cloud) == len(room.cloud) - 1 and "are not finite and are left out" in scene.notes[0]
