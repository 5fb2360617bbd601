"""LAS, PCD and .bin clouds: the same points in every format, precision far from the origin, and faults in one line."""

from __future__ import annotations

import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from plyfile import PlyData, PlyElement

from ov3d.common.base.errors import MissingModelError
from ov3d.common.readers import load_scene
from ov3d.common.readers.lidar_bin import read_bin
from ov3d.common.readers.lzf import decompress
from ov3d.common.readers.scan import read_scan
from ov3d.common.scenes.scene import PointCloud
from tests.common.readers.cloud_writers import lzf_compress, write_bin, write_las, write_pcd
from tests.common.readers.layouts import error_of

RNG = np.random.default_rng(3)
CLASSES = ("floor", "wall", "cat")
CLOUD = PointCloud(
    xyz=RNG.uniform(-4, 4, (60, 3)).astype(np.float32),
    rgb=RNG.integers(0, 256, (60, 3), dtype=np.uint8),
    labels=RNG.integers(0, 3, 60).astype(np.int32),
    instances=RNG.integers(-1, 5, 60).astype(np.int32),
)
UTM = (412_345.0, 5_678_901.0, 230.0)
MEASURED = replace(CLOUD, intensity=RNG.integers(1, 65536, 60).astype(np.float32))


@pytest.mark.parametrize("form", ["ascii", "binary", "binary_compressed"])
def test_a_pcd_in_each_form(tmp_path: Path, form: str) -> None:
    path = write_pcd(tmp_path / "scan.pcd", CLOUD, form)
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    scene = load_scene(path)
    cloud = scene.cloud
    assert cloud is not None and (scene.name, scene.layout) == ("scan", "cloud")
    for name in ("xyz", "rgb", "labels", "instances"):
        np.testing.assert_array_equal(getattr(cloud, name), getattr(CLOUD, name), err_msg=name)


def test_a_pcd_of_separate_colours_doubles_and_points_that_are_not_finite(tmp_path: Path) -> None:
    head = "VERSION .7\nFIELDS x y z r g b\nSIZE 8 8 8 1 1 1\nTYPE F F F U U U\nWIDTH 3\nHEIGHT 1\n"
    head += "VIEWPOINT 1 0 0 1 0 0 0\nDATA ascii\n"
    path = tmp_path / "scan.pcd"
    path.write_text(head + "412345.678 0 1 1 2 3\nnan nan nan 4 5 6\n412346.678 0 1 7 8 9\n")
    scene = load_scene(path)
    assert scene.cloud is not None and scene.cloud.rgb is not None
    np.testing.assert_allclose(scene.cloud.xyz[:, 0] + scene.world.origin[0], [412345.678, 412346.678], atol=1e-6)
    assert scene.cloud.rgb.tolist() == [[1, 2, 3], [7, 8, 9]]
    assert "1 of 3 points in scan.pcd are not finite and are left out" in scene.notes
    assert any("VIEWPOINT" in note for note in scene.notes)


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 300, 5000])
@pytest.mark.parametrize("kind", ["noise", "zeros", "pattern"])
def test_lzf_gives_back_what_was_compressed(size: int, kind: str) -> None:
    data = {
        "noise": RNG.integers(0, 256, size, dtype=np.uint8).tobytes(),
        "zeros": bytes(size),
        "pattern": (b"abcabcabd" * size)[:size],
    }[kind]
    assert decompress(lzf_compress(data), size) == data


def test_a_survey_in_las_keeps_its_millimetres(tmp_path: Path) -> None:
    pytest.importorskip("laspy")
    near = PointCloud(CLOUD.xyz.round(3), CLOUD.rgb, CLOUD.labels, CLOUD.instances)
    path = write_las(tmp_path / "site.las", near, offset=UTM, scale=0.001)
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    scene = load_scene(path)
    assert scene.cloud is not None and scene.world.units == "metric"
    expected = near.xyz.astype(np.float64).round(3) + UTM
    assert np.abs(scene.cloud.xyz + np.array(scene.world.origin) - expected).max() < 1e-6
    np.testing.assert_array_equal(scene.cloud.rgb, CLOUD.rgb)
    np.testing.assert_array_equal(scene.cloud.labels, CLOUD.labels)


def test_las_without_laspy_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_las(tmp_path / "site.las", CLOUD)
    monkeypatch.setitem(sys.modules, "laspy", None)
    with pytest.raises(MissingModelError, match=r"site\.las needs the package laspy.*pip install 'ov3d\[las\]'"):
        load_scene(path)


@pytest.mark.parametrize("num_columns", [4, 5, 6])
def test_the_columns_of_a_bin_are_found_out_and_said(tmp_path: Path, num_columns: int) -> None:
    scene = load_scene(write_bin(tmp_path / "scan.bin", CLOUD, num_columns))
    assert scene.cloud is not None
    np.testing.assert_array_equal(scene.cloud.xyz, CLOUD.xyz)
    assert any(f"60 rows of {'x y z r g b' if num_columns == 6 else 'x y z intensity'}" in note for note in scene.notes)
    if num_columns == 6:
        np.testing.assert_array_equal(scene.cloud.rgb, CLOUD.rgb)
        assert scene.cloud.intensity is None
    else:
        expected = np.arange(60) / 100 if num_columns == 4 else np.arange(60)
        np.testing.assert_array_equal(scene.cloud.intensity, expected.astype(np.float32))
        assert scene.cloud.rgb is None


@pytest.mark.parametrize("form", ["ascii", "binary", "binary_compressed"])
def test_a_pcd_keeps_its_intensity(tmp_path: Path, form: str) -> None:
    cloud = load_scene(write_pcd(tmp_path / "scan.pcd", MEASURED, form)).cloud
    assert cloud is not None and cloud.intensity is not None and cloud.intensity.dtype == np.float32
    np.testing.assert_array_equal(cloud.intensity, MEASURED.intensity)
    plain = load_scene(write_pcd(tmp_path / "plain.pcd", CLOUD, form)).cloud
    assert plain is not None and plain.intensity is None


def test_a_las_keeps_its_intensity_and_zeros_are_none(tmp_path: Path) -> None:
    pytest.importorskip("laspy")
    cloud = load_scene(write_las(tmp_path / "site.las", MEASURED)).cloud
    assert cloud is not None
    np.testing.assert_array_equal(cloud.intensity, MEASURED.intensity)
    plain = load_scene(write_las(tmp_path / "plain.las", CLOUD)).cloud
    assert plain is not None and plain.intensity is None


@pytest.mark.parametrize("name", ["intensity", "scalar_Intensity"])
def test_a_ply_keeps_its_intensity_in_every_subset_and_scale(tmp_path: Path, name: str) -> None:
    rows = np.zeros(60, [("x", "f4"), ("y", "f4"), ("z", "f4"), (name, "u2")])
    for axis, values in zip("xyz", CLOUD.xyz.T, strict=True):
        rows[axis] = values
    rows[name] = MEASURED.intensity
    rows["x"][7] = np.nan
    PlyData([PlyElement.describe(rows, "vertex")]).write(str(tmp_path / "scan.ply"))
    assert MEASURED.intensity is not None
    kept = np.delete(MEASURED.intensity, 7)
    for scale in (None, 0.5):
        cloud = load_scene(tmp_path / "scan.ply", scale=scale).cloud
        assert cloud is not None and len(cloud) == 59
        np.testing.assert_array_equal(cloud.intensity, kept)


def test_a_labelled_scan_keeps_its_intensity(tmp_path: Path) -> None:
    path = write_bin(tmp_path / "scan.bin", CLOUD, 4)
    np.testing.assert_array_equal(read_scan(path).columns["intensity"], (np.arange(60) / 100).astype(np.float32))
    through_a_scene = read_scan(path, layout="cloud")
    np.testing.assert_array_equal(through_a_scene.columns["intensity"], read_scan(path).columns["intensity"])


@pytest.mark.shared_data
def test_real_sweeps_and_stubs_are_read_with_their_columns(shared_data: Path) -> None:
    cases = {
        "lidar/semantickitti/sequences/00/velodyne/*.bin": 4,
        "lidar/kitti-object/training/velodyne/*.bin": 4,
        "lidar/nuscenes/samples/LIDAR_TOP/*.pcd.bin": 5,
        "points/stubs/*/points/*.bin": 6,
    }
    for pattern, num_columns in cases.items():
        files = sorted(shared_data.glob(pattern))
        assert files, pattern
        for path in files:
            cloud = load_scene(path).cloud
            data = path.read_bytes()  # an independent reading: row by row
            rows = list(struct.iter_unpack(f"<{num_columns}f", data))
            assert cloud is not None and len(cloud) == len(rows) == len(data) // (4 * num_columns)
            for k in range(0, len(rows), max(1, len(rows) // 50)):
                assert cloud.xyz[k].tolist() == list(rows[k][:3])
                if cloud.intensity is not None:
                    assert num_columns < 6 and cloud.intensity[k] == rows[k][3]
                if cloud.rgb is not None:
                    assert cloud.rgb[k].tolist() == list(rows[k][3:])


def test_faults_of_pcd_are_one_line(tmp_path: Path) -> None:
    path = write_pcd(tmp_path / "scan.pcd", CLOUD, "binary")
    good = path.read_bytes()

    def message(data: bytes) -> str:
        path.write_bytes(data)
        error = error_of(path)
        assert "scan.pcd" in error.message
        return error.message

    assert "lacks the lines FIELDS and DATA" in message(b"")
    assert "lacks the lines FIELDS and DATA" in message(good[:50])
    assert "states 60 points of 28 bytes but has 1679 bytes" in message(good[:-1])
    assert "invalid PCD header" in message(good.replace(b"SIZE 4 4 4 4 1 4 4", b"SIZE 4 4 4 4 1 4"))
    assert "invalid PCD header" in message(good.replace(b"TYPE F F", b"TYPE Q F"))
    assert "invalid PCD header" in message(good.replace(b"POINTS 60", b"POINTS -1"))
    assert "invalid PCD header" in message(good.replace(b"DATA binary", b"DATA zipped"))
    assert "have no x" in message(good.replace(b"FIELDS x y", b"FIELDS u y"))
    text = write_pcd(path, CLOUD, "ascii").read_bytes()
    assert "states 60 points but has 59 lines" in message(text[: text.rstrip().rfind(b"\n") + 1])
    assert "a line that is not 10 numbers" in message(text.rstrip()[:-5])
    assert "a line that is not 10 numbers" in message(text.replace(b" 1 2 3 4 ", b" 1 2 x 4 ", 1))
    packed = write_pcd(path, CLOUD, "binary_compressed").read_bytes()
    assert "states 60 points (1680 bytes) but has" in message(packed[:-1])
    assert "cannot be unpacked" in message(packed[:-5] + b"\xff\xff\xff\xff\xff")
    assert "states 60 points (1680 bytes) but has" in message(packed[: packed.index(b"compressed\n") + 13])


def test_faults_of_las_and_bin_are_one_line(tmp_path: Path) -> None:
    pytest.importorskip("laspy")
    las = write_las(tmp_path / "site.las", CLOUD)
    good = las.read_bytes()
    for data, says in (
        (b"", "no LAS header"),
        (good[:100], "no LAS header"),
        (b"LASX" + good[4:], "no LAS header"),
        (good[:-1], "states 60 points but has only 1559 bytes"),
        (good[:107] + struct.pack("<I", 4_000_000_000) + good[111:], "states 4000000000 points"),
        (good[:104] + b"\x3f" + good[105:], "cannot be read as LAS"),
    ):
        las.write_bytes(data)
        assert says in error_of(las).message
    path = write_bin(tmp_path / "scan.bin", CLOUD, 4)
    rows = path.read_bytes()
    for data in (b"", rows[:-1], np.full(60, 1e30, "<f4").tobytes(), np.full(60, np.nan, "<f4").tobytes()):
        path.write_bytes(data)
        assert "do not form fp32 rows" in error_of(path).message


def test_a_bin_may_hold_points_that_are_not_finite(tmp_path: Path) -> None:
    path = write_bin(tmp_path / "scan.pcd.bin", CLOUD, 5)
    rows = np.fromfile(path, "<f4").reshape(-1, 5)
    rows = np.concatenate([rows] * 4)
    rows[7, 0] = np.nan
    rows.tofile(path)
    assert np.isnan(read_bin(path).xyz).sum() == 1
    scene = load_scene(path)
    assert scene.cloud is not None and len(scene.cloud) == 239
