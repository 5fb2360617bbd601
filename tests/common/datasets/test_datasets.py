"""Class maps against the official tables, and what the loader refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.datasets import dataset_names, load_dataset
from ov3d.common.datasets.loader import NO_CLASS, UNKNOWN_ID

NAMES = ("3d-ovs", "lerf-ovs", "nuscenes-lidarseg", "nuscenes-panoptic", "s3dis", "scannet", "semantickitti")

KITTI = {  # class: raw ids, as the data set's own configuration groups them
    0: (0, 1, 52, 99), 1: (10, 252), 2: (11,), 3: (15,), 4: (18, 258), 5: (13, 16, 20, 256, 257, 259), 6: (30, 254),
    7: (31, 253), 8: (32, 255), 9: (40, 60), 10: (44,), 11: (48,), 12: (49,), 13: (50,), 14: (51,), 15: (70,), 16: (71,),
    17: (72,), 18: (80,), 19: (81,),
}  # fmt: skip
NUSCENES = {9: 1, 14: 2, 15: 3, 16: 3, 17: 4, 18: 5, 21: 6, 2: 7, 3: 7, 4: 7, 6: 7, 12: 8, 22: 9, 23: 10} | {
    24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 30: 16
}  # fmt: skip
NYU40 = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39]


def test_every_data_set_loads_and_is_versioned() -> None:
    assert dataset_names() == NAMES
    for name in NAMES:
        spec = load_dataset(name)
        assert spec.name == name
        assert spec.version >= 1


def test_semantickitti_map() -> None:
    spec = load_dataset("semantickitti")
    table = spec.id_table("truth")
    for idx, raw_ids in KITTI.items():
        assert table[list(raw_ids)].tolist() == [idx] * len(raw_ids)
    assert (table != UNKNOWN_ID).sum() == sum(map(len, KITTI.values()))
    assert spec.things == tuple(range(1, 9))
    assert spec.stuff == tuple(range(9, 20))
    assert (spec.min_points, spec.default_subset, spec.subsets["val"]) == (50, "val", ("08",))


@pytest.mark.parametrize("name", ["nuscenes-panoptic", "nuscenes-lidarseg"])
def test_nuscenes_maps(name: str) -> None:
    spec = load_dataset(name)
    assert spec.id_table("truth").tolist() == [NUSCENES.get(raw, 0) for raw in range(32)]
    known = spec.id_table("prediction")
    assert known[1:].tolist() == list(range(1, 17))
    assert known[0] == (0 if name == "nuscenes-panoptic" else UNKNOWN_ID)
    assert spec.things == tuple(range(1, 11))


def test_scannet_map() -> None:
    table = load_dataset("scannet").id_table("truth")
    assert table[NYU40].tolist() == list(range(20))
    assert set(np.delete(table, NYU40).tolist()) == {NO_CLASS}


def test_s3dis_map() -> None:
    spec = load_dataset("s3dis")
    assert spec.id_table("prediction").tolist() == list(range(13))
    assert spec.id_table("truth")[255] == NO_CLASS
    assert (spec.negative_ids("truth"), spec.negative_ids("prediction")) == ((-1,), ())
    assert spec.names[0] == "ceiling"
    assert spec.names[-1] == "clutter"


@pytest.mark.parametrize("name", ["semantickitti", "nuscenes-panoptic", "nuscenes-lidarseg"])
def test_splits_have_novel_things_and_stuff(name: str) -> None:
    spec = load_dataset(name)
    split = spec.split()
    assert split is not None
    kinds = {one.kind for one in spec.classes if one.name in split.novel}
    assert kinds == {"thing", "stuff"}
    with pytest.raises(UsageError, match="has no split 'b12n5'"):
        spec.split("b12n5")


def test_prompts() -> None:
    assert load_dataset("semantickitti").prompts("trunk") == ("tree trunk",)
    assert load_dataset("scannet").prompts("bookshelf") == ("bookshelf",)
    with pytest.raises(UsageError, match="Did you mean bookshelf"):
        load_dataset("scannet").prompts("bookshelve")


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(UsageError, match="Unknown data set 'semantickity'.* Did you mean semantickitti"):
        load_dataset("semantickity")


BAD = {
    "classs: []": "Unknown configuration key classs .*Did you mean classes",
    "version: 0": "version",
    "classes: [{id: 1, name: a, kind: thing}]": "class ids are not 0, 1, 2",
    "classes: [{id: 0, name: a, kind: thing}, {id: 1, name: a, kind: thing}]": "same name",
    "ignored_class: 0": "ignored_class",
    "truth_ids: {3: 7}": "maps to class 7",
    "splits: {s: {novel: [zebra]}}": "'zebra', which is not a class",
    "default_split: nothing": "default_split 'nothing' does not exist",
    "protocols: [panoptic]": "need an ignored class",
}


@pytest.mark.parametrize(("line", "said"), BAD.items())
def test_a_wrong_file_is_refused(tmp_path: Path, line: str, said: str) -> None:
    keys = {"name": "x", "version": 1, "title": "X", "protocols": "[semantic]", "layout": "points"}
    keys.pop(line.partition(":")[0], None)
    path = tmp_path / "own.yaml"
    path.write_text("\n".join([*(f"{key}: {value}" for key, value in keys.items()), line]))
    with pytest.raises(UsageError, match=said):
        load_dataset(str(path))


def test_ones_own_file(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("{name: own, version: 3, title: Own, protocols: [semantic], layout: points}")
    assert load_dataset(str(path)).version == 3
    with pytest.raises(DataError, match="Configuration file .* does not exist"):
        load_dataset(str(tmp_path / "other.yaml"))
