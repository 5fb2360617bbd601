"""Per-point label files of ScanNet and S3DIS: text, NumPy and PLY, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ov3d.common.base.errors import DataError
from ov3d.common.datasets import load_dataset
from ov3d.common.metrics.folders import FolderOptions, evaluate_folders
from ov3d.common.metrics.label_files import FaultyFilesError


def write_points(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".txt":
        path.write_text("\n".join(map(str, labels.tolist())) + "\n")
    elif path.suffix == ".npy":
        np.save(path, labels)
    else:
        head = f"ply\nformat ascii 1.0\nelement vertex {len(labels)}\nproperty float x\nproperty ushort label\nend_header\n"
        path.write_text(head + "".join(f"0 {label}\n" for label in labels.tolist()))


@pytest.mark.parametrize("name", ["scene0000_00.txt", "scene0000_00.npy", "scene0000_00.ply"])
def test_scannet_files(tmp_path: Path, name: str) -> None:
    truth = np.array([1, 1, 2, 39, 39, 0, 40, 13])
    found = np.array([1, 2, 2, 39, 0, 5, 5, 5])
    write_points(tmp_path / "truth/scans/scene0000_00/scene0000_00_vh_clean_2.labels.ply", truth)
    (tmp_path / "truth/scans/scene0000_00/scene0000_00_vh_clean_2.ply").write_text("ply: the mesh, no labels")
    write_points(tmp_path / "found" / name, found)
    report = evaluate_folders(load_dataset("scannet"), tmp_path / "truth", tmp_path / "found")
    rows = {row.name: row for row in report.classes}
    assert [rows[one].scores["IoU"] for one in ("wall", "floor", "otherfurniture")] == [0.5, 0.5, 0.5]
    assert report.means["mIoU"] == pytest.approx(1.5 / 20)
    assert report.means["mIoU present"] == pytest.approx(0.5)
    assert report.facts == {"coverage": 0.8, "points": 5, "ignored points": 3}


def test_scannet_class_ids_are_detected(tmp_path: Path) -> None:
    write_points(tmp_path / "truth/s.txt", np.array([1, 2, 39, 39]))
    write_points(tmp_path / "found/s.txt", np.array([0, 1, 19, 19]))
    spec = load_dataset("scannet")
    with pytest.raises(DataError, match="--prediction-ids class"):
        evaluate_folders(spec, tmp_path / "truth", tmp_path / "found")
    report = evaluate_folders(spec, tmp_path / "truth", tmp_path / "found", FolderOptions(prediction_ids="class"))
    assert report.means["mIoU present"] == 1.0
    write_points(tmp_path / "truth/s.txt", np.array([0, 1, 19, -1]))
    both = evaluate_folders(
        spec, tmp_path / "truth", tmp_path / "found", FolderOptions(prediction_ids="class", truth_ids="class")
    )
    assert both.facts["ignored points"] == 1


def test_s3dis_refuses_unknown_predictions(tmp_path: Path) -> None:
    write_points(tmp_path / "truth/Area_5_office_1.npy", np.array([0, 12, -1, 255]))
    write_points(tmp_path / "found/Area_5_office_1.npy", np.array([0, 12, 3, 4]))
    spec = load_dataset("s3dis")
    assert evaluate_folders(spec, tmp_path / "truth", tmp_path / "found").means["mIoU present"] == 1.0
    for wrong, said in ((-1, "holds the label -1"), (13, "does not know: 13"), (255, "does not know: 255")):
        write_points(tmp_path / "found/Area_5_office_1.npy", np.array([0, 12, 3, wrong]))
        with pytest.raises(FaultyFilesError, match=said):
            evaluate_folders(spec, tmp_path / "truth", tmp_path / "found")
    with pytest.raises(FaultyFilesError, match=r"4294967295 \(-1 as unsigned\)"):
        write_points(tmp_path / "found/Area_5_office_1.npy", np.array([0, 12, 3, 2**32 - 1], np.uint32))
        evaluate_folders(spec, tmp_path / "truth", tmp_path / "found")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("s.txt", "1\n2.5\n", "line 2 is not an integer: 2.5"),
        ("s.txt", "1\n\n", "it holds 1 labels, the truth 2"),
        ("s.txt", "1\n2 3\n", "line 2 is not an integer: 2 3"),
        (
            "s.ply",
            "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n0\n",
            "no property label, only x",
        ),
        (
            "s.ply",
            "ply\nformat ascii 1.0\nelement vertex 9\nproperty int label\nend_header\n0\n",
            "not a complete PLY file",
        ),
        ("s.npy", "nothing", "it cannot be read"),
    ],
)
def test_damaged_point_files(tmp_path: Path, name: str, content: str, said: str) -> None:
    write_points(tmp_path / "truth/s.txt", np.array([1, 2]))
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / name).write_text(content)
    with pytest.raises(FaultyFilesError) as caught:
        evaluate_folders(load_dataset("scannet"), tmp_path / "truth", tmp_path / "found")
    assert said in caught.value.faults[0].why


def test_two_files_of_one_scan(tmp_path: Path) -> None:
    write_points(tmp_path / "truth/s.txt", np.array([1]))
    write_points(tmp_path / "found/s.txt", np.array([1]))
    write_points(tmp_path / "found/s.npy", np.array([1]))
    with pytest.raises(FaultyFilesError, match="s.npy is of the same scan"):
        evaluate_folders(load_dataset("scannet"), tmp_path / "truth", tmp_path / "found")
