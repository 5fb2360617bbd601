"""Labelling scans: every point in its place, what the file says kept, and what cannot be said clearly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from ov3d.common.asking.words import NO_LABEL
from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.runs import Run
from ov3d.common.exporters.labelled import palette
from ov3d.common.learning.prediction_request import PredictRequest
from ov3d.common.readers.scan import read_scan
from ov3d.points.predict import predict_scan
from ov3d.points.turns import Pose, poses
from tests.points.networks import VOCABULARY, make_network, remember, room, text_vectors, write_run

CPU = torch.device("cpu")


@pytest.fixture
def run(tmp_path: Path, one_thread: None) -> Run:
    remember(*VOCABULARY, "seat", "blue chair")
    return write_run(tmp_path / "run", make_network())


def _write(
    path: Path, xyz: np.ndarray, rgb: np.ndarray | None = None, *, text: bool = False, **more: np.ndarray
) -> Path:
    columns = dict(zip("xyz", xyz.T, strict=True))
    columns |= {} if rgb is None else dict(zip(("red", "green", "blue"), rgb.T, strict=True))
    columns |= more
    rows = np.empty(len(xyz), [(name, values.dtype) for name, values in columns.items()])
    for name, values in columns.items():
        rows[name] = values
    PlyData([PlyElement.describe(rows, "vertex")], text=text).write(str(path))
    return path


def _expected(xyz: np.ndarray, rgb: np.ndarray | None, *prompts: str) -> tuple[np.ndarray, np.ndarray]:
    cosines = make_network().embed(xyz.astype(np.float32), rgb) @ text_vectors(*prompts).T
    return cosines.argmax(axis=1), cosines.max(axis=1)


def test_labels_scores_and_colours_are_the_networks(run: Run, tmp_path: Path) -> None:
    xyz, rgb = room(count=2_000)
    scan = _write(tmp_path / "scan.ply", xyz, rgb)
    data = predict_scan(run, scan, tmp_path / "out.ply", device=CPU)
    vertices = PlyData.read(str(tmp_path / "out.ply"))["vertex"].data
    best, score = _expected(xyz, rgb, *VOCABULARY)
    assert [vertices.dtype[name].str for name in ("x", "label", "score", "red")] == ["<f4", "<u2", "<f4", "|u1"]
    assert np.array_equal(np.column_stack([vertices[axis] for axis in "xyz"]), xyz)
    assert np.array_equal(vertices["label"], best)
    assert np.abs(vertices["score"] - score).max() < 1e-5
    assert np.array_equal(np.column_stack([vertices[name] for name in ("red", "green", "blue")]), palette(3)[best])
    assert np.array_equal(np.column_stack([vertices[f"input_{c}"] for c in ("red", "green", "blue")]), rgb)
    assert data["classes"] == {name: int((best == k).sum()) for k, name in enumerate(VOCABULARY)}
    assert (data["points"], data["not_finite"], data["unlabelled"], data["threshold"]) == (len(xyz), 0, 0, None)
    comments = PlyData.read(str(tmp_path / "out.ply")).comments
    assert comments[1:] == ["class 0 wall", "class 1 floor", "class 2 chair", f"class {NO_LABEL} no label"]


def test_points_that_are_not_finite_keep_their_place(run: Run, tmp_path: Path) -> None:
    xyz, rgb = room(count=1_000)
    lost = np.arange(len(xyz)) % 7 == 3
    broken = xyz.copy()
    broken[lost, 1] = [np.nan, np.inf, -np.inf][0]
    broken[10] = np.inf
    lost[10] = True
    data = predict_scan(run, _write(tmp_path / "scan.ply", broken, rgb), tmp_path / "out.ply", device=CPU)
    vertices = PlyData.read(str(tmp_path / "out.ply"))["vertex"].data
    assert np.array_equal(vertices["y"], broken[:, 1], equal_nan=True)
    assert (vertices["label"][lost] == NO_LABEL).all()
    assert (vertices["score"][lost] == 0).all()
    assert np.array_equal(vertices["label"][~lost], _expected(xyz[~lost], rgb[~lost], *VOCABULARY)[0])
    assert data["not_finite"] == data["unlabelled"] == lost.sum()
    assert any(f"{lost.sum():,} of {len(xyz):,} points are not finite" in note for note in data["notes"])


def test_far_coordinates_and_other_columns_are_kept_to_the_bit(run: Run, tmp_path: Path) -> None:
    xyz, rgb = room(count=1_000)
    shifted = np.round(xyz.astype(np.float64), 3) + (512_000.0, 5_400_000.0, 120.0)
    intensity = np.linspace(0, 1, len(xyz)).astype(np.float32)
    truth = np.arange(len(xyz), dtype=np.int32) % 5
    scan = _write(tmp_path / "scan.ply", shifted, rgb, intensity=intensity, label=truth)
    predict_scan(run, scan, tmp_path / "out.ply", device=CPU)
    vertices = PlyData.read(str(tmp_path / "out.ply"))["vertex"].data
    assert np.array_equal(np.column_stack([vertices[axis] for axis in "xyz"]), shifted)
    assert np.array_equal(vertices["intensity"], intensity)
    assert np.array_equal(vertices["input_label"], truth)
    again = predict_scan(
        run, tmp_path / "out.ply", tmp_path / "again.ply", PredictRequest(classes=("wall", "chair")), device=CPU
    )
    once_more = PlyData.read(str(tmp_path / "again.ply"))["vertex"].data
    assert np.array_equal(once_more["input_label"], truth)  # the first input's, not our own labels
    assert set(once_more.dtype.names) == {*vertices.dtype.names, "input_score"}
    assert list(again["classes"]) == ["wall", "chair"]


def test_other_formats_give_the_same_labels(run: Run, tmp_path: Path) -> None:
    xyz, rgb = room(count=1_000)
    expected = _expected(xyz, rgb, *VOCABULARY)[0]
    np.save(tmp_path / "scan.npy", np.concatenate([xyz, rgb.astype(np.float32)], axis=1))
    np.concatenate([xyz, rgb.astype(np.float32)], axis=1).astype("<f4").tofile(tmp_path / "scan.bin")
    (tmp_path / "pcd").mkdir()
    fields = "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\n"
    head = f"VERSION .7\n{fields}WIDTH {len(xyz)}\nHEIGHT 1\nPOINTS {len(xyz)}\nDATA binary\n"
    (tmp_path / "scan.pcd").write_bytes(head.encode() + xyz.astype("<f4").tobytes())
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "coord.npy", xyz)
    np.save(tmp_path / "arrays" / "color.npy", rgb)
    text = _write(tmp_path / "text.ply", xyz.astype(np.float64), rgb, text=True)
    for scan in (tmp_path / "scan.npy", tmp_path / "scan.bin", tmp_path / "arrays", text):
        predict_scan(run, scan, tmp_path / "out.ply", device=CPU)
        vertices = PlyData.read(str(tmp_path / "out.ply"))["vertex"].data
        assert (vertices["label"] == expected).mean() > 0.999, scan
        assert np.array_equal(vertices["x"], xyz[:, 0]), scan
        assert np.array_equal(vertices["input_red"], rgb[:, 0]), scan
    data = predict_scan(run, tmp_path / "scan.pcd", tmp_path / "out.ply", device=CPU)
    vertices = PlyData.read(str(tmp_path / "out.ply"))["vertex"].data
    assert np.array_equal(vertices["label"], _expected(xyz, None, *VOCABULARY)[0])
    assert any("no colours" in note for note in data["notes"])


def test_surveys_in_las_keep_their_coordinates(run: Run, tmp_path: Path) -> None:
    laspy = pytest.importorskip("laspy")
    xyz, rgb = room(count=1_000)
    file = laspy.create(point_format=2, file_version="1.2")
    file.header.offsets, file.header.scales = (512_000.0, 5_400_000.0, 0.0), (0.001, 0.001, 0.001)
    file.xyz = xyz + np.array([512_000.0, 5_400_000.0, 0.0])
    file.red, file.green, file.blue = (rgb.astype(np.uint16) << 8).T
    file.write(str(tmp_path / "scan.las"))
    predict_scan(run, tmp_path / "scan.las", tmp_path / "out.ply", device=CPU)
    vertices = PlyData.read(str(tmp_path / "out.ply"))["vertex"].data
    assert vertices.dtype["x"].str == "<f8"
    written = np.column_stack([vertices[axis] for axis in "xyz"])
    assert np.abs(written - np.asarray(file.xyz)).max() < 1e-6
    assert np.array_equal(vertices["input_green"], rgb[:, 1])
    assert (vertices["label"] < len(VOCABULARY)).all()


def test_scale_brings_other_units_to_metres(run: Run, tmp_path: Path) -> None:
    xyz, rgb = room(count=1_000)
    millimetres = xyz.astype(np.float64) * 1000
    scan = _write(tmp_path / "scan.ply", millimetres, rgb)
    predict_scan(run, scan, tmp_path / "out.ply", PredictRequest(scale=0.001), device=CPU)
    vertices = PlyData.read(str(tmp_path / "out.ply"))["vertex"].data
    assert np.array_equal(vertices["x"], millimetres[:, 0])
    assert (vertices["label"] == _expected(xyz, rgb, *VOCABULARY)[0]).mean() > 0.99
    tiny = _write(tmp_path / "tiny.ply", xyz / 1000, rgb)
    notes = predict_scan(run, tiny, tmp_path / "out.ply", device=CPU)["notes"]
    assert any("is it in metres" in note for note in notes)


def test_prompts_outside_the_vocabulary_are_answered_and_said(run: Run, tmp_path: Path) -> None:
    xyz, rgb = room(count=1_000)
    scan = _write(tmp_path / "scan.ply", xyz, rgb)
    best, score = _expected(xyz, rgb, "chair", "seat")
    middle = float(np.median(score)) + 1e-4
    data = predict_scan(
        run, scan, tmp_path / "out.ply", PredictRequest(prompts=("Chair", "seat"), threshold=middle), device=CPU
    )
    assert data["weakly_supervised"] == ["seat"]
    assert any("weakly supervised: seat" in note for note in data["notes"])
    vertices = PlyData.read(str(tmp_path / "out.ply"))["vertex"].data
    assert np.array_equal(vertices["label"], np.where(score < middle, NO_LABEL, best))
    assert 0 < data["unlabelled"] == (score < middle).sum() < len(xyz)
    own = predict_scan(run, scan, tmp_path / "out.ply", PredictRequest(classes=("chair",)), device=CPU)
    assert own["threshold"] == pytest.approx(0.2)  # the network's: one class is not all there is
    assert own["weakly_supervised"] == []


def test_runs_that_label_nothing(tmp_path: Path) -> None:
    scan = _write(tmp_path / "scan.ply", room(count=500)[0])
    nerf = write_run(tmp_path / "nerf", None, backend="nerf", stages=("field", "distil"))
    with pytest.raises(UsageError, match="backend nerf.* ov3d train points"):
        predict_scan(nerf, scan, tmp_path / "out.ply", device=CPU)
    fused = write_run(tmp_path / "fused", None, stages=("fuse",))
    with pytest.raises(UsageError, match=r"no 3D network \(its stages: fuse; missing: guide\).* ov3d train points"):
        predict_scan(fused, scan, tmp_path / "out.ply", device=CPU)
    broken = write_run(tmp_path / "broken", None)
    with pytest.raises(UsageError, match="3D network"):
        predict_scan(broken, scan, tmp_path / "out.ply", device=CPU)


def test_scans_that_cannot_be_labelled(run: Run, tmp_path: Path) -> None:
    xyz, rgb = room(count=500)
    good = _write(tmp_path / "good.ply", xyz, rgb)
    (tmp_path / "cut.ply").write_bytes(good.read_bytes()[:-100])
    (tmp_path / "notes.txt").write_text("no cloud")
    (tmp_path / "text.ply").write_text("no cloud")
    _write(tmp_path / "empty.ply", xyz[:0], rgb[:0])
    _write(tmp_path / "lost.ply", np.full((3, 3), np.nan, np.float32))
    for name, message in {
        "missing.ply": "Scan .* does not exist",
        "cut.ply": "cannot be read as PLY",
        "text.ply": "cannot be read as PLY",
        "notes.txt": "is not a known type of point cloud. Known: .ply",
        "empty.ply": "has no points",
        "lost.ply": "has no points with finite coordinates",
    }.items():
        with pytest.raises(DataError, match=message):
            predict_scan(run, tmp_path / name, tmp_path / "out.ply", device=CPU)
        assert not (tmp_path / "out.ply").exists()
    for output, message in {"good.ply": "would overwrite the scan", "out.txt": "must end in .ply"}.items():
        with pytest.raises(UsageError, match=message):
            predict_scan(run, good, tmp_path / output, device=CPU)
    with pytest.raises(UsageError, match="between -1 and 1, got 2"):
        predict_scan(run, good, tmp_path / "out.ply", PredictRequest(threshold=2.0), device=CPU)
    with pytest.raises(UsageError, match="scale"):
        read_scan(good, scale=-1.0)
    assert np.array_equal(PlyData.read(str(good))["vertex"]["x"], xyz[:, 0])


def test_turns_are_averaged_and_repeat(run: Run, tmp_path: Path) -> None:
    xyz, rgb = room(count=1_000)
    scan = _write(tmp_path / "scan.ply", xyz, rgb)
    outputs = []
    for seed in (3, 3, 4):
        predict_scan(run, scan, tmp_path / "out.ply", PredictRequest(turns=2, seed=seed), device=CPU)
        outputs.append(PlyData.read(str(tmp_path / "out.ply"))["vertex"]["score"])
    assert np.array_equal(outputs[0], outputs[1])
    assert not np.array_equal(outputs[0], outputs[2])
    network, text = make_network(), text_vectors(*VOCABULARY)
    moved = poses(2, "any", seed=3)[1].of(xyz, network.voxel_size)
    mean = (network.embed(xyz, rgb) @ text.T + network.embed(moved, rgb) @ text.T) / 2
    assert np.abs(outputs[0] - mean.max(axis=1)).max() < 1e-5
    with pytest.raises(UsageError, match="between 1 and 360, got 0"):
        predict_scan(run, scan, tmp_path / "out.ply", PredictRequest(turns=0), device=CPU)


def test_copies_lie_as_the_network_was_trained() -> None:
    xyz = np.random.default_rng(0).uniform(-5, 5, (50, 3)).astype(np.float32)
    for turn, angles in (("quarter", [0, 90, 180, 270, 0]), ("none", [0, 0, 0, 0, 0])):
        copies = poses(5, turn, seed=1)  # type: ignore[arg-type]
        assert np.allclose([np.degrees(pose.angle) for pose in copies], angles)
        assert copies[0].of(xyz, 0.1) is xyz and len({pose.shift for pose in copies}) == 5
    quarter = Pose(np.pi / 2, (0.5, 0.0, 0.25)).of(xyz, 0.1)
    assert np.allclose(quarter, np.column_stack([-xyz[:, 1] + 0.05, xyz[:, 0], xyz[:, 2] + 0.025]), atol=1e-5)
    assert poses(2, "any", seed=1) == poses(3, "any", seed=1)[:2] != poses(2, "any", seed=2)


def test_one_point_is_a_scan(run: Run, tmp_path: Path) -> None:
    scan = _write(tmp_path / "scan.ply", np.ones((1, 3), np.float32), np.full((1, 3), 7, np.uint8))
    assert predict_scan(run, scan, tmp_path / "out.ply", device=CPU)["points"] == 1
