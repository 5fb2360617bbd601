"""View sets: round trip, moved and changed captures, codes of views."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ov3d.common.base.errors import CorruptFileError, DataError
from ov3d.common.scenes.cameras import Camera, look_at
from ov3d.common.scenes.scene import Frame, Scene
from ov3d.common.scenes.views import ViewSet, read_views, write_views


def make_scene(folder: Path, outside: Path | None = None) -> Scene:
    (folder / "images").mkdir(parents=True)
    frames = []
    for i in range(3):
        path = (outside or folder / "images") / f"{i}.png" if i == 2 else folder / "images" / f"{i}.png"
        pixels = np.random.default_rng(i).integers(0, 255, (6, 8 + i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        camera = Camera(8 + i, 6, 7.123456789 + i, 7.5, 4.1, 3.2)
        frames.append(Frame(f"{i}", path, camera, look_at(np.array([1.0, 2.0, i]), np.zeros(3))))
    return Scene("desk", folder, "toy", tuple(frames))


def test_round_trip(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "desk")
    written = ViewSet.from_scene(scene)
    read = read_views(write_views(tmp_path / "run" / "views.safetensors", written))
    assert (read.names, read.image_hashes, read.scene) == (written.names, written.image_hashes, "desk")
    assert read.image_paths == ("images/0.png", "images/1.png", "images/2.png")
    for i, frame in enumerate(scene.frames):
        assert read.camera(i) == frame.camera
        np.testing.assert_array_equal(read.world_from_camera[i], frame.world_from_camera)
        np.testing.assert_array_equal(read.load_image(i), frame.load_image())


def test_known_hashes_are_not_computed_again(tmp_path: Path) -> None:
    views = ViewSet.from_scene(make_scene(tmp_path / "desk"), hashes={"1": "feed"})
    assert views.image_hashes[1] == "feed"
    with pytest.raises(DataError, match="has changed since"):
        views.load_image(1)


def test_an_image_outside_the_scene_keeps_its_absolute_path(tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    views = ViewSet.from_scene(make_scene(tmp_path / "desk", outside))
    assert Path(views.image_paths[2]) == (outside / "2.png").resolve()
    assert views.load_image(2).shape == (6, 10, 3)


def test_a_scene_that_is_a_file_stores_paths_from_its_folder(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "desk")
    cloud = tmp_path / "desk" / "cloud.ply"
    cloud.touch()
    assert ViewSet.from_scene(replace(scene, path=cloud)).image_paths[0] == "images/0.png"


def test_a_capture_that_moved_with_its_runs_is_found(tmp_path: Path) -> None:
    views = ViewSet.from_scene(make_scene(tmp_path / "old" / "desk"))
    write_views(tmp_path / "old" / "outputs" / "run" / "views.safetensors", views)
    (tmp_path / "old").rename(tmp_path / "new")
    read = read_views(tmp_path / "new" / "outputs" / "run" / "views.safetensors")
    assert read.image_path(0) == (tmp_path / "new" / "desk" / "images" / "0.png").resolve()
    assert read.load_image(0).shape == (6, 8, 3)


def test_a_capture_that_is_gone_gives_one_clear_line(tmp_path: Path) -> None:
    path = write_views(tmp_path / "run" / "views.safetensors", ViewSet.from_scene(make_scene(tmp_path / "desk")))
    shutil.rmtree(tmp_path / "desk")
    with pytest.raises(DataError, match="view 1 of desk is not at .*move it together"):
        read_views(path).image_path(1)


def test_a_changed_image_is_noticed(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "desk")
    views = ViewSet.from_scene(scene)
    Image.new("RGB", (8, 6)).save(scene.frames[0].image_path)
    with pytest.raises(DataError, match="has changed since"):
        views.load_image(0)


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "desk")
    scene.frames[1].image_path.unlink()
    with pytest.raises(DataError, match=r"1\.png cannot be read"):
        ViewSet.from_scene(scene)


def test_no_views_at_all(tmp_path: Path) -> None:
    views = ViewSet.from_scene(Scene("empty", tmp_path, "toy"))
    read = read_views(write_views(tmp_path / "views.safetensors", views))
    assert len(read) == 0
    assert read.world_from_camera.shape == (0, 4, 4)


def test_codes_of_views_of_different_sizes(tmp_path: Path) -> None:
    views = ViewSet.from_scene(make_scene(tmp_path / "desk"))
    sizes = np.array([[4, 3], [2, 5], [1, 1]], np.int32)
    code = np.arange(23 * 2, dtype=np.float16).reshape(23, 2)
    read = read_views(write_views(tmp_path / "views.safetensors", replace(views, code=code, code_sizes=sizes)))
    grids = [read.view_code(i) for i in range(3)]
    assert [grid.shape for grid in grids if grid is not None] == [(3, 4, 2), (5, 2, 2), (1, 1, 2)]
    np.testing.assert_array_equal(np.concatenate([grid.reshape(-1, 2) for grid in grids if grid is not None]), code)
    assert views.view_code(0) is None
    with pytest.raises(DataError, match="22 codes"):
        replace(views, code=code[:-1], code_sizes=sizes)
    with pytest.raises(DataError, match="codes without sizes"):
        replace(views, code=code)


def test_values_that_do_not_fit_and_damage_are_refused(tmp_path: Path) -> None:
    views = ViewSet.from_scene(make_scene(tmp_path / "desk"))
    with pytest.raises(DataError, match="are inconsistent"):
        replace(views, names=("0", "1"))
    with pytest.raises(DataError, match="are inconsistent"):
        replace(views, names=("0", "1", "1"))
    path = write_views(tmp_path / "views.safetensors", views)
    os.truncate(path, path.stat().st_size - 5)
    with pytest.raises(CorruptFileError):
        read_views(path)
