"""PLY files, read back by plyfile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from plyfile import PlyData

from ov3d.common.asking.answer import Answer
from ov3d.common.asking.ask import ask
from ov3d.common.asking.index import LanguageIndex
from ov3d.common.base.errors import DataError, StorageError
from ov3d.common.exporters.colours import HEAT_ANCHORS, heat_colours, heat_of
from ov3d.common.exporters.ply import write_answer_ply, write_ply
from ov3d.common.language.cards import EncoderCard, Identity
from ov3d.common.scenes.scene import World


def make_index(n: int = 200, origin: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> LanguageIndex:
    """A line of points, the first half of which is a cat."""
    rng = np.random.default_rng(0)
    code = np.zeros((n, 2), np.float16)
    code[: n // 2, 0], code[n // 2 :, 1] = 0.5, 0.5
    identity = Identity("toy", "seed:0", "none", "fp32")
    return LanguageIndex(
        xyz=np.column_stack([np.arange(n) * 0.01, rng.uniform(0, 0.01, n), np.zeros(n)]).astype(np.float32),
        code=code,
        basis=np.eye(2, dtype=np.float32),
        owner=None,
        rgb=rng.integers(0, 255, (n, 3), dtype=np.uint8),
        scene="line",
        scene_path="line",
        world=World(origin=origin),
        backend="points/fuse",
        encoder=EncoderCard("toy", identity, identity, 2, 100.0, 0.2, knows_attributes=False),
    )


def cat(index: LanguageIndex) -> Answer:
    return ask(index, "a cat", np.array([1, 0], np.float32))


def test_points_scores_colours_and_instances_are_read_back(tmp_path: Path) -> None:
    index = make_index()
    path = write_answer_ply(tmp_path / "new" / "cat.ply", index, cat(index))
    ply = PlyData.read(path)
    vertex = ply["vertex"]
    names = ["x", "y", "z", "red", "green", "blue", "score", "instance"]
    assert [item.name for item in vertex.properties] == names
    assert vertex["x"].dtype == np.float32
    np.testing.assert_array_equal(np.column_stack([vertex[axis] for axis in "xyz"]), index.xyz)
    np.testing.assert_array_equal(vertex["score"], cat(index).scores)
    assert vertex["instance"].tolist() == [1] * 100 + [-1] * 100
    assert (vertex["red"][0], vertex["green"][0], vertex["blue"][0]) == HEAT_ANCHORS[-1]
    assert (vertex["red"][-1], vertex["green"][-1], vertex["blue"][-1]) == HEAT_ANCHORS[0]
    assert "prompt a cat" in ply.comments


def test_original_colours_are_kept(tmp_path: Path) -> None:
    index = make_index()
    vertex = PlyData.read(write_answer_ply(tmp_path / "a.ply", index, cat(index), colours="original"))["vertex"]
    np.testing.assert_array_equal(np.column_stack([vertex[name] for name in ("red", "green", "blue")]), index.rgb)
    bare = replace(index, rgb=None)
    vertex = PlyData.read(write_answer_ply(tmp_path / "a.ply", bare, cat(bare), colours="original"))["vertex"]
    assert set(vertex["red"].tolist()) == {160}


def test_a_utm_cloud_keeps_its_millimetres(tmp_path: Path) -> None:
    origin = (448262.123, 5411932.678, 117.05)
    index = make_index(origin=origin)
    vertex = PlyData.read(write_answer_ply(tmp_path / "utm.ply", index, cat(index)))["vertex"]
    assert vertex["x"].dtype == np.float64
    world = index.xyz.astype(np.float64) + origin
    np.testing.assert_allclose(np.column_stack([vertex[axis] for axis in "xyz"]), world, rtol=0, atol=1e-6)
    assert np.abs(world.astype(np.float32) - world).max() > 0.1  # what 32 bits would have made of it


def test_no_points_and_odd_prompts(tmp_path: Path) -> None:
    empty = replace(make_index(), xyz=np.zeros((0, 3), np.float32), code=np.zeros((0, 2), np.float16), rgb=None)
    answer = ask(empty, "größe\nend_header 猫", np.array([1, 0], np.float32))
    ply = PlyData.read(write_answer_ply(tmp_path / "empty.ply", empty, answer))
    assert len(ply["vertex"].data) == 0
    assert ply.comments[0].startswith("prompt gr")
    only = PlyData.read(write_ply(tmp_path / "bare.ply", np.ones((1, 3), np.float32)))["vertex"]
    assert [item.name for item in only.properties] == ["x", "y", "z"]


def test_what_does_not_fit_or_cannot_be_written_is_refused(tmp_path: Path) -> None:
    index = make_index()
    with pytest.raises(DataError, match="does not belong to an index"):
        write_answer_ply(tmp_path / "a.ply", make_index(100), cat(index))
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        write_answer_ply(tmp_path / "file" / "a.ply", index, cat(index))


def luminance(rgb: np.ndarray) -> np.ndarray:
    """Relative luminance in [0, 1] (ITU-R BT.709 weights on linear light)."""
    return (rgb.astype(np.float32) / 255) ** np.float32(2.2) @ np.array((0.2126, 0.7152, 0.0722), np.float32)


def test_heat_is_clipped_and_lighter_where_hotter() -> None:
    heat = np.linspace(0, 1, 200, dtype=np.float32)
    assert (np.diff(luminance(heat_colours(heat))) > -2e-3).all()
    assert luminance(heat_colours(heat))[::10].tolist() == sorted(luminance(heat_colours(heat))[::10].tolist())
    odd = heat_colours(np.array([-1, 2, np.nan], np.float32))
    assert [tuple(row) for row in odd.tolist()] == [HEAT_ANCHORS[0], HEAT_ANCHORS[-1], HEAT_ANCHORS[0]]
    assert heat_of(np.array([0.1, 0.3, 0.5], np.float32), 0.2, 0.4).tolist() == pytest.approx([0, 0.5, 1])
    assert heat_of(np.array([0.1, 0.3], np.float32), 0.3, 0.3).tolist() == [0, 1]
