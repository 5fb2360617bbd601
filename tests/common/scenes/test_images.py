from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from ov3d.common.base.errors import DataError
from ov3d.common.scenes.images import QUARTER_TURNS, load_raster, load_rgb, read_header

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("ending", ["png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_and_the_header_knows(tmp_path: Path, orientation: int, ending: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{ending}"
    Image.fromarray(PIXELS).save(path, exif=exif, **({"lossless": True} if ending == "webp" else {}))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    loaded, header = load_rgb(path), read_header(path)
    np.testing.assert_array_equal(loaded, expected)
    assert header is not None and header.orientation == orientation
    assert header.size == (loaded.shape[1], loaded.shape[0]) and header.stored_size == (8, 5)
    if orientation in QUARTER_TURNS:  # NumPy turns counter-clockwise
        np.testing.assert_array_equal(loaded, np.rot90(PIXELS, -QUARTER_TURNS[orientation]))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_a_jpeg(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.repeat(np.repeat(PIXELS, 8, axis=0), 8, axis=1)).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    header = read_header(tmp_path / "a.jpg")
    np.testing.assert_array_equal(load_rgb(tmp_path / "a.jpg"), expected)
    assert header is not None and header.size == (expected.shape[1], expected.shape[0])


def test_alpha_goes_onto_white(tmp_path: Path) -> None:
    rgba = np.dstack([PIXELS, np.full((5, 8), 255, np.uint8)])
    rgba[0, 0], rgba[0, 1] = (10, 20, 30, 0), (0, 0, 100, 51)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    loaded = load_rgb(tmp_path / "a.png")
    np.testing.assert_array_equal(loaded[1:], PIXELS[1:])
    assert loaded[0, 0].tolist() == [255, 255, 255]
    assert np.abs(loaded[0, 1].astype(int) - (204, 204, 224)).max() <= 1  # 0.8 white + 0.2 colour


def test_a_transparent_palette_goes_onto_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=1)
    assert load_rgb(tmp_path / "a.png").tolist() == [[[255, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 255, 256, 65535]], np.uint16), [0, 0, 1, 255]),
        (np.array([[0, 7, 200, 255]], np.uint8), [0, 7, 200, 255]),
        (np.array([[-1, 0.5, 1, np.nan]], np.float32), [0, 128, 255, 0]),
    ],
)
def test_grey_of_any_depth_becomes_three_equal_channels(
    tmp_path: Path, values: np.ndarray, expected: list[int]
) -> None:
    Image.fromarray(values).save(tmp_path / "a.tiff")
    assert load_rgb(tmp_path / "a.tiff").tolist() == [[[value] * 3 for value in expected]]


def test_rasters_come_as_they_are_stored(tmp_path: Path) -> None:
    values = np.array([[0, 1, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", values)
    for name in ("a.png", "a.npy"):
        np.testing.assert_array_equal(load_raster(tmp_path / name, "depth image"), values)
    np.save(tmp_path / "b.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="depth image .*b.npy cannot be read"):
        load_raster(tmp_path / "b.npy", "depth image")


def test_broken_files_are_named(tmp_path: Path) -> None:
    Image.fromarray(np.repeat(PIXELS, 40, axis=0)).save(tmp_path / "a.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:700])
    (tmp_path / "none.png").write_bytes(b"not an image")
    for name in ("cut.jpg", "none.png"):
        with pytest.raises(DataError, match=f"{name} cannot be read"):
            load_rgb(tmp_path / name)
    with pytest.raises(DataError, match="Image .* does not exist"):
        load_rgb(tmp_path / "gone.png")
    assert read_header(tmp_path / "none.png") is None and read_header(tmp_path / "gone.png") is None


def test_an_image_too_large_to_be_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match="cannot be read"):
        load_rgb(tmp_path / "a.png")
