from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ov3d.common.base.errors import DataError
from ov3d.common.scenes.cameras import Camera
from ov3d.common.scenes.distortion import Distortion, straighten, straighten_nearest
from ov3d.common.scenes.scene import DepthImage, Frame, Scene
from ov3d.common.scenes.views import ViewSet, read_views, write_views
from tests.common.features.fakes import make_store

SOURCE = Camera(60, 44, 50.0, 52.0, 28.5, 23.0)
OPENCV = Distortion("opencv", (-0.12, 0.05, 0.004, -0.003, 0.01, 0.02, -0.01, 0.003), SOURCE)
PINCUSHION = Distortion("opencv", (0.1, 0.02, -0.002, 0.003), SOURCE)
FISHEYE = Distortion("fisheye", (0.03, -0.02, 0.006, -0.001), SOURCE)
LENSES = (OPENCV, PINCUSHION, FISHEYE)


def distort_slowly(lens: Distortion, x: float, y: float) -> tuple[float, float]:
    """The formulas of the module, a ray at a time."""
    r = math.hypot(x, y)
    if lens.model == "fisheye":
        t = math.atan(r)
        bent = t * (1 + sum(k * t ** (2 * i + 2) for i, k in enumerate(lens.coefficients)))
        return (x, y) if r == 0 else (x * bent / r, y * bent / r)
    k1, k2, p1, p2, k3, k4, k5, k6 = lens.coefficients
    radial = (1 + k1 * r**2 + k2 * r**4 + k3 * r**6) / (1 + k4 * r**2 + k5 * r**4 + k6 * r**6)
    return (
        x * radial + 2 * p1 * x * y + p2 * (r**2 + 2 * x**2),
        y * radial + p1 * (r**2 + 2 * y**2) + 2 * p2 * x * y,
    )


def looked_up(lens: Distortion, camera: Camera, row: int, column: int) -> tuple[float, float]:
    x, y = distort_slowly(lens, (column + 0.5 - camera.cx) / camera.fx, (row + 0.5 - camera.cy) / camera.fy)
    return x * lens.camera.fx + lens.camera.cx, y * lens.camera.fy + lens.camera.cy


@pytest.mark.parametrize("lens", LENSES)
@settings(max_examples=40, deadline=None)
@given(x=st.floats(-0.6, 0.6), y=st.floats(-0.5, 0.5))
def test_distort_equals_the_formula_a_ray_at_a_time(lens: Distortion, x: float, y: float) -> None:
    np.testing.assert_allclose(lens.distort(np.array([[x, y]]))[0], distort_slowly(lens, x, y), atol=1e-12)


@pytest.mark.parametrize("lens", LENSES)
def test_distort_equals_opencv(lens: Distortion) -> None:
    cv2 = pytest.importorskip("cv2")
    xy = np.random.default_rng(0).uniform(-0.5, 0.5, (50, 2))
    if lens.model == "fisheye":
        expected = cv2.fisheye.distortPoints(xy[None], np.eye(3), np.array(lens.coefficients))[0]
    else:
        rays = np.column_stack([xy, np.ones(50)])
        expected = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), np.eye(3), np.array(lens.coefficients))[0][:, 0]
    np.testing.assert_allclose(lens.distort(xy), expected, atol=1e-9)


@pytest.mark.parametrize("lens", LENSES)
def test_straighten_equals_a_loop_over_pixels(lens: Distortion) -> None:
    image = np.random.default_rng(1).integers(0, 256, (44, 60, 3), dtype=np.uint8)
    depth = np.random.default_rng(2).random((44, 60)).astype(np.float32)
    camera = replace(lens.pinhole(), width=50, height=40)  # another size than the photograph's, too
    colours, values = straighten(image, lens, camera), straighten_nearest(depth, lens, camera, outside=-1)
    for row in range(camera.height):
        for column in range(camera.width):
            u, v = looked_up(lens, camera, row, column)
            x, y = min(max(u - 0.5, 0), 59), min(max(v - 0.5, 0), 43)
            left, top = math.floor(x), math.floor(y)
            right, below = min(left + 1, 59), min(top + 1, 43)
            a, b = x - left, y - top
            mixed = (
                image[top, left] * (1 - a) * (1 - b)
                + image[top, right] * a * (1 - b)
                + image[below, left] * (1 - a) * b
                + image[below, right] * a * b
            )
            assert np.abs(colours[row, column] - mixed).max() <= 0.51
            inside = 0 <= u < 60 and 0 <= v < 44
            assert values[row, column] == (depth[math.floor(v), math.floor(u)] if inside else -1)


@pytest.mark.parametrize("lens", [OPENCV, PINCUSHION])
def test_straighten_equals_opencv(lens: Distortion) -> None:
    cv2 = pytest.importorskip("cv2")
    image = cv2.resize(np.random.default_rng(5).integers(0, 256, (22, 30, 3), dtype=np.uint8), (240, 176))
    lens = lens.resized(240, 176)
    camera = lens.pinhole()
    half = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # OpenCV's pixel centres are whole numbers
    source, target = lens.camera.matrix - half, camera.matrix - half
    maps = cv2.initUndistortRectifyMap(source, np.array(lens.coefficients), None, target, (240, 176), cv2.CV_32FC1)
    expected = cv2.remap(image, *maps, cv2.INTER_LINEAR).astype(int)
    assert np.abs(straighten(image, lens, camera) - expected).max() <= 3  # it rounds positions to 1/32 of a pixel


@pytest.mark.parametrize("lens", LENSES)
def test_a_straightened_pattern_is_the_pinholes_own(lens: Distortion) -> None:
    """A pattern painted on the plane z = 1, photographed through the lens and straightened, is what the pinhole sees."""

    def pattern(xy: np.ndarray) -> np.ndarray:
        return 128 + 90 * np.sin(6 * xy[:, :1]) * np.cos(5 * xy[:, 1:])

    lens = lens.resized(240, 176)
    source, camera = lens.camera, lens.pinhole()
    wanted = (source.pixel_centres() - (source.cx, source.cy)) / (source.fx, source.fy)
    xy = wanted.copy()
    for _ in range(60):  # the ray that the lens puts there, by fixed-point iteration
        xy += wanted - lens.distort(xy)
    photograph = np.repeat(pattern(xy).reshape(176, 240, 1), 3, axis=2).round().astype(np.uint8)
    rays = (camera.pixel_centres() - (camera.cx, camera.cy)) / (camera.fx, camera.fy)
    expected = pattern(rays).reshape(176, 240)
    error = np.abs(straighten(photograph, lens, camera)[:, :, 0] - expected)
    assert error.max() < 3
    assert np.abs(photograph[:, :, 0] - expected).max() > 8  # the lens did bend it


@pytest.mark.parametrize("lens", LENSES)
def test_the_pinhole_shows_only_what_the_photograph_shows_and_no_less(lens: Distortion) -> None:
    camera = lens.pinhole()
    uv = np.array([looked_up(lens, camera, row, column) for row in range(44) for column in range(60)])
    assert uv.min() > 0 and (uv < (60, 44)).all()
    wider = replace(camera, fx=camera.fx * 0.97, fy=camera.fy * 0.97)
    uv = np.array([looked_up(lens, wider, row, column) for row in range(44) for column in range(60)])
    assert uv.min() < 0.5 or (uv > (59.5, 43.5)).any()


def test_a_lens_without_distortion_changes_nothing() -> None:
    lens = Distortion("opencv", (), SOURCE)
    camera = lens.pinhole()
    assert abs(camera.fx / SOURCE.fx - 1) < 1e-5
    image = np.random.default_rng(1).integers(0, 256, (44, 60, 3), dtype=np.uint8)
    np.testing.assert_array_equal(straighten(image, lens, SOURCE), image)


@pytest.mark.parametrize("lens", LENSES)
def test_a_turned_lens_bends_turned_rays(lens: Distortion) -> None:
    xy = np.random.default_rng(3).uniform(-0.5, 0.5, (20, 2))
    quarter = np.array([[0, -1], [1, 0]])
    np.testing.assert_allclose(lens.turned().distort(xy @ quarter.T), lens.distort(xy) @ quarter.T, atol=1e-12)
    whole = lens.turned().turned().turned().turned()
    assert whole.coefficients == lens.coefficients
    np.testing.assert_allclose(whole.camera.matrix, lens.camera.matrix, atol=1e-12)


def test_rays_beyond_the_fold_are_nowhere() -> None:
    lens = Distortion("opencv", (-0.3,), SOURCE)  # x (1 - 0.3 x^2) turns round at x = 1 / sqrt(0.9) = 1.054
    out = lens.distort(np.array([[1.0, 0.0], [1.1, 0.0]]))
    assert np.isfinite(out[0]).all() and np.isnan(out[1]).all()
    with pytest.raises(DataError, match=r"opencv distortion \(-50, 0"):
        Distortion("opencv", (-50.0,), SOURCE).pinhole()


@pytest.mark.parametrize("coefficients", [(0.1,) * 5, (math.nan,)])
def test_impossible_coefficients_are_refused(coefficients: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="at most 4 finite"):
        Distortion("fisheye", coefficients, SOURCE)


def _frame(folder: Path, lens: Distortion | None) -> Frame:
    path = folder / "0.png"
    if not path.exists():
        Image.fromarray(np.random.default_rng(4).integers(0, 256, (44, 60, 3), dtype=np.uint8)).save(path)
    camera = SOURCE if lens is None else lens.pinhole()
    return Frame("0", path, camera, np.eye(4), distortion=lens)


def test_a_frame_gives_straight_pixels_depth_and_mask(tmp_path: Path) -> None:
    frame = _frame(tmp_path, FISHEYE)
    raw = np.asarray(Image.open(frame.image_path))
    np.testing.assert_array_equal(frame.load_image(), straighten(raw, FISHEYE, frame.camera))
    assert frame.load_mask().all()
    mask = np.zeros((44, 60), np.uint8)
    mask[10:30, 20:40] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    expected = straighten_nearest(mask, FISHEYE, frame.camera, outside=0) > 0
    np.testing.assert_array_equal(replace(frame, mask_path=tmp_path / "mask.png").load_mask(), expected)
    Image.fromarray(np.full((22, 30), 2000, np.uint16)).save(tmp_path / "depth.png")
    half = frame.camera.resized(30, 22)
    depth = DepthImage(tmp_path / "depth.png", 0.001, half, FISHEYE.resized(30, 22)).load()
    assert depth.shape == (22, 30) and np.allclose(depth, 2)
    with pytest.raises(DataError, match="its camera 44x60"):
        DepthImage(tmp_path / "depth.png", 0.001, frame.camera, FISHEYE).load()


def test_the_pixels_key_follows_the_lens(tmp_path: Path) -> None:
    keys = [_frame(tmp_path, lens).pixels_key for lens in (None, *LENSES, OPENCV)]
    assert keys[0] == "" and keys[1] == keys[4]
    assert len(set(keys)) == 4


def test_views_remember_the_lens(tmp_path: Path) -> None:
    frames = (_frame(tmp_path, FISHEYE), replace(_frame(tmp_path, None), name="1"))
    path = write_views(tmp_path / "views.safetensors", ViewSet.from_scene(Scene("s", tmp_path, "test", frames)))
    read = read_views(path)
    assert read.distortions == (FISHEYE, None)
    for idx, frame in enumerate(frames):
        np.testing.assert_array_equal(read.load_image(idx), frame.load_image())


def test_features_of_a_straightened_image_have_their_own_key(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    keys = [store.key(_frame(tmp_path, lens)) for lens in (None, *LENSES, OPENCV)]
    assert len(set(keys)) == 4 and keys[1] == keys[4]
