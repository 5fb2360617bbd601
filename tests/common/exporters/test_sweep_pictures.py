"""Pictures of sweeps: points are drawn where they land, in the colour that the legend explains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ov3d.common.base.errors import DataError
from ov3d.common.exporters.sweep_pictures import (
    DIMMED,
    REACH,
    SIDE,
    SMALLEST,
    colours_of_depth,
    colours_of_labels,
    colours_of_range,
    overlay_of_sweep,
    sweep_from_above,
    write_sweep_pictures,
)
from ov3d.common.lifting.projection import VisiblePoints
from ov3d.common.readers.nuscenes import open_keyframes
from ov3d.common.scenes.cameras import Camera
from ov3d.common.scenes.scene import Frame, PointCloud, Scene
from ov3d.common.worlds.nuscenes_writer import write_nuscenes
from ov3d.common.worlds.street import StreetConfig


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("street") / "nuscenes"
    config = StreetConfig(seed=5, num_sweeps=1, columns=120, width=96, height=54, reach=40.0)
    return open_keyframes(write_nuscenes(folder, {"val": [config]}))[0]


def _grey_frame(folder: Path, width: int, height: int) -> Frame:
    Image.new("RGB", (width, height), (200, 200, 200)).save(folder / "grey.png")
    return Frame("a", folder / "grey.png", Camera(width, height, 500.0, 500.0, width / 2, height / 2), np.eye(4))


def test_points_are_drawn_where_they_land_and_the_nearer_on_top(tmp_path: Path) -> None:
    frame = _grey_frame(tmp_path, 900, 300)
    uv = np.array([[100.5, 50.5], [100.5, 50.5], [800.2, 250.7]])
    view = VisiblePoints(np.arange(3), uv, np.array([20.0, 3.0, 40.0]))
    colours = colours_of_depth(view.z)
    picture = overlay_of_sweep(frame, view, colours, "a caption")
    assert picture.shape[1] == 900 and 300 < picture.shape[0] < 360
    assert np.array_equal(picture[50, 100], colours.rgb[1])
    assert np.array_equal(picture[250, 800], colours.rgb[2])
    assert np.array_equal(picture[150, 450], [round(200 * DIMMED)] * 3)
    assert (picture[300:] > 200).any(), "nothing is explained"


def test_small_photographs_are_enlarged_and_points_stay_in_place(tmp_path: Path) -> None:
    frame = _grey_frame(tmp_path, 100, 40)
    view = VisiblePoints(np.arange(1), np.array([[30.5, 20.5]]), np.array([5.0]))
    colours = colours_of_depth(view.z)
    picture = overlay_of_sweep(frame, view, colours)
    assert picture.shape[1] == SMALLEST
    assert np.array_equal(picture[8 * 20 + 4, 8 * 30 + 4], colours.rgb[0])


def test_colours_tell_near_from_far_and_classes_apart() -> None:
    brightness = colours_of_depth(np.array([2.0, 5.0, 20.0, 60.0, 200.0])).rgb.sum(axis=1)
    assert (np.diff(brightness[:4].astype(int)) < 0).all() and brightness[3] == brightness[4]
    shown = colours_of_labels(np.array([0, 2, -100, 2], np.int32), ("road", "car", "pole"))
    assert [name for name, _ in shown.classes] == ["road", "pole", "no label"]
    assert np.array_equal(shown.rgb[1], shown.rgb[3]) and len(np.unique(shown.rgb, axis=0)) == 3
    assert [colour for _, colour in shown.classes] == [tuple(shown.rgb[row].tolist()) for row in (0, 1, 2)]
    ramp = colours_of_range(np.array([-2.5, 3.0]), -2.5, 3.0, "height", " m")
    assert ramp.ends == ("-2.5 m", "3 m") and ramp.rgb[0].sum() < ramp.rgb[1].sum()


def test_from_above_x_is_right_and_y_is_up(tmp_path: Path) -> None:
    xyz = np.array([[30, 20, 0], [30, 20, -2], [-12, -35, 1], [500, 0, 0]], np.float32)
    rgb = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]], np.uint8)
    scene = Scene("s", tmp_path, "nuscenes", cloud=PointCloud(xyz))
    picture = sweep_from_above(scene, replace(colours_of_range(xyz[:, 2], 0.0, 1.0, "height"), rgb=rgb))
    scale = SIDE / (2 * REACH)
    assert picture[round((REACH - 20) * scale), round((REACH + 30) * scale)].tolist() == [255, 0, 0], "the higher one"
    assert picture[round((REACH + 35) * scale), round((REACH - 12) * scale)].tolist() == [0, 0, 255]
    assert picture[SIDE // 2, SIDE // 2].min() > 200, "the sensor"


def test_all_pictures_of_a_sweep(street: Scene, tmp_path: Path) -> None:
    assert street.cloud is not None
    names = [frame.name for frame in street.frames]
    expected = {f"{kind}-{name}.png" for kind in ("depth", "labels") for name in names}
    expected |= {f"above-{kind}.png" for kind in ("height", "intensity", "labels")}
    written = list(write_sweep_pictures(tmp_path / "a", street))
    assert {path.name for path in written if isinstance(path, Path)} == expected
    assert {path.name for path in (tmp_path / "a").iterdir()} == expected
    bare = replace(street, frames=(), cloud=PointCloud(street.cloud.xyz))
    assert [path.name for path in write_sweep_pictures(tmp_path / "b", bare) if isinstance(path, Path)] == [
        "above-height.png"
    ]


def test_a_photograph_that_is_gone_gives_an_error_and_the_others_are_drawn(street: Scene, tmp_path: Path) -> None:
    frames = (replace(street.frames[0], image_path=tmp_path / "gone.jpg"), *street.frames[1:])
    written = list(write_sweep_pictures(tmp_path / "a", replace(street, frames=frames)))
    assert sum(isinstance(one, DataError) for one in written) == 1 and len(written) == 1 + 2 * 5 + 3
    with pytest.raises(DataError, match="has no points"):
        list(write_sweep_pictures(tmp_path / "b", replace(street, cloud=None)))
