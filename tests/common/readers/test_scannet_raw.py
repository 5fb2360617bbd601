"""ScanNet as it is downloaded: .sens recordings, meshes, labels and objects."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plyfile import PlyData, PlyElement

from ov3d.common.readers import load_scene
from ov3d.common.readers.scannet_raw import FRAME_STEP
from ov3d.common.readers.sens import open_sens
from ov3d.common.scenes.scene import IGNORE, PointCloud, Scene
from ov3d.common.worlds.scannet_writer import write_cloud
from tests.common.readers.layouts import assert_same_frames, error_of

HEADER_BYTES = 4 + 8 + 4 + 256 + 8 + 16 + 4 + 8


def _png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG")
    return stream.getvalue()


def _matrix(room: Scene) -> np.ndarray:
    matrix = np.eye(4, dtype="<f4")
    matrix[:3, :3] = room.frames[0].camera.matrix
    matrix[:2, 2] -= 0.5
    return matrix


def write_sens(
    path: Path, room: Scene, *, codecs: tuple[int, int] = (1, 1), steps: float = 1000.0, lost: int | None = None
) -> None:
    """The room's frames as every `FRAME_STEP`-th of a recording; those between are of another colour."""
    camera = room.frames[0].camera
    out = struct.pack("<IQ", 4, 4) + b"cam0"
    for matrix in (_matrix(room), np.eye(4, dtype="<f4")) * 2:
        out += matrix.tobytes()
    size = (camera.width, camera.height)
    out += struct.pack("<ii4IfQ", *codecs, *size, *size, steps, FRAME_STEP * (len(room.frames) - 1) + 1)
    assert len(out) == HEADER_BYTES
    junk = np.full((camera.height, camera.width), 7, "<u2").tobytes()
    for number in range(FRAME_STEP * (len(room.frames) - 1) + 1):
        frame = room.frames[number // FRAME_STEP]
        colour, depth = b"not looked at", junk
        if number % FRAME_STEP == 0:
            assert frame.depth is not None
            colour = _png(frame.load_image())
            depth = np.rint(frame.depth.load() * steps).astype("<u2").tobytes()
        pose = np.full((4, 4), -np.inf) if number == lost else frame.world_from_camera
        depth = zlib.compress(depth) if codecs[1] == 1 else depth
        out += pose.astype("<f4").tobytes() + struct.pack("<QQQQ", 1, 2, len(colour), len(depth)) + colour + depth
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(out)


def _write_labels(path: Path, num: int, ids: np.ndarray) -> None:
    vertices = np.zeros(num, [("x", "f4"), ("y", "f4"), ("z", "f4"), ("label", "u2")])
    vertices["label"] = ids
    PlyData([PlyElement.describe(vertices, "vertex")]).write(str(path))


@pytest.fixture
def scan(room: Scene, tmp_path: Path) -> Path:
    """A scan with mesh, labels and objects of nine vertices."""
    folder = tmp_path / "scene0000_00"
    write_sens(folder / "scene0000_00.sens", room)
    assert room.cloud is not None and room.cloud.rgb is not None
    write_cloud(folder / "scene0000_00_vh_clean_2.ply", PointCloud(room.cloud.xyz[:9], room.cloud.rgb[:9]))
    ids = np.array([0, 1, 2, 13, 14, 36, 39, 40, 99])
    _write_labels(folder / "scene0000_00_vh_clean_2.labels.ply", 9, ids)
    segments = {"segIndices": [70, 70, 5, 5, 6, 6, 9, 9, 9]}
    (folder / "scene0000_00_vh_clean_2.0.010000.segs.json").write_text(json.dumps(segments))
    groups = {"segGroups": [{"objectId": 0, "segments": [70, 6]}, {"objectId": 1, "segments": [9]}]}
    (folder / "scene0000_00.aggregation.json").write_text(json.dumps(groups))
    return folder


def test_a_room_in_this_layout_is_the_same_scene(room: Scene, scan: Path) -> None:
    scene = load_scene(scan)
    assert (scene.name, scene.layout) == ("scene0000_00", "scannet-raw")
    assert [frame.name for frame in scene.frames] == ["0", "20", "40"]
    for ours, theirs in zip(scene.frames, room.frames, strict=True):
        np.testing.assert_allclose(ours.world_from_camera, theirs.world_from_camera, atol=1e-6)  # fp32 in the file
        np.testing.assert_allclose(ours.camera.matrix, theirs.camera.matrix, rtol=1e-6)
        np.testing.assert_array_equal(ours.load_image(), theirs.load_image())
        assert ours.depth is not None and theirs.depth is not None
        np.testing.assert_allclose(ours.depth.load(), theirs.depth.load(), atol=1e-6)
    cloud = scene.cloud
    assert cloud is not None and room.cloud is not None
    np.testing.assert_array_equal(cloud.xyz, room.cloud.xyz[:9])
    assert cloud.labels is not None and cloud.instances is not None
    names = [scene.classes[label] if label != IGNORE else "-" for label in cloud.labels]
    assert names == ["-", "wall", "floor", "-", "desk", "bathtub", "otherfurniture", "-", "-"]
    assert cloud.instances.tolist() == [0, 0, IGNORE, IGNORE, 0, 0, 1, 1, 1]
    assert scene.world.units == "metric"
    assert scene.notes[0].startswith("every 20th of 41 frames of scene0000_00.sens is used, exported to ")


@pytest.mark.parametrize(("depth_codec", "steps"), [(0, 1000.0), (1, 4000.0)])
def test_raw_depth_and_other_steps(room: Scene, tmp_path: Path, depth_codec: int, steps: float) -> None:
    write_sens(tmp_path / "a.sens", room, codecs=(1, depth_codec), steps=steps)
    scene = load_scene(tmp_path / "a.sens")
    assert scene.cloud is None and "a_vh_clean_2.ply is missing" in scene.notes[-1]
    for ours, theirs in zip(scene.frames, room.frames, strict=True):
        assert ours.depth is not None and theirs.depth is not None
        np.testing.assert_allclose(ours.depth.load(), theirs.depth.load(), atol=0.5 / steps + 1e-6)


def test_a_scan_is_exported_once_and_again_where_that_was_cut_off(room: Scene, scan: Path) -> None:
    first = load_scene(scan)
    exported = first.frames[0].image_path.parents[1]
    times = {path: path.stat().st_mtime_ns for path in exported.rglob("*") if path.is_file()}
    assert len(times) == 4 + 3 * 3 + 1
    load_scene(scan)
    assert times == {path: path.stat().st_mtime_ns for path in times}
    first.frames[1].image_path.unlink()
    assert_same_frames(load_scene(scan), first)
    (exported / "export.json").write_text("{")
    assert_same_frames(load_scene(scan), first)
    os.utime(scan / "scene0000_00.sens", (1, 1))  # another recording under the same name
    assert load_scene(scan).frames[0].image_path.parents[1] != exported


def test_lost_tracking_is_counted(room: Scene, tmp_path: Path) -> None:
    write_sens(tmp_path / "a.sens", room, lost=20)
    scene = load_scene(tmp_path)
    assert [frame.name for frame in scene.frames] == ["0", "40"]
    assert any("1 frame has a pose that is not finite" in note for note in scene.notes)


def test_only_every_step_th_frame_is_read(scan: Path) -> None:
    with open_sens(scan / "scene0000_00.sens") as sens:
        assert sens.header.num_frames == 41 and sens.header.colour_ending == ".png"
        assert [frame.number for frame in sens.frames(20)] == [0, 20, 40]


def test_a_recording_cut_anywhere_is_refused(scan: Path) -> None:
    path = scan / "scene0000_00.sens"
    whole = path.read_bytes()
    for length in (0, 3, HEADER_BYTES - 1):
        path.write_bytes(whole[:length])
        assert f"ends after {length} bytes, in its header" in error_of(scan).message
    for length, frame in ((HEADER_BYTES, 0), (HEADER_BYTES + 99, 0), (len(whole) - 1, 40)):
        path.write_bytes(whole[:length])
        assert f"ends after {length} bytes, in frame {frame} of 41" in error_of(scan).message


def test_what_is_wrong_is_said_in_one_line(room: Scene, scan: Path) -> None:
    path = scan / "scene0000_00.sens"
    whole = path.read_bytes()

    def message(at: int, form: str, *values: float) -> str:
        data = bytearray(whole)
        struct.pack_into("<" + form, data, at, *values)
        path.write_bytes(bytes(data))
        return error_of(scan).message

    assert "starts with version 3" in message(0, "I", 3)
    assert "sensor name of 99999999 bytes" in message(4, "Q", 99_999_999)
    assert "colour in codec 0 and depth in codec 2" in message(272, "ii", 0, 2)
    assert "states 0 frames" in message(HEADER_BYTES - 8, "Q", 0)
    assert "nan depth steps" in message(HEADER_BYTES - 12, "f", float("nan"))
    assert "not 96x73 values of 16 bits" in message(HEADER_BYTES - 16, "I", 73)
    colour_bytes = struct.unpack_from("<Q", whole, HEADER_BYTES + 80)[0]
    assert "depth of frame 0 of" in message(HEADER_BYTES + 96 + colour_bytes, "B", 255)
    path.write_bytes(whole)
    labels = scan / "scene0000_00_vh_clean_2.labels.ply"
    _write_labels(labels, 8, np.zeros(8))
    assert "has 8 vertices, but scene0000_00_vh_clean_2.ply has 9" in error_of(scan).message
    _write_labels(labels, 9, np.zeros(9))
    segments = scan / "scene0000_00_vh_clean_2.0.010000.segs.json"
    for text, says in (
        ('{"segIndices": [1, 2]}', "has 2 segment ids, but the mesh has 9 vertices"),
        ('{"segIndices": ["a"]}', "does not list objects and segments"),
        ('{"segIndices": 3}', "has no list `segIndices`"),
        ("{", "is not valid JSON"),
    ):
        segments.write_text(text)
        assert says in error_of(scan).message
    segments.unlink()
    scene = load_scene(scan)
    assert scene.cloud is not None and scene.cloud.instances is None
    (scan / "b.sens").write_bytes(b"")
    assert "is not a scene" in error_of(scan, "scannet-raw").message
