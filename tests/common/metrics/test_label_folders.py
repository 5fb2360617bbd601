"""Folders of label files: right numbers for every layout, every fault named, the same bits for any number of processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.datasets import load_dataset
from ov3d.common.metrics import PanopticQuality, SemanticConfusion
from ov3d.common.metrics.folders import CHUNK, FolderOptions, evaluate_folders
from ov3d.common.metrics.label_files import FaultyFilesError
from tests.common.metrics.panoptic_twin import official_tool

KITTI_RAW = np.array([0, 10, 11, 15, 18, 30, 40, 44, 48, 50, 60, 70, 72, 252], np.uint32)


def kitti_tree(root: Path, *, scans: int = 4, sequence: str = "08", seed: int = 0) -> tuple[Path, Path]:
    """A small tree in the official layout, with noise in the predictions."""
    rng = np.random.default_rng(seed)
    truth, found = root / "truth/sequences" / sequence / "labels", root / "found/sequences" / sequence / "predictions"
    truth.mkdir(parents=True)
    found.mkdir(parents=True)
    for idx in range(scans):
        labels = np.repeat(rng.choice(KITTI_RAW, 20) | (rng.integers(0, 4, 20) << 16), 60).astype(np.uint32)
        labels.tofile(truth / f"{idx:06d}.label")
        noise = np.repeat(rng.random(240) < 0.3, 5)
        np.where(noise, np.uint32(40), labels).astype(np.uint32).tofile(found / f"{idx:06d}.label")
    return root / "truth", root / "found"


def rewrite(path: Path, labels: object, dtype: type = np.uint32) -> None:
    np.asarray(labels, dtype).tofile(path)


# ------------------------------------------------------------------------------------------------------ SemanticKITTI


def test_semantickitti_equals_the_official_tool(tmp_path: Path) -> None:
    truth, found = kitti_tree(tmp_path)
    official = official_tool()(20, [0], min_points=50)
    table = load_dataset("semantickitti").id_table("truth")
    for path in sorted(truth.rglob("*.label")):
        true = np.fromfile(path, np.uint32)
        predicted = np.fromfile(found / "sequences/08/predictions" / path.name, np.uint32)
        classes = [table[labels & 0xFFFF] for labels in (predicted, true)]
        official.addBatch(classes[0], predicted.astype(np.int64), classes[1], true.astype(np.int64))
    report = evaluate_folders(load_dataset("semantickitti"), truth, found)
    mean_pq, mean_sq, mean_rq, _, _, _ = official.getPQ()
    assert [report.means[name] for name in ("PQ", "SQ", "RQ")] == pytest.approx([mean_pq, mean_sq, mean_rq], abs=1e-12)
    assert report.means["mIoU"] == pytest.approx(official.getSemIoU()[0], abs=1e-15)
    assert [row.counts["TP"] for row in report.classes] == official.pan_tp[1:].tolist()
    assert report.num_scans == 4


def test_any_number_of_processes_gives_the_same_bits(tmp_path: Path) -> None:
    truth, found = kitti_tree(tmp_path, scans=2 * CHUNK + 3)
    spec = load_dataset("semantickitti")
    documents = [
        json.dumps(evaluate_folders(spec, truth, found, workers=workers).to_json(), sort_keys=True)
        for workers in (1, 3)
    ]
    assert documents[0] == documents[1]


def test_base_and_novel_groups(tmp_path: Path) -> None:
    truth, found = kitti_tree(tmp_path)
    report = evaluate_folders(load_dataset("semantickitti"), truth, found)
    by_name = {row.name: row for row in report.classes}
    novel = [by_name[name].scores["PQ"] for name in ("sidewalk", "building", "trunk")]
    assert report.groups["novel stuff"]["PQ"] == pytest.approx(np.mean(novel))
    assert by_name["truck"].group == "novel"
    assert set(report.groups) == {
        "things", "stuff", "base", "novel", "base things", "base stuff", "novel things", "novel stuff"
    }  # fmt: skip


def test_the_semantic_protocol(tmp_path: Path) -> None:
    truth, found = kitti_tree(tmp_path)
    spec = load_dataset("semantickitti")
    report = evaluate_folders(spec, truth, found, FolderOptions(protocol="semantic"))
    metric, table = SemanticConfusion(20, ignore_label=0), spec.id_table("truth")
    for path in sorted(truth.rglob("*.label")):
        predicted = np.fromfile(found / "sequences/08/predictions" / path.name, np.uint32)
        metric.update(table[predicted & 0xFFFF], table[np.fromfile(path, np.uint32) & 0xFFFF])
    assert report.means["mIoU"] == metric.compute().mean_iou


def test_coverage_is_the_same_in_both_protocols(tmp_path: Path) -> None:
    """Predicting the ignored class is no answer: a quarter of every scan is uncovered, however it is scored."""
    truth, found = kitti_tree(tmp_path)
    for path in (found / "sequences/08/predictions").iterdir():
        known = np.fromfile(truth / "sequences/08/labels" / path.name, np.uint32) & 0xFFFF > 0
        labels = np.fromfile(path, np.uint32)
        labels[np.flatnonzero(known)[::4]] = 0
        rewrite(path, labels)
    spec = load_dataset("semantickitti")
    panoptic, semantic = (
        evaluate_folders(spec, truth, found, FolderOptions(protocol=one)).facts for one in spec.protocols
    )
    assert panoptic == semantic
    assert semantic["coverage"] == pytest.approx(0.75, abs=0.01)


def test_a_subset_that_is_not_there_names_the_way_out(tmp_path: Path) -> None:
    truth, found = kitti_tree(tmp_path, sequence="00")
    spec = load_dataset("semantickitti")
    with pytest.raises(DataError, match=r"none of the sequences of val \(08\), only 00.* --subset all"):
        evaluate_folders(spec, truth, found)
    assert evaluate_folders(spec, truth, found, FolderOptions(subset="all")).num_scans == 4
    with pytest.raises(UsageError, match="no subset 'vall'.* Did you mean val"):
        evaluate_folders(spec, truth, found, FolderOptions(subset="vall"))


def test_a_list_of_scans(tmp_path: Path) -> None:
    truth, found = kitti_tree(tmp_path, sequence="00")
    (found / "sequences/00/predictions/000003.label").unlink()
    report = evaluate_folders(
        load_dataset("semantickitti"), truth, found, FolderOptions(wanted=["00/000001", "00/000002"])
    )
    assert report.num_scans == 2
    with pytest.raises(FaultyFilesError) as caught:
        evaluate_folders(load_dataset("semantickitti"), truth, found, FolderOptions(wanted=["00/000003", "00/9"]))
    assert [fault.why for fault in caught.value.faults] == [
        "its prediction is missing",
        "it is on the list, but has no ground truth",
    ]


# --------------------------------------------------------------------------------------------------------------- faults


def test_every_fault_is_listed(tmp_path: Path) -> None:
    truth, found = kitti_tree(tmp_path, scans=8)
    folder = found / "sequences/08/predictions"
    (folder / "000000.label").unlink()
    rewrite(folder / "000099.label", [40])
    (folder / "000001.label").write_bytes((folder / "000001.label").read_bytes()[:-3])
    rewrite(folder / "000002.label", [40] * 7)
    rewrite(folder / "000003.label", [2] * 1200)
    rewrite(folder / "000004.label", [-1] * 1200, np.int32)
    (truth / "sequences/08/labels/000005.label").write_bytes(b"")
    with pytest.raises(FaultyFilesError) as caught:
        evaluate_folders(load_dataset("semantickitti"), truth, found)
    faults = {Path(fault.path).name: fault.why for fault in caught.value.faults}
    assert faults == {
        "000000.label": "its prediction is missing",
        "000099.label": "it has no truth",
        "000001.label": "its size of 4797 bytes is not a multiple of 4: cut short",
        "000002.label": "it holds 7 labels, the truth 1200",
        "000003.label": "it holds ids that the class map does not know: 2",
        "000004.label": "it holds ids that the class map does not know: 65535 (-1 as unsigned)",
        "000005.label": "it holds 1200 labels, the truth 0",
    }
    assert caught.value.exit_code == 1
    assert caught.value.message.startswith("7 files cannot be scored: ")
    assert "000000.label (its prediction is missing); " in caught.value.message
    assert caught.value.message.endswith("; and 4 more.")


def test_learning_ids_are_detected_and_the_fix_is_said(tmp_path: Path) -> None:
    truth, found = kitti_tree(tmp_path)
    spec = load_dataset("semantickitti")
    table = spec.id_table("truth")
    expected = evaluate_folders(spec, truth, found, FolderOptions(protocol="semantic"))
    for path in (found / "sequences/08/predictions").iterdir():
        labels = np.fromfile(path, np.uint32)
        rewrite(path, table[labels & 0xFFFF] | (labels >> 16 << 16))
    with pytest.raises(DataError, match=r"class \(learning\) ids where raw ids are expected.*--prediction-ids class"):
        evaluate_folders(spec, truth, found)
    report = evaluate_folders(spec, truth, found, FolderOptions(protocol="semantic", prediction_ids="class"))
    assert report.means == expected.means
    with pytest.raises(FaultyFilesError, match="ids that the class map does not know"):
        evaluate_folders(spec, truth, found, FolderOptions(prediction_ids="raw"))


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    spec = load_dataset("semantickitti")
    truth, found = kitti_tree(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"No label file in .*empty \(looked for sequences/XX/labels"):
        evaluate_folders(spec, empty, found)
    with pytest.raises(DataError, match=r"No label file in .*empty \(looked for sequences/XX/predictions"):
        evaluate_folders(spec, truth, empty)
    with pytest.raises(DataError, match="folder of predictions .* does not exist"):
        evaluate_folders(spec, truth, tmp_path / "nowhere")
    with pytest.raises(UsageError, match="no protocol 'lidarseg'.* It has: panoptic, semantic"):
        evaluate_folders(spec, truth, found, FolderOptions(protocol="lidarseg"))
    with pytest.raises(UsageError, match="--workers must be at least 1, got 0"):
        evaluate_folders(spec, truth, found, workers=0)


# ------------------------------------------------------------------------------------------------------------- nuScenes


def nuscenes_tree(root: Path) -> tuple[Path, Path, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    truth, found = root / "truth/panoptic/v1.0-mini", root / "found/panoptic/mini_val"
    truth.mkdir(parents=True)
    found.mkdir(parents=True)
    labels = np.repeat(rng.choice([17, 24, 28, 30, 2, 9, 0], 30) * 1000 + rng.integers(0, 3, 30), 20).astype(np.uint16)
    table = load_dataset("nuscenes-panoptic").id_table("truth")
    predicted = (table[labels // 1000] * 1000 + labels % 1000).astype(np.uint16)
    predicted[rng.random(600) < 0.2] = 11000
    np.savez_compressed(truth / "token_panoptic.npz", data=labels)
    np.savez_compressed(found / "token_panoptic.npz", data=predicted)
    return root / "truth", root / "found", labels, predicted


def test_panoptic_nuscenes(tmp_path: Path) -> None:
    truth, found, labels, predicted = nuscenes_tree(tmp_path)
    spec = load_dataset("nuscenes-panoptic")
    report = evaluate_folders(spec, truth, found)
    metric = PanopticQuality(17, range(1, 11), ignore=[0], min_points=15)
    metric.update(predicted // 1000, predicted, spec.id_table("truth")[labels // 1000], labels)
    assert report.means["PQ"] == metric.compute().mean_pq
    assert report.means["mIoU"] == metric.compute().mean_iou


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: np.savez(path, other=np.zeros(600, np.uint16)), "it has no array named data"),
        (
            lambda path: np.savez(path, data=np.zeros((600, 2), np.uint16)),
            "it has shape 600x2, not one label per point",
        ),
        (lambda path: np.savez(path, data=np.zeros(600)), "it holds float64, not integers"),
        (lambda path: path.write_bytes(path.read_bytes()[:90]), "it cannot be read"),
        (
            lambda path: np.savez(path, data=np.full(600, -1, np.int16)),
            "it holds the label -1: negative labels are not classes",
        ),
    ],
)
def test_damaged_npz(tmp_path: Path, damage: object, said: str) -> None:
    truth, found, _, _ = nuscenes_tree(tmp_path)
    damage(found / "panoptic/mini_val/token_panoptic.npz")  # type: ignore[operator]
    with pytest.raises(FaultyFilesError) as caught:
        evaluate_folders(load_dataset("nuscenes-panoptic"), truth, found)
    assert said in caught.value.faults[0].why


def test_general_ids_in_nuscenes_predictions(tmp_path: Path) -> None:
    truth, found, labels, _ = nuscenes_tree(tmp_path)
    np.savez(found / "panoptic/mini_val/token_panoptic.npz", data=labels)
    with pytest.raises(DataError, match="beyond 16, the last challenge class.* general category ids"):
        evaluate_folders(load_dataset("nuscenes-panoptic"), truth, found)


def test_challenge_ids_in_nuscenes_truth(tmp_path: Path) -> None:
    truth, found, _, predicted = nuscenes_tree(tmp_path)
    np.savez(truth / "panoptic/v1.0-mini/token_panoptic.npz", data=predicted)
    spec = load_dataset("nuscenes-panoptic")
    with pytest.raises(DataError, match="All ids in the files of the truth are below 17.*--truth-ids class"):
        evaluate_folders(spec, truth, found)
    report = evaluate_folders(spec, truth, found, FolderOptions(truth_ids="class"))
    assert report.means["SQ"] == pytest.approx(sum(row.scores["SQ"] for row in report.classes) / 16)  # type: ignore[misc]
    assert {row.scores["PQ"] for row in report.classes} == {0.0, 1.0}


def test_lidarseg(tmp_path: Path) -> None:
    truth, found = tmp_path / "truth", tmp_path / "found"
    truth.mkdir()
    found.mkdir()
    rewrite(truth / "t_lidarseg.bin", [0] * 50 + [17] * 40 + [24] * 40, np.uint8)
    rewrite(found / "t_lidarseg.bin", [4] * 50 + [4] * 30 + [11] * 50, np.uint8)
    spec = load_dataset("nuscenes-lidarseg")
    report = evaluate_folders(spec, truth, found)
    assert report.means["mIoU"] == pytest.approx((30 / 40 + 40 / 50) / 2)
    assert next(row for row in report.classes if row.name == "bus").scores["IoU"] is None
    rewrite(found / "t_lidarseg.bin", [4] * 50 + [4] * 30 + [0] * 50, np.uint8)
    with pytest.raises(FaultyFilesError, match="does not know: 0"):
        evaluate_folders(spec, truth, found)


# ------------------------------------------------------------------------------------------------------------ real scans


@pytest.mark.shared_data
def test_real_scans_against_themselves(shared_data: Path, tmp_path: Path) -> None:
    """Truth as prediction: every segment of at least one point matches, and nothing is wrong."""
    truth = shared_data / "lidar/semantickitti"
    found = tmp_path / "sequences/00/predictions"
    found.mkdir(parents=True)
    for path in (truth / "sequences/00/labels").iterdir():
        (found / path.name).write_bytes(path.read_bytes())
    report = evaluate_folders(load_dataset("semantickitti"), truth, tmp_path, FolderOptions(subset="all"))
    assert all(row.scores["PQ"] in (0.0, 1.0) for row in report.classes)
    assert {row.name for row in report.classes if row.scores["PQ"] == 1.0} >= {"car", "road", "building", "vegetation"}
    assert sum(row.counts["FP"] + row.counts["FN"] for row in report.classes) == 0


def test_trap_five_each_data_set_has_its_own_truth(tmp_path: Path) -> None:
    """Thing points in overlapping boxes are 0 in panoptic truth and cars in lidarseg truth; both files lie in one folder.

    The prediction says truck there: free in panoptic nuScenes, wrong in lidarseg.
    """
    folder = tmp_path / "both"
    folder.mkdir()
    lidarseg = np.repeat([17, 24], [80, 40])
    panoptic = lidarseg * 1000 + 1
    panoptic[60:80] = 0
    predicted = np.repeat([4, 10, 11], [60, 20, 40])
    np.savez(tmp_path / "both/t_panoptic.npz", data=panoptic.astype(np.uint16))
    rewrite(tmp_path / "both/t_lidarseg.bin", lidarseg, np.uint8)
    found = tmp_path / "found"
    found.mkdir()
    np.savez(found / "t_panoptic.npz", data=(predicted * 1000 + 1).astype(np.uint16))
    rewrite(found / "t_lidarseg.bin", predicted, np.uint8)
    reports = [evaluate_folders(load_dataset(f"nuscenes-{name}"), folder, found) for name in ("panoptic", "lidarseg")]
    cars = [next(row.scores["IoU"] for row in report.classes if row.name == "car") for report in reports]
    assert cars == [1.0, 0.75]
    assert [report.facts["ignored points"] for report in reports] == [20, 0]
    assert "not the truth of nuscenes-lidarseg" in reports[0].notes[0]


@pytest.mark.shared_data
def test_real_nuscenes_keyframe(shared_data: Path, tmp_path: Path) -> None:
    """Both truth files as predictions, mapped to challenge classes: nothing is wrong, and only ignored points are left out."""
    root = shared_data / "lidar/nuscenes"
    table = load_dataset("nuscenes-panoptic").id_table("truth")
    truth = next((root / "panoptic").rglob("*_panoptic.npz"))
    with np.load(truth, allow_pickle=False) as archive:
        labels = archive["data"]
    np.savez(tmp_path / truth.name, data=(table[labels // 1000] * 1000 + labels % 1000).astype(np.uint16))
    report = evaluate_folders(load_dataset("nuscenes-panoptic"), root, tmp_path)
    assert report.facts["points"] == (table[labels // 1000] > 0).sum()
    assert sum(row.counts["FP"] + row.counts["FN"] for row in report.classes) == 0
    assert sum(row.counts["TP"] for row in report.classes) == len(np.unique(labels[table[labels // 1000] > 0]))
