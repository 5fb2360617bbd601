"""Clouds as arrays: Pointcept's folders, OpenScene's .pth files, and .npy."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from ov3d.common.datasets import load_dataset
from ov3d.common.readers import load_scene
from ov3d.common.scenes.scene import IGNORE, PointCloud
from tests.common.readers.layouts import error_of

RNG = np.random.default_rng(0)
LABELS = np.array([0, 1, 19, 20, -1, 255, 2], np.int32)
CLOUD = PointCloud(
    xyz=RNG.normal(size=(7, 3)).astype(np.float32),
    rgb=RNG.integers(0, 256, (7, 3), dtype=np.uint8),
    labels=np.where((LABELS >= 0) & (LABELS < 20), LABELS, IGNORE).astype(np.int32),
    instances=np.array([0, 1, -1, 3, 3, 0, 2], np.int32),
)
NAMES = load_dataset("scannet").names


def write_pointcept(folder: Path) -> Path:
    folder.mkdir()
    assert CLOUD.rgb is not None and CLOUD.instances is not None
    np.save(folder / "coord.npy", CLOUD.xyz)
    np.save(folder / "color.npy", CLOUD.rgb.astype(np.float32))
    np.save(folder / "segment20.npy", LABELS.astype(np.int16))
    np.save(folder / "instance.npy", CLOUD.instances.astype(np.int64))
    return folder


def write_openscene(folder: Path, *, tensors: bool = False) -> Path:
    folder.mkdir()
    assert CLOUD.rgb is not None
    parts = (CLOUD.xyz, CLOUD.rgb.astype(np.float32) / 127.5 - 1, np.where(LABELS < 0, 255, LABELS).astype(np.uint8))
    torch.save(tuple(torch.from_numpy(part) for part in parts) if tensors else parts, folder / "room.pth")
    (folder / "classes.txt").write_text("\n".join(NAMES))
    return folder / "room.pth"


def write_npy(folder: Path, scale: float = 1.0) -> Path:
    folder.mkdir()
    assert CLOUD.rgb is not None
    np.save(folder / "room.npy", np.column_stack([CLOUD.xyz, CLOUD.rgb * scale, LABELS]).astype(np.float64))
    (folder / "classes.txt").write_text("\n".join(NAMES))
    return folder / "room.npy"


@pytest.mark.parametrize("layout", ["pointcept", "openscene", "openscene tensors", "npy", "npy in one"])
def test_the_same_cloud_in_every_layout(tmp_path: Path, layout: str) -> None:
    folder = tmp_path / "room"
    path = {
        "pointcept": lambda: write_pointcept(folder),
        "openscene": lambda: write_openscene(folder),
        "openscene tensors": lambda: write_openscene(folder, tensors=True),
        "npy": lambda: write_npy(folder),
        "npy in one": lambda: write_npy(folder, 1 / 255),
    }[layout]()
    scene = load_scene(path)
    assert (scene.name, scene.layout, scene.notes) == ("room", layout.split()[0], ())
    cloud = scene.cloud
    assert cloud is not None and not scene.frames and scene.classes == NAMES
    np.testing.assert_array_equal(cloud.xyz, CLOUD.xyz)
    np.testing.assert_array_equal(cloud.rgb, CLOUD.rgb)
    np.testing.assert_array_equal(cloud.labels, CLOUD.labels)
    if layout == "pointcept":
        np.testing.assert_array_equal(cloud.instances, CLOUD.instances)


def test_labels_without_names_and_points_that_are_not_finite_are_noted(tmp_path: Path) -> None:
    path = write_npy(tmp_path / "a")
    (path.parent / "classes.txt").unlink()
    rows = np.load(path)
    rows[2, 1] = np.inf
    rows[:, 0] += 400_000
    np.save(path, rows)
    scene = load_scene(path)
    assert scene.cloud is not None and scene.cloud.labels is None and len(scene.cloud) == 6
    assert "1 of 7 points in room.npy are not finite and are left out" in scene.notes
    assert "the labels of room.npy are left out: no classes.txt names their ids" in scene.notes
    expected = np.delete(CLOUD.xyz, 2, axis=0) + np.array([400_000, 0, 0])
    np.testing.assert_allclose(scene.cloud.xyz + np.array(scene.world.origin), expected, atol=1e-6)


class _Trap:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_no_file_runs_code(tmp_path: Path) -> None:
    trap = _Trap(tmp_path / "sprung")
    path = write_openscene(tmp_path / "a")
    torch.save((CLOUD.xyz, trap), path)
    assert "something other than arrays" in error_of(path).message
    npy = write_npy(tmp_path / "b")
    np.save(npy, np.array([trap], dtype=object), allow_pickle=True)
    assert "cannot be read as an array" in error_of(npy).message
    assert not (tmp_path / "sprung").exists()


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    pth = write_openscene(tmp_path / "a")
    whole = pth.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 30):
        pth.write_bytes(whole[:length])
        assert str(pth) in error_of(pth).message
    for value, says in (
        ({"xyz": 1}, "does not hold"),
        ((1, 2, 3), "positions in .*room.pth are missing"),
        ((CLOUD.xyz[:, :2], CLOUD.rgb), r"shape \(7, 2\)"),
        ((CLOUD.xyz, CLOUD.rgb, LABELS[:3]), r"labels .* shape \(3,\)"),
    ):
        torch.save(value, pth)
        error = error_of(pth)
        assert re.search(says, error.message), error.message
    folder = write_pointcept(tmp_path / "b")
    for name, array, says in (
        ("color", CLOUD.xyz[:3], "colours"),
        ("instance", np.array(["a"] * 7), "instances"),
        ("coord", np.full((7, 3), np.nan), "no points with finite"),
        ("coord", np.zeros((0, 3)), "positions"),
    ):
        kept = (folder / f"{name}.npy").read_bytes()
        np.save(folder / f"{name}.npy", array)
        assert says in error_of(folder).message
        (folder / f"{name}.npy").write_bytes(kept[: len(kept) // 2])
        assert f"{name}.npy cannot be read as an array" in error_of(folder).message
        (folder / f"{name}.npy").write_bytes(kept)
    (folder / "coord.npy").unlink()
    assert "is not a scene" in error_of(folder, "pointcept").message
    npy = write_npy(tmp_path / "c")
    np.save(npy, np.zeros((5, 4)))
    assert "has shape (5, 4)" in error_of(npy).message
    with npy.open("wb") as stream:
        np.savez(stream, a=np.zeros(3))
    assert "holds several arrays" in error_of(npy).message
