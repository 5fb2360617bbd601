"""nerfstudio's transforms.json: what it may say, and what it may say wrongly."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ov3d.common.readers import load_scene, open_source
from ov3d.common.scenes.cameras import transform
from ov3d.common.scenes.cloud_from_depth import with_cloud
from ov3d.common.scenes.scene import Scene
from ov3d.common.worlds.scannet_writer import write_cloud
from tests.common.readers.layouts import assert_same_frames, error_of, opengl_pose, write_json, write_nerfstudio

Data = dict[str, Any]


def test_a_room_in_this_layout_is_the_same_scene(room: Scene, tmp_path: Path) -> None:
    write_nerfstudio(tmp_path / "room", room)
    scene = load_scene(tmp_path / "room")
    assert (scene.name, scene.layout, scene.notes) == ("room", "nerfstudio", ())
    assert_same_frames(scene, room)
    assert scene.world.units == "metric" and scene.world.up == (0, 0, 1)
    for ours, theirs in zip(scene.frames, room.frames, strict=True):
        assert ours.depth is not None and theirs.depth is not None
        np.testing.assert_array_equal(ours.depth.load(), theirs.depth.load())
    made, expected = (with_cloud(replace(s, cloud=None), voxel_size=0.1).cloud for s in (scene, room))
    assert made is not None and expected is not None
    np.testing.assert_allclose(made.xyz, expected.xyz, atol=1e-5)


def test_the_file_itself_may_be_named_and_units_are_arbitrary_without_depth(room: Scene, tmp_path: Path) -> None:
    write_nerfstudio(tmp_path / "room", room, with_depth=False)
    scene = load_scene(tmp_path / "room" / "transforms.json")
    assert (scene.name, scene.world.units) == ("room", "arbitrary")
    assert_same_frames(scene, room)
    assert open_source(tmp_path / "room").ids == ("room",)


def test_intrinsics_of_a_frame_win_and_an_angle_stands_in(room: Scene, tmp_path: Path) -> None:
    data = write_nerfstudio(tmp_path, room)
    for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
        del data[key]
    data["camera_angle_x"] = 2 * math.atan(48 / 70)
    data["frames"][1] |= {"fl_x": 90.0, "fl_y": 91.0, "cx": 40.0}
    write_json(tmp_path / "transforms.json", data)
    first, second, _ = (frame.camera for frame in load_scene(tmp_path).frames)
    assert (first.fx, first.fy, first.cx, first.cy) == pytest.approx((70, 70, 48, 36))
    assert (second.fx, second.fy, second.cx, second.cy) == pytest.approx((90, 91, 40, 36))


@pytest.mark.parametrize(
    ("stated", "model", "coefficients"),
    [
        ({"k1": 0.1, "p2": 0.01}, "opencv", (0.1, 0, 0, 0.01, 0, 0, 0, 0)),
        ({"camera_model": "FULL_OPENCV", "k1": 0.1, "k4": 0.02}, "opencv", (0.1, 0, 0, 0, 0, 0.02, 0, 0)),
        ({"camera_model": "OPENCV_FISHEYE", "k4": 0.01}, "fisheye", (0, 0, 0, 0.01)),
        ({"camera_model": None, "is_fisheye": True, "k2": 0.01}, "fisheye", (0, 0.01, 0, 0)),
        ({"camera_model": "PINHOLE", "k1": 0.1}, None, None),
        ({"k1": 0.0}, None, None),
    ],
)
def test_lenses(room: Scene, tmp_path: Path, stated: Data, model: str | None, coefficients: Any) -> None:
    data = write_nerfstudio(tmp_path, room) | stated
    if data["camera_model"] is None:
        del data["camera_model"]
    write_json(tmp_path / "transforms.json", data)
    frame = load_scene(tmp_path).frames[0]
    lens = frame.distortion
    assert (lens and lens.model, lens and lens.coefficients) == (model, coefficients)
    assert frame.load_image().shape == (72, 96, 3)
    assert frame.depth is not None and frame.depth.distortion == lens
    assert frame.depth.load().shape == (72, 96)
    assert (frame.camera.fx != room.frames[0].camera.fx) == (lens is not None)


def test_resized_images_and_depth_get_resized_intrinsics(room: Scene, tmp_path: Path) -> None:
    write_nerfstudio(tmp_path, room)
    for path in (tmp_path / "images").iterdir():
        Image.open(path).resize((48, 36)).save(path)
    frame = load_scene(tmp_path).frames[0]
    assert (frame.camera.width, frame.camera.height) == (48, 36)
    np.testing.assert_allclose(frame.camera.matrix[:2], room.frames[0].camera.matrix[:2] / 2)
    assert frame.depth is not None
    np.testing.assert_allclose(frame.depth.camera.matrix, room.frames[0].camera.matrix)
    assert frame.depth.load().shape == (72, 96)


@pytest.mark.parametrize(("orientation", "turns"), [(6, 1), (3, 2), (8, 3)])
def test_images_that_exif_turns_take_their_cameras_with_them(
    room: Scene, tmp_path: Path, orientation: int, turns: int
) -> None:
    """Stored pixels were calibrated: a world point must stay on its pixel of the upright image."""
    data = write_nerfstudio(tmp_path, room, with_depth=False) | {"k1": 0.05, "p1": 0.01, "p2": -0.02}
    write_json(tmp_path / "transforms.json", data)
    plain = load_scene(tmp_path)
    pixels = [frame.load_image() for frame in plain.frames]
    exif = Image.Exif()
    exif[0x0112] = orientation
    for path in (tmp_path / "images").iterdir():
        Image.open(path).save(path, exif=exif)
    turned = load_scene(tmp_path)
    world = np.array([0.1, 0.2, 0.3]) + plain.frames[0].world_from_camera[:3, :4] @ np.array([0, 0, 2, 1])
    for before, after, stored in zip(plain.frames, turned.frames, pixels, strict=True):
        assert after.camera.width == (before.camera.height if turns % 2 else before.camera.width)
        uv, z = (
            value[0] for value in before.camera.project(transform(np.linalg.inv(before.world_from_camera), world[None]))
        )
        new_uv, new_z = (
            value[0] for value in after.camera.project(transform(np.linalg.inv(after.world_from_camera), world[None]))
        )
        w, h = 96, 72
        expected = {1: (h - uv[1], uv[0]), 2: (w - uv[0], h - uv[1]), 3: (uv[1], w - uv[0])}[turns]
        np.testing.assert_allclose(new_uv, expected, atol=1e-4)
        assert new_z == pytest.approx(z)
        error = after.load_image().astype(int) - np.rot90(stored, -turns).astype(int)
        assert np.abs(error).max() <= 1


def test_masks_splits_points_and_what_is_missing(room: Scene, tmp_path: Path) -> None:
    data = write_nerfstudio(tmp_path, room)
    mask = np.zeros((72, 96), np.uint8)
    mask[:30] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    data["frames"][0]["mask_path"] = "mask.png"
    data["frames"].append({"file_path": "images/gone.png", "transform_matrix": opengl_pose(room.frames[0])})
    data["train_filenames"] = ["images/2.png", "images/gone.png"]
    data["test_filenames"] = ["images/0.png"]
    data["ply_file_path"] = "points.ply"
    assert room.cloud is not None
    write_cloud(tmp_path / "points.ply", room.cloud)
    write_json(tmp_path / "transforms.json", data)
    scene = load_scene(tmp_path)
    np.testing.assert_array_equal(scene.frames[0].load_mask(), mask > 0)
    assert scene.frames[1].load_mask().all()
    assert scene.splits == {"train": ("2",), "test": ("0",)}
    assert scene.with_frames(["2"]).splits == {"train": ("2",), "test": ()}
    assert scene.cloud is not None
    np.testing.assert_array_equal(scene.cloud.xyz, room.cloud.xyz)
    assert any("1 of 4 listed photographs: missing (gone.png)" in note for note in scene.notes)
    assert any("1 photographs have masks" in note for note in scene.notes)


def test_a_tilted_world_has_the_up_of_its_cameras(room: Scene, tmp_path: Path) -> None:
    data = write_nerfstudio(tmp_path, room)
    tilt = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    for frame in data["frames"]:
        frame["transform_matrix"] = (tilt @ np.array(frame["transform_matrix"])).tolist()
    write_json(tmp_path / "transforms.json", data)
    up = np.array(load_scene(tmp_path).world.up)
    assert up @ (0, -1, 0) > 0.8 and np.linalg.norm(up) == pytest.approx(1)


def test_far_coordinates_get_an_origin(room: Scene, tmp_path: Path) -> None:
    data = write_nerfstudio(tmp_path, room)
    for frame in data["frames"]:
        frame["transform_matrix"][0][3] += 500_000.0
    write_json(tmp_path / "transforms.json", data)
    scene = load_scene(tmp_path)
    assert abs(scene.world.origin[0] - 500_000) < 100
    moved = [f.world_from_camera[0, 3] + scene.world.origin[0] - 500_000 for f in scene.frames]
    np.testing.assert_allclose(moved, [f.world_from_camera[0, 3] for f in room.frames], atol=1e-9)


def _set(key: str, value: Any) -> Callable[[Data], None]:
    return lambda data: data.__setitem__(key, value)


def _set_frame(key: str, value: Any) -> Callable[[Data], None]:
    return lambda data: data["frames"][1].__setitem__(key, value)


REFLECTED = np.diag([1.0, 1.0, -1.0, 1.0]).tolist()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_set("frames", []), "lists no photograph"),
        (_set("frames", {}), "has no list `frames`"),
        (lambda data: data.pop("frames"), "has no list `frames`"),
        (_set_frame("file_path", 3), "Frame 1 .* has no file_path"),
        (_set_frame("file_path", "images/0.png"), "lists images/0.png twice"),
        (lambda data: data["frames"][1].pop("transform_matrix"), r"frame images/1.png\) has no 4x4 transform_matrix"),
        (_set_frame("transform_matrix", [[1, 2], [3]]), "no 4x4 transform_matrix"),
        (_set_frame("transform_matrix", "eye"), "no 4x4 transform_matrix"),
        (_set_frame("transform_matrix", REFLECTED), "pose of 1.png .*reflects"),
        (_set_frame("transform_matrix", (2 * np.eye(4)).tolist()), "pose of 1.png .*last row"),
        (_set("fl_x", "wide"), "has fl_x = 'wide'"),
        (_set("fl_x", -3), "cannot form an image"),
        (_set("k1", True), "has k1 = True"),
        (_set("k1", -80.0), "beyond use"),
        (_set("k4", 0.1), "k4 to k6 with camera_model OPENCV"),
        (_set("camera_model", "EQUIRECTANGULAR"), "camera_model 'EQUIRECTANGULAR'"),
        (_set("w", 50), "1?.png is 96x72, its intrinsics .* are for 50x72"),
        (lambda data: data.pop("fl_x") and data.pop("fl_y"), "has no focal length"),
        (lambda data: data.pop("fl_x") and data.pop("fl_y") and data.update(camera_angle_x=4), "camera_angle_x 4"),
        (_set("train_filenames", ["images/9.png"]), "lists images/9.png, which is not a frame"),
        (_set("train_filenames", "all"), "is not a list of strings"),
        (_set("depth_unit_scale_factor", None), "depth_unit_scale_factor = None"),
        (_set_frame("depth_file_path", "depth/9.png"), "depth image .*9.png, which cannot be read"),
        (_set_frame("depth_file_path", 9), "depth_file_path = 9"),
        (_set_frame("mask_path", "9.png"), "mask .*9.png, which does not exist"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    room: Scene, tmp_path: Path, spoil: Callable[[Data], Any], says: str
) -> None:
    data = write_nerfstudio(tmp_path, room)
    spoil(data)
    write_json(tmp_path / "transforms.json", data)
    error = error_of(tmp_path)
    assert re.search(says, error.message), error.message


def test_files_that_are_cut_or_gone(room: Scene, tmp_path: Path) -> None:
    write_nerfstudio(tmp_path, room)
    text = (tmp_path / "transforms.json").read_text()
    (tmp_path / "transforms.json").write_text(text[: len(text) // 2])
    assert "is not valid JSON" in error_of(tmp_path).message
    (tmp_path / "transforms.json").write_bytes(b"\xff\xfe{")
    assert "cannot be read" in error_of(tmp_path).message
    (tmp_path / "transforms.json").write_text(text)
    for name in ("0", "1"):
        (tmp_path / "images" / f"{name}.png").write_bytes(b"nothing")
    assert load_scene(tmp_path).notes == ("2 photographs that cannot be read: left out (0.png, 1.png)",)
    shutil.rmtree(tmp_path / "images")
    assert "None of the 3 photographs" in error_of(tmp_path).message


def test_a_pose_that_is_not_finite_is_left_out(room: Scene, tmp_path: Path) -> None:
    data = write_nerfstudio(tmp_path, room)
    data["frames"][1]["transform_matrix"][0][3] = float("nan")
    write_json(tmp_path / "transforms.json", data)
    scene = load_scene(tmp_path)
    assert [frame.name for frame in scene.frames] == ["0", "2"]
    assert "1 photographs with non-finite poses: left out (1.png)" in scene.notes


def test_mirrored_pixels_are_refused(room: Scene, tmp_path: Path) -> None:
    write_nerfstudio(tmp_path, room)
    exif = Image.Exif()
    exif[0x0112] = 2
    Image.open(tmp_path / "images" / "1.png").save(tmp_path / "images" / "1.png", exif=exif)
    assert "mirrored by its EXIF" in error_of(tmp_path).message


def test_same_names_in_several_folders_stay_apart(room: Scene, tmp_path: Path) -> None:
    data = write_nerfstudio(tmp_path, room)
    (tmp_path / "images" / "left").mkdir()
    shutil.copy(tmp_path / "images" / "1.png", tmp_path / "images" / "left" / "0.png")
    data["frames"][1]["file_path"] = ".\\images\\left\\0"  # a Windows path without an ending
    write_json(tmp_path / "transforms.json", data)
    assert [frame.name for frame in load_scene(tmp_path).frames] == ["images_0", "images_2", "images_left_0"]


@pytest.mark.shared_data
def test_the_real_fox(shared_data: Path) -> None:
    scene = load_scene(shared_data / "nerf" / "fox")
    assert scene.layout == "nerfstudio" and len(scene.frames) == 50
    assert scene.notes[0].startswith("17 of 67 listed photographs: missing (")
    assert scene.world.units == "arbitrary" and scene.world.up == (0, 0, 1)
    assert [frame.name for frame in scene.frames] == sorted(frame.name for frame in scene.frames)
    frame = scene.frames[0]
    stated = json.loads((shared_data / "nerf" / "fox" / "transforms.json").read_text())
    assert frame.distortion is not None
    assert frame.distortion.coefficients[:4] == tuple(stated[key] for key in ("k1", "k2", "p1", "p2"))
    assert frame.distortion.camera.fx == stated["fl_x"]
    image = frame.load_image()
    assert image.shape == (1920, 1080, 3) and 0.98 < frame.camera.fx / stated["fl_x"] < 1.05
    # All cameras look at the fox: the point nearest to their axes lies in front of each, and in the middle of its image.
    centres = np.array([f.world_from_camera[:3, 3] for f in scene.frames])
    axes = np.array([f.world_from_camera[:3, 2] for f in scene.frames])
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    target = np.linalg.solve(across.sum(0), (across @ centres[:, :, None]).sum(0))[:, 0]
    for frame in scene.frames:
        uv, z = frame.camera.project(transform(np.linalg.inv(frame.world_from_camera), target[None]))
        assert z[0] > 0 and 0 < uv[0, 0] < 1080 and 0 < uv[0, 1] < 1920
