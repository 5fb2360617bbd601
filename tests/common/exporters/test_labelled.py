"""Scans written with their labels, block by block, and the colours of classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from plyfile import PlyData

from ov3d.common.asking.words import NO_LABEL
from ov3d.common.exporters import labelled
from ov3d.common.exporters.labelled import NO_LABEL_COLOUR, palette, write_labelled
from ov3d.common.readers.scan import Scan


@pytest.mark.parametrize("block", [1 << 19, 7])
def test_every_point_gets_its_label_score_and_colour(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labelled, "BLOCK_POINTS", block)
    xyz = np.random.default_rng(0).normal(size=(20, 3))
    columns = {axis: xyz[:, k] for k, axis in enumerate("xyz")} | {"ring": np.arange(20, dtype=np.int16)}
    scan = Scan(tmp_path / "scan.ply", columns, xyz.astype(np.float32), None, np.ones(20, bool))
    labels = np.array([0, 1, NO_LABEL, 2, 1] * 4, np.uint16)
    scores = np.linspace(-1, 1, 20).astype(np.float32)
    write_labelled(tmp_path / "out.ply", scan, labels, scores, ("wall", "floor", "café"), ["made by\na test"])
    found = PlyData.read(str(tmp_path / "out.ply"))
    rows = found["vertex"].data
    assert rows.dtype.names == ("x", "y", "z", "ring", "label", "score", "red", "green", "blue")
    assert np.array_equal(np.column_stack([rows[axis] for axis in "xyz"]), xyz)
    for name, values in (("ring", columns["ring"]), ("label", labels), ("score", scores)):
        assert np.array_equal(rows[name], values) and rows[name].dtype == values.dtype
    rgb = np.column_stack([rows[name] for name in ("red", "green", "blue")])
    assert np.array_equal(rgb[labels == 1], np.tile(palette(3)[1], (8, 1)))
    assert np.array_equal(rgb[labels == NO_LABEL], np.tile(NO_LABEL_COLOUR, (4, 1)))
    names = ["class 0 wall", "class 1 floor", "class 2 caf\\xe9", "class 65535 no label"]
    assert found.comments == ["made by a test", *names]


def test_colours_of_classes_differ() -> None:
    colours = palette(40).astype(int)
    apart = np.abs(colours[:, None] - colours).sum(axis=2) + 1000 * np.eye(40, dtype=int)
    assert apart.min() > 10
    assert palette(0).shape == (0, 3)
