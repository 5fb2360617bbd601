"""Labels of sweeps: packing, class ids of scenes, ids of objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.datasets import load_dataset, loader
from ov3d.common.readers.sweep_labels import (
    class_names,
    read_lidarseg,
    read_nuscenes_panoptic,
    read_semantickitti,
    scene_labels,
)
from ov3d.common.scenes.scene import IGNORE
from ov3d.common.scenes.sweep import object_ids, object_numbers


def test_packed_labels_come_apart(tmp_path: Path) -> None:
    np.array([0x0007000A, 0xFFFF0103, 40], "<u4").tofile(tmp_path / "a.label")
    raw, numbers = read_semantickitti(tmp_path / "a.label", 3)
    assert (raw.tolist(), numbers.tolist()) == ([10, 259, 40], [7, 65_535, 0])
    for dtype in (np.uint16, np.int64):
        np.savez(tmp_path / "a.npz", data=np.array([17_999, 0, 31_001], dtype))
        raw, numbers = read_nuscenes_panoptic(tmp_path / "a.npz", 3)
        assert (raw.tolist(), numbers.tolist()) == ([17, 0, 31], [999, 0, 1])
    np.array([31, 0], np.uint8).tofile(tmp_path / "a.bin")
    assert read_lidarseg(tmp_path / "a.bin", 2).tolist() == [31, 0]


def test_classes_of_a_scene_leave_the_ignored_one_out() -> None:
    for name, number, last in (("semantickitti", 19, "traffic-sign"), ("nuscenes-panoptic", 16, "vegetation")):
        names = class_names(load_dataset(name))
        assert len(names) == number and names[-1] == last and names.index("car") == (0 if number == 19 else 3)


def test_truth_and_predictions_of_nuscenes_number_classes_differently(tmp_path: Path) -> None:
    spec, numbers = load_dataset("nuscenes-panoptic"), np.array([5, 0], np.int64)
    truth = scene_labels(spec, np.array([17, 30]), numbers, tmp_path)
    prediction = scene_labels(spec, np.array([4, 16]), numbers, tmp_path, "prediction")
    for labels, instances in (truth, prediction):
        assert instances is not None
        assert (labels.tolist(), instances.tolist()) == ([3, 15], [3 << 16 | 5, IGNORE])
    with pytest.raises(DataError, match="does not know: 17"):
        scene_labels(spec, np.array([4, 17]), None, tmp_path, "prediction")


def test_only_things_have_objects(tmp_path: Path) -> None:
    spec = load_dataset("semantickitti")
    labels, instances = scene_labels(spec, np.array([10, 10, 70, 0]), np.array([0, 9, 9, 9]), tmp_path)
    assert instances is not None and labels.tolist() == [0, 0, 14, IGNORE]
    assert instances.tolist() == [IGNORE, 9, IGNORE, IGNORE]
    assert object_numbers(instances).tolist() == [0, 9, 0, 0]


def test_numbers_beyond_an_ids_bits_are_refused() -> None:
    labels = np.array([3, 3], np.int32)
    assert object_ids(labels, np.array([65_535, 1], np.int32), IGNORE).tolist() == [3 << 16 | 65_535, 3 << 16 | 1]
    with pytest.raises(DataError, match=r"has the number 65,536; the largest that an id holds is 65,535"):
        object_ids(labels, np.array([65_536, 1], np.int32), IGNORE)


def test_a_class_map_of_ids_that_are_not_there_is_refused(tmp_path: Path) -> None:
    text = (Path(loader.__file__).parent / "semantickitti.yaml").read_text()
    for old, new, says in (
        ("81: 19", "81: 20", "an id maps to class 20"),
        ("{5: 20}", "{5: 40}", "written_ids of class 5"),
    ):
        assert old in text
        (tmp_path / "mine.yaml").write_text(text.replace(old, new))
        with pytest.raises(UsageError, match=says):
            load_dataset(str(tmp_path / "mine.yaml"))
