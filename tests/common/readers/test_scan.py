"""Scans: every point of the file in its order, and what else the file says under names that leave room for ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from plyfile import PlyData, PlyElement

from ov3d.common.readers.scan import read_scan


def _far(path: Path) -> np.ndarray:
    """A survey far from its origin, one point without a position, labelled and scored by somebody else."""
    rows = np.zeros(6, [("x", "f8"), ("y", "f8"), ("z", "f8"), ("Red", "u1"), ("label", "i4"), ("echo", "u2")])
    rows["x"], rows["y"] = 512_000.125 + np.arange(6), 5_400_000.5
    rows["z"][3] = np.nan
    rows["Red"], rows["label"], rows["echo"] = 7, np.arange(6), 3
    PlyData([PlyElement.describe(rows, "vertex")]).write(str(path))
    return rows


def test_a_file_is_kept_whole_and_its_finite_points_are_near_zero(tmp_path: Path) -> None:
    rows = _far(tmp_path / "scan.ply")
    scan = read_scan(tmp_path / "scan.ply", scale=0.5)
    assert (len(scan), scan.num_dropped, scan.scene) == (6, 1, None)
    assert scan.finite.tolist() == [True, True, True, False, True, True]
    assert list(scan.columns) == ["x", "y", "z", "input_Red", "input_label", "echo"]
    for new, old in (("x", "x"), ("z", "z"), ("input_label", "label"), ("echo", "echo")):
        assert np.array_equal(scan.columns[new], rows[old], equal_nan=new == "z")
    assert np.abs(scan.xyz).max() < 10 and scan.xyz.dtype == np.float32
    assert np.array_equal(np.diff(scan.xyz[:, 0]), [0.5, 0.5, 1.0, 0.5])


def test_a_scene_gives_its_cloud_and_itself(tmp_path: Path) -> None:
    xyz = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    np.save(tmp_path / "coord.npy", xyz)
    np.save(tmp_path / "color.npy", np.full((30, 3), 9, np.uint8))
    scan = read_scan(tmp_path)
    assert scan.scene is not None and scan.scene.cloud is not None
    assert scan.xyz is scan.scene.cloud.xyz and scan.finite.all()
    assert np.array_equal(scan.xyz, xyz)
    assert list(scan.columns) == ["x", "y", "z", "input_red", "input_green", "input_blue"]
    assert scan.up == scan.scene.world.up
