"""S3DIS with its damaged lines, 2D-3D-S, ScanNet's label map, LERF-OVS annotations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ov3d.common.readers import load_scene, open_source
from ov3d.common.readers.label_map import find_label_map, read_label_map
from ov3d.common.scenes.scene import IGNORE, LabelImage, PolygonMasks, Scene
from tests.common.readers.dataset_writers import (
    write_2d3ds,
    write_filtered_labels,
    write_lerf_annotations,
    write_s3dis,
    write_scannet_raw,
)
from tests.common.readers.layouts import error_of, write_colmap, write_nerfstudio

# ------------------------------------------------------------------------------------------------------------- S3DIS


def _room(folder: Path, **files: bytes) -> Path:
    (folder / "Annotations").mkdir(parents=True)
    for name, data in files.items():
        (folder / "Annotations" / f"{name}.txt").write_bytes(data)
    return folder


GOOD = b"1.0 2.0 3.0 10 20 30\n"


def test_the_published_damage_is_repaired(tmp_path: Path) -> None:
    """Known places: a byte that lost one bit stands for a 0, a 6, a space."""
    lines = [
        b"-22.069 6.103.0\x100000 2.1 7 8 9\n".replace(b"6.103.0", b"103.0"),
        b"1.5 -9.1\x160 2.2 7 8 9\n",
        b"1.5 2.5 3.5 170 185\x00187\n",
    ]
    scene = load_scene(_room(tmp_path / "hallway_6", ceiling_1=GOOD * 300 + b"".join(lines), stairs_1=GOOD))
    assert scene.cloud is not None and scene.cloud.rgb is not None and scene.cloud.labels is not None
    np.testing.assert_allclose(
        scene.cloud.xyz[300:303], [[-22.069, 103.0, 2.1], [1.5, -9.16, 2.2], [1.5, 2.5, 3.5]], rtol=1e-6
    )
    assert scene.cloud.rgb[302].tolist() == [170, 185, 187]
    assert [scene.classes[label] for label in scene.cloud.labels[[0, -1]]] == ["ceiling", "clutter"]
    assert "3 damaged bytes are repaired (each had lost one bit)" in scene.notes
    assert "read as clutter: stairs" in scene.notes


def test_lines_that_are_none_are_counted_and_many_are_refused(tmp_path: Path) -> None:
    data = GOOD * 200 + b"1 2 3 4 5\n" + "1 2 3é 4 5 6\n".encode()
    scene = load_scene(_room(tmp_path / "a", wall_1=data))
    assert scene.cloud is not None and len(scene.cloud) == 200
    assert "2 lines that are not x y z r g b are left out" in scene.notes
    for number, (bad, says) in enumerate(
        ((b"", "0 of 0 lines"), (GOOD + b"1 2\n" * 3, "3 of 4 lines"), (b"a picture \x89PNG", "1 of 1 lines"))
    ):
        room = _room(tmp_path / f"b{number}", wall_1=GOOD, floor_1=bad)
        error = error_of(room)
        assert "floor_1.txt" in error.message and says in error.message
    assert "for Annotations/<class>_<n>.txt" in error_of(_room(tmp_path / "c"), "s3dis").message


def test_an_area_is_a_data_set_of_its_rooms_with_their_photographs(room: Scene, tmp_path: Path) -> None:
    area = tmp_path / "Area_5"
    write_s3dis(area / "office_1", room)
    write_s3dis(area / "office_10", room)
    write_2d3ds(area / "data", room)
    write_2d3ds(tmp_path / "area_5b" / "data", room, room="office_10")
    source = open_source(area)
    assert tuple(source.ids) == ("office_1", "office_10")
    assert len(source[0].frames) == 3 and all("_office_1_frame_" in frame.name for frame in source[0].frames)
    assert len(source[1].frames) == 3  # in the other part of the area, beside it
    (area / "office_1").rename(area / "office_2")
    scene = load_scene(area / "office_2")
    assert not scene.frames and "no posed images of office_2 (looked for" in " ".join(scene.notes)


def test_missing_depth_and_images_of_2d3ds_are_noted(room: Scene, tmp_path: Path) -> None:
    data = write_2d3ds(tmp_path / "data", room)
    images = sorted((data / "rgb").iterdir())
    images[0].unlink()
    next(iter(sorted((data / "depth").iterdir(), reverse=True))).unlink()
    scene = load_scene(tmp_path)
    assert len(scene.frames) == 2 and [frame.depth is None for frame in scene.frames] == [False, True]
    assert any("1 photographs: without depth" in note for note in scene.notes)
    assert any("1 of 3 listed photographs: missing" in note for note in scene.notes)


def test_faults_of_2d3ds_are_one_line(room: Scene, tmp_path: Path) -> None:
    data = write_2d3ds(tmp_path / "data", room)
    pose = sorted((data / "pose").iterdir())[1]
    good = json.loads(pose.read_text())
    for change, says in (
        ({"camera_rt_matrix": [[1, 2], [3, 4]]}, "shape (2, 2)"),
        ({"camera_rt_matrix": "here"}, "no camera_k_matrix and camera_rt_matrix of numbers"),
        ({"camera_k_matrix": None}, "camera_k_matrix"),
        ({"camera_k_matrix": [[np.inf] * 3] * 3}, "camera_k_matrix of shape (3, 3)"),
        ({"camera_rt_matrix": [[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]]}, "not orthonormal"),
        ({"camera_k_matrix": [[0, 0, 1], [0, 0, 1], [0, 0, 1]]}, "cannot form an image"),
    ):
        pose.write_text(json.dumps({**good, **change}))
        error = error_of(tmp_path)
        assert says in error.message, error.message
    pose.write_text(json.dumps(good)[:-20])
    assert pose.name in error_of(tmp_path).message


# --------------------------------------------------------------------------------------------------------- label map

TSV = "id\traw_category\tcategory\tcount\tnyu40id\n"
TSV += "1\twall\twall\t9\t1\n22\tkitchen cabinet\tcabinet\t3\t3\n5\tghost\tghost\t1\t40\n"


def test_the_label_map_leads_to_the_twenty_classes(tmp_path: Path) -> None:
    path = tmp_path / "scannetv2-labels.combined.tsv"
    path.write_text(TSV)
    (tmp_path / "scans" / "scene0000_00").mkdir(parents=True)
    assert find_label_map(tmp_path / "scans" / "scene0000_00") == path
    table = read_label_map(path)
    assert len(table.by_id) == 23 and (table.by_id[1], table.by_id[22], table.by_id[5], table.by_id[2]) == (
        0,
        2,
        IGNORE,
        IGNORE,
    )
    assert table.by_category == {"wall": 0, "kitchen cabinet": 2, "ghost": IGNORE}
    Image.fromarray(np.array([[1, 22, 5], [0, 23, 65535]], np.uint16)).save(tmp_path / "a.png")
    found = LabelImage(tmp_path / "a.png", 20, table=table.by_id).load()
    assert found.tolist() == [[0, 2, IGNORE], [IGNORE, IGNORE, IGNORE]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no column id, raw_category, nyu40id"),
        (TSV.replace("nyu40id", "nyu"), "no column nyu40id"),
        (TSV.replace("\t9\t1\n", "\t9\tone\n"), "Line 2 of the label map"),
        (TSV[: TSV.rindex("5\tghost") + 4], "Line 4 of the label map"),
        (TSV.replace("22\t", "-22\t"), "Line 3 of the label map"),
        ("\udcff", "cannot be read"),
    ],
)
def test_faults_of_the_label_map_are_one_line(room: Scene, tmp_path: Path, text: str, says: str) -> None:
    scan = write_scannet_raw(tmp_path, room, labels_ply=False)
    (tmp_path / "scannetv2-labels.combined.tsv").write_bytes(text.encode(errors="surrogateescape"))
    error = error_of(scan)
    assert says in error.message and "scannetv2-labels.combined.tsv" in error.message


def test_filtered_labels_without_a_map_are_left_out_and_noted(room: Scene, tmp_path: Path) -> None:
    scan = write_scannet_raw(tmp_path, room)
    write_filtered_labels(scan, room, ["0", "20", "40"])
    scene = load_scene(scan)
    assert scene.frames[0].labels is None and any("label-filt/ is left out" in note for note in scene.notes)


# ---------------------------------------------------------------------------------------------------------- LERF-OVS


@pytest.mark.parametrize("layout", ["colmap", "nerfstudio"])
def test_annotated_views_are_the_test_split(room: Scene, tmp_path: Path, layout: str) -> None:
    folder = tmp_path / "lerf_ovs" / "ramen"
    if layout == "colmap":
        write_colmap(folder, room, binary=True)
    else:
        write_nerfstudio(folder, room)
    boxes = {
        "0": [("egg", (4, 2, 19, 11)), ("bowl", (40, 8, 59, 23)), ("egg", (80, 60, 83, 63))],
        "2": [("egg", (0, 0, 95, 71)), ("bowl", (10, 10, 19, 19))],
    }
    write_lerf_annotations(tmp_path / "lerf_ovs" / "label" / "ramen", {**boxes, "9": []}, (96, 72))
    source = open_source(tmp_path / "lerf_ovs")
    assert tuple(source.ids) == ("ramen",)
    scene = source[0]
    assert (scene.layout, scene.classes) == (layout, ("bowl", "egg"))
    assert scene.splits == {"train": ("1",), "test": ("0", "2")}
    assert any("without a photograph, left out (9.json)" in note for note in scene.notes)
    labels = scene.frames[0].labels
    assert isinstance(labels, PolygonMasks)
    expected = np.full((72, 96), IGNORE)
    expected[2:12, 4:20] = expected[60:64, 80:84] = 1
    expected[8:24, 40:60] = 0
    np.testing.assert_array_equal(labels.load(), expected)
    both = scene.frames[2].labels
    assert isinstance(both, PolygonMasks) and both.load_masks().sum(axis=(1, 2)).tolist() == [100, 96 * 72]
    assert (both.load() == IGNORE).sum() == 100  # two classes claim these


def test_annotations_at_another_size_and_of_several_polygons(room: Scene, tmp_path: Path) -> None:
    write_colmap(tmp_path / "scene", room, binary=False)
    squares = [[[0, 0], [191, 0], [191, 71], [0, 71]], [[0, 100], [9, 100], [9, 143], [0, 143]]]
    data = {"info": {"width": 192, "height": 144}, "objects": [{"category": "rug", "segmentation": squares}]}
    (tmp_path / "scene" / "label").mkdir()
    (tmp_path / "scene" / "label" / "1.json").write_text(json.dumps(data))
    labels = load_scene(tmp_path / "scene").frames[1].labels
    assert labels is not None
    found = labels.load()
    assert (found[:36] == 0).all() and (found[36:50] == IGNORE).all() and (found[50:, :5] == 0).all()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"info": {}, "objects": []}',
        '{"info": {"width": 96, "height": 72}}',
        '{"info": {"width": 96, "height": 72}, "objects": [{"category": "a", "segmentation": []}]}',
        '{"info": {"width": 96, "height": 72}, "objects": [{"category": "a", "segmentation": [[1, 2, 3]]}]}',
        '{"info": {"width": 96, "height": 72}, "objects": [{"category": "a", "segmentation": [["x", 2], [3, 4]]}]}',
        '{"info": {"width": 0, "height": 72}, "objects": []}',
        '{"info": {"width": 1e9, "height": 72}, "objects": []}',
    ],
)
def test_faulty_annotations_are_one_line(room: Scene, tmp_path: Path, text: str) -> None:
    write_colmap(tmp_path / "scene", room, binary=True)
    folder = tmp_path / "label" / "scene"
    folder.mkdir(parents=True)
    (folder / "0.json").write_text(text)
    assert "label/scene/0.json" in error_of(tmp_path / "scene").message
