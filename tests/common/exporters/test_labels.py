"""Label files of sweeps: written, then read by our readers and scored by our evaluation, they say what they said before."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.datasets import load_dataset
from ov3d.common.exporters.labels import FORMATS, Inputs, write_submission, write_sweep_labels
from ov3d.common.metrics.folders import evaluate_folders
from ov3d.common.readers import load_scene, open_source
from ov3d.common.readers.sweep_labels import (
    read_lidarseg,
    read_nuscenes_panoptic,
    read_semantickitti,
    scene_labels,
    scored_classes,
)
from ov3d.common.scenes.scene import IGNORE, Scene
from ov3d.common.scenes.sweep import Sweep
from tests.common.readers.sweep_writers import write_nuscenes, write_semantickitti

LAYOUTS = tuple(FORMATS)


def sweep_of(num_points: int, dropped: tuple[int, ...] = ()) -> Sweep:
    """A sweep from whose file points were dropped, or none."""
    rows = np.delete(np.arange(num_points), dropped) if dropped else None
    return Sweep("000003", "08", 0, np.eye(4), {}, rows, num_points)


def read_back(name: str, path: Path, num_points: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Class ids of a scene and ids of objects from a file of predictions."""
    spec = load_dataset(name)
    if name == "nuscenes-lidarseg":
        return scene_labels(spec, read_lidarseg(path, num_points), None, path, "prediction")
    read = read_semantickitti if name == "semantickitti" else read_nuscenes_panoptic
    raw, numbers = read(path, num_points)
    return scene_labels(spec, raw, numbers, path, "truth" if name == "semantickitti" else "prediction")


def random_labels(name: str, num_points: int, *, ids: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Class ids, some of them unknown where the format has that, and ids of objects: as a reader gives them, or any."""
    rng, spec = np.random.default_rng(seed), load_dataset(name)
    labels = rng.integers(0 if name == "nuscenes-lidarseg" else -1, len(scored_classes(spec)), num_points).astype(
        np.int32
    )
    things = np.array([idx in spec.things for idx in scored_classes(spec)] + [False])
    numbers = rng.integers(0, 9, num_points)
    if ids == "of a reader":
        instances = np.where(things[labels] & (numbers > 0), labels << 16 | numbers, IGNORE)
    else:  # stuff has some too, objects reach over classes, and numbers are any
        instances = np.where(numbers > 0, np.array([3, 2**31 - 1, 70_000, 0, 12, 5, 999, 1000, 42])[numbers], -7)
    return labels, instances.astype(np.int32)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("ids", ["of a reader", "any"])
@pytest.mark.parametrize("dropped", [(), (0, 17, 399)])
def test_what_was_written_is_read(tmp_path: Path, name: str, ids: str, dropped: tuple[int, ...]) -> None:
    if name == "nuscenes-lidarseg" and dropped:
        pytest.skip("its official tool refuses points without a class: see below")
    sweep = sweep_of(400, dropped)
    labels, instances = random_labels(name, 400 - len(dropped), ids=ids)
    path = write_sweep_labels(load_dataset(name), tmp_path, sweep, labels, instances, split="val")
    read_labels, read_instances = read_back(name, path, 400)
    kept = slice(None) if sweep.file_rows is None else sweep.file_rows
    assert np.array_equal(read_labels[kept], labels)
    assert (np.delete(read_labels, np.arange(400)[kept]) == IGNORE).all()
    if name == "nuscenes-lidarseg":
        assert read_instances is None
        return
    assert read_instances is not None
    if ids == "of a reader":
        assert np.array_equal(read_instances[kept], instances)
        return
    # Any ids: the same segments, numbered from 1 within each class; stuff has none.
    spec = load_dataset(name)
    things = np.array([idx in spec.things for idx in scored_classes(spec)] + [False])
    owned = things[labels] & (instances >= 0)
    assert np.array_equal(read_instances[kept] >= 0, owned)
    pairs = np.unique(np.column_stack([labels, instances, read_instances[kept]])[owned], axis=0)
    assert len(pairs) == len(np.unique(pairs[:, :2], axis=0)) == len(np.unique(pairs[:, 2]))
    for label in np.unique(labels[owned]):
        numbers = pairs[pairs[:, 0] == label, 2] & 0xFFFF
        assert numbers.tolist() == list(range(1, len(numbers) + 1))


def test_files_are_as_the_official_tools_want_them(tmp_path: Path) -> None:
    labels = np.array([0, 0, 4, 8, 14, IGNORE], np.int32)
    instances = np.array([9, -1, 9, 9, -1, -1], np.int32)
    path = write_sweep_labels(load_dataset("semantickitti"), tmp_path, sweep_of(6), labels, instances)
    assert path == tmp_path / "sequences/08/predictions/000003.label"
    # Raw ids of the official inverse map; the objects of two classes are two, road has none.
    assert np.fromfile(path, "<u4").tolist() == [1 << 16 | 10, 10, 1 << 16 | 20, 40, 70, 0]
    spec = load_dataset("nuscenes-panoptic")
    path = write_sweep_labels(spec, tmp_path, sweep_of(6), labels, instances, split="mini_val")
    assert path == tmp_path / "panoptic/mini_val/000003_panoptic.npz"
    packed = np.load(path)["data"]
    assert packed.dtype == np.uint16 and packed.tolist() == [1001, 1000, 5001, 9001, 15_000, 0]
    spec = load_dataset("nuscenes-lidarseg")
    path = write_sweep_labels(spec, tmp_path, sweep_of(5), labels[:5], split="test")
    assert path == tmp_path / "lidarseg/test/000003_lidarseg.bin"
    assert np.fromfile(path, np.uint8).tolist() == [1, 1, 5, 9, 15]


def test_written_ids_are_those_of_the_official_inverse_map() -> None:
    spec = load_dataset("semantickitti")
    inverse = [0, 10, 11, 15, 18, 20, 30, 31, 32, 40, 44, 48, 49, 50, 51, 70, 71, 72, 80, 81]
    assert [spec.written_id(idx) for idx in range(20)] == inverse
    for name in ("nuscenes-panoptic", "nuscenes-lidarseg"):
        assert [load_dataset(name).written_id(idx) for idx in range(17)] == list(range(17))


def test_submission(tmp_path: Path) -> None:
    path = write_submission(
        load_dataset("nuscenes-panoptic"), tmp_path, split="test", inputs=Inputs(use_camera=True), task="tracking"
    )
    assert path == tmp_path / "test" / "submission.json"
    meta = {"use_camera": True, "use_lidar": True, "use_radar": False, "use_map": False, "use_external": False}
    assert json.loads(path.read_text()) == {"meta": {"task": "tracking", **meta}}
    write_submission(load_dataset("nuscenes-lidarseg"), tmp_path, split="test")
    assert json.loads(path.read_text()) == {"meta": {**meta, "use_camera": False}}
    with pytest.raises(UsageError, match=r"SemanticKITTI has no submission.json"):
        write_submission(load_dataset("semantickitti"), tmp_path, split="test")


# ------------------------------------------------------------------------------------------------- data sets, and scores


def scenes_of(name: str, root: Path) -> tuple[list[Scene], Path]:
    """A small data set, and the folder of its truth."""
    if name == "semantickitti":
        return list(open_source(write_semantickitti(root, sequences=("08",), num_points=600))), root
    write_nuscenes(root, num_points=600, panoptic=name == "nuscenes-panoptic")
    return list(open_source(root)), root / ("panoptic" if name == "nuscenes-panoptic" else "lidarseg")


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_perfect_prediction_scores_one(tmp_path: Path, name: str) -> None:
    scenes, truth = scenes_of(name, tmp_path / "data")
    spec = load_dataset(name)
    for scene in scenes:
        cloud = scene.cloud
        assert cloud is not None and cloud.labels is not None and scene.sweep is not None
        labels = np.where(cloud.labels == IGNORE, 0, cloud.labels).astype(np.int32)  # free: its truth is ignored
        write_sweep_labels(spec, tmp_path / "found", scene.sweep, labels, cloud.instances, split="val")
    report = evaluate_folders(spec, truth, tmp_path / "found")
    assert report.num_scans == len(scenes)
    seen = [row for row in report.classes if (row.scores["IoU"] or 0) > 0]
    assert len(seen) >= 3 and all(row.scores["IoU"] == 1 for row in seen)
    if name != "nuscenes-lidarseg":
        # Of SemanticKITTI's road, lane markings are segments of their own, which no prediction can tell apart.
        split = {"road"} if name == "semantickitti" else set()
        assert all(row.scores["PQ"] == 1 for row in seen if row.name not in split)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["semantickitti", "nuscenes-panoptic"])
def test_the_shared_samples_survive_the_way_out_and_back(shared_data: Path, tmp_path: Path, name: str) -> None:
    place = "semantickitti" if name == "semantickitti" else "nuscenes"
    spec, root = load_dataset(name), shared_data / "lidar" / place
    for scene in open_source(root):  # type: ignore[attr-defined]
        cloud, sweep = scene.cloud, scene.sweep
        path = write_sweep_labels(spec, tmp_path, sweep, cloud.labels, cloud.instances, split="mini_train")
        labels, instances = read_back(name, path, len(cloud))
        assert np.array_equal(labels, cloud.labels) and np.array_equal(instances, cloud.instances)
    subset = "all" if name == "semantickitti" else None
    report = evaluate_folders(spec, root if subset else root / "panoptic", tmp_path, subset=subset)
    things = [row for row in report.classes if row.name in ("car", "barrier", "truck") and (row.scores["IoU"] or 0) > 0]
    assert things and all(row.scores["PQ"] == row.scores["IoU"] == 1 for row in things)


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("name", "most", "says"),
    [
        ("nuscenes-panoptic", 999, "has 1,000 objects of car; a file for Panoptic nuScenes holds at most 999."),
        ("semantickitti", 65_535, "has 65,536 objects of car; a file for SemanticKITTI holds at most 65,535."),
    ],
)
def test_more_objects_than_a_format_holds_are_refused(tmp_path: Path, name: str, most: int, says: str) -> None:
    spec = load_dataset(name)
    car = scored_classes(spec).index(spec.names.index("car"))
    labels = np.full(most + 1, car, np.int32)
    instances = np.arange(most + 1, dtype=np.int32) + 5
    path = write_sweep_labels(spec, tmp_path, sweep_of(most), labels[:most], instances[:most], split="val")
    before = path.read_bytes()
    assert len(np.unique(read_back(name, path, most)[1])) == most
    with pytest.raises(DataError) as caught:
        write_sweep_labels(spec, tmp_path, sweep_of(most + 1), labels, instances, split="val")
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1


def test_numbers_that_another_format_held_are_numbered_anew(tmp_path: Path) -> None:
    """Object 4,000 of SemanticKITTI has no place in a file of nuScenes under that number."""
    labels = np.array([0, 0, 0], np.int32)
    path = write_sweep_labels(
        load_dataset("nuscenes-panoptic"),
        tmp_path,
        sweep_of(3),
        labels,
        np.array([4000, 17, 4000], np.int32),
        split="val",
    )
    assert np.load(path)["data"].tolist() == [1002, 1001, 1002]


@pytest.mark.parametrize(
    ("name", "num_points", "dropped", "first", "split", "says"),
    [
        ("semantickitti", 4, (), 0, None, "There are 3 labels for the 4 points of sweep 000003"),
        ("semantickitti", 4, (0, 1), 0, None, "There are 3 labels for the 2 points of sweep 000003"),
        ("semantickitti", 3, (), 18, None, "reach from -1 to 19; SemanticKITTI has classes 0 to 18"),
        ("nuscenes-lidarseg", 3, (), 0, None, "lie in a folder named after the split"),
        ("nuscenes-lidarseg", 3, (), 0, "val", "1 of 3 points of sweep 000003 have no class; the official tool of"),
        ("nuscenes-lidarseg", 5, (2, 4), 0, "val", "3 of 5 points of sweep 000003 have no class"),
        (
            "scannet",
            3,
            (),
            0,
            None,
            "has no label files of sweeps. These layouts have: semantickitti, nuscenes-panoptic, ",
        ),
    ],
)
def test_faults_are_one_line(
    tmp_path: Path, name: str, num_points: int, dropped: tuple[int, ...], first: int, split: str | None, says: str
) -> None:
    labels = np.array([first, first + 1, IGNORE], np.int32)
    with pytest.raises((DataError, UsageError)) as caught:
        write_sweep_labels(load_dataset(name), tmp_path, sweep_of(num_points, dropped), labels, split=split)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_scene_whose_points_were_dropped_gets_a_label_for_each_point_of_its_file(tmp_path: Path) -> None:
    root = write_semantickitti(tmp_path / "data", sequences=("08",))
    path = root / "sequences/08/velodyne/000001.bin"
    rows = np.fromfile(path, "<f4").reshape(-1, 4)
    rows[7, 0] = np.nan
    rows.tofile(path)
    scene = load_scene(root, "08-000001")
    assert scene.cloud is not None and scene.sweep is not None and len(scene.cloud) == 59
    written = write_sweep_labels(
        load_dataset("semantickitti"), tmp_path / "found", scene.sweep, scene.cloud.labels, scene.cloud.instances
    )
    packed = np.fromfile(written, "<u4")
    assert len(packed) == 60 and packed[7] == 0
    evaluate_folders(load_dataset("semantickitti"), root, tmp_path / "found", wanted=["08/000001"])
