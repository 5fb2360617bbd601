"""Arrays made elsewhere: at their pixels and points, held to their shapes, hashes and text side."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.progress import Silent
from ov3d.common.lifting.lift import LiftConfig
from ov3d.common.scenes.cameras import Camera
from ov3d.common.scenes.distortion import Distortion, straighten_nearest
from ov3d.common.scenes.scene import Frame, Scene
from ov3d.common.teachers import open_teacher
from ov3d.common.teachers.arrays import ArrayTeacher
from tests.common.small_scenes import box_scene
from tests.common.teachers.fakes import DIM, WordEncoder, words

__all__ = ["words"]

CPU = torch.device("cpu")
CONFIG = LiftConfig(border=2)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return box_scene(tmp_path / "scene", 3)


@pytest.fixture
def folder(tmp_path: Path, scene: Scene, words: WordEncoder) -> Path:
    """Full-size features of the scene's labels, of lengths that differ; zeros where there is no label."""
    out = tmp_path / "arrays"
    out.mkdir()
    text = np.concatenate([words.encode_text(["floor", "box"]), np.zeros((1, DIM), np.float32)])
    for number, frame in enumerate(scene.frames):
        assert frame.labels is not None
        features = text[frame.labels.load()] * (number + 2)
        if number == 2:
            save_file(
                {"features": features.astype(np.float16), "other": np.zeros(3)}, out / f"{frame.name}.safetensors"
            )
        else:
            np.save(out / f"{frame.name}.npy", features.astype([np.float16, np.float64][number]))
    return out


def _teacher(folder: Path, scene: Scene | None = None) -> ArrayTeacher:
    teacher = open_teacher(f"features:{folder}", text_encoder="minilm", device=CPU)
    assert isinstance(teacher, ArrayTeacher)
    if scene is not None:
        teacher.features_of(scene, extract=True, progress=Silent())
    return teacher


def test_arrays_of_the_photographs_size_are_taken_pixel_by_pixel(
    scene: Scene, folder: Path, words: WordEncoder
) -> None:
    source = _teacher(folder, scene).source
    text = words.encode_text(["floor", "box"])
    for frame in scene.frames:
        assert frame.labels is not None
        truth, uv = frame.labels.load().ravel(), frame.camera.pixel_centres()
        np.testing.assert_array_equal(source.known(frame, uv), truth >= 0)
        features = source.pixel_features(frame, uv)
        np.testing.assert_allclose(features[truth >= 0], text[truth[truth >= 0]], atol=1e-3)
        assert not features[truth < 0].any()
        expected = (features @ text[0]).reshape(48, 64)[::3, ::3]
        np.testing.assert_allclose(source.relevancy(frame, text[0], 3), expected, atol=1e-6)


def _slow_bilinear(grid: np.ndarray, x: float, y: float) -> np.ndarray:
    """Between the centres of a grid over the unit square; cells without a vector count for nothing."""
    rows, columns, _ = grid.shape
    sums = np.zeros(grid.shape[2])
    u, v = min(max(x * columns - 0.5, 0), columns - 1), min(max(y * rows - 0.5, 0), rows - 1)
    for r in range(rows):
        for c in range(columns):
            weight = max(1 - abs(u - c), 0) * max(1 - abs(v - r), 0)
            norm = np.linalg.norm(grid[r, c])
            if weight and norm:
                sums += weight * grid[r, c] / norm
    return sums / (np.linalg.norm(sums) or 1)


def test_coarser_grids_are_interpolated_as_a_slow_loop_does(scene: Scene, tmp_path: Path, words: WordEncoder) -> None:
    rng = np.random.default_rng(0)
    frame = scene.frames[0]
    grid = rng.normal(size=(5, 7, DIM)).astype(np.float32)
    grid[1, 2] = grid[4] = 0
    (tmp_path / "grids").mkdir()
    np.save(tmp_path / "grids" / "0.npy", grid)
    source = _teacher(tmp_path / "grids", replace(scene, frames=(frame,))).source
    uv = frame.camera.pixel_centres()[rng.choice(64 * 48, 200, replace=False)]
    expected = np.stack([_slow_bilinear(grid.astype(np.float64), u / 64, v / 48) for u, v in uv])
    np.testing.assert_allclose(source.pixel_features(frame, uv), expected, atol=1e-5)
    np.testing.assert_array_equal(source.known(frame, uv), expected.any(axis=1))
    assert not source.known(frame, np.array([[32.0, 47.5]]))[0]


def test_arrays_over_a_distorted_photograph(tmp_path: Path, words: WordEncoder) -> None:
    lens = Distortion("opencv", (-0.3, 0.1), Camera(40, 30, 30.0, 30.0, 20.0, 15.0))
    camera = Camera(44, 34, 24.0, 24.0, 22.0, 17.0)  # it sees beyond the photograph
    frame = Frame("a", tmp_path / "a.jpg", camera, np.eye(4), distortion=lens)
    frame.image_path.write_bytes(b"x")
    (tmp_path / "arrays").mkdir()
    values = np.random.default_rng(0).normal(size=(30, 40, DIM)).astype(np.float32)
    np.save(tmp_path / "arrays" / "a.npy", values)
    source = _teacher(tmp_path / "arrays", Scene("s", tmp_path, "test", (frame,))).source
    number = straighten_nearest(np.arange(1200).reshape(30, 40), lens, camera, outside=-1).ravel()
    uv = camera.pixel_centres()
    inside = number >= 0
    assert 0.3 < inside.mean() < 1
    np.testing.assert_array_equal(source.known(frame, uv), inside)
    unit = values.reshape(-1, DIM) / np.linalg.norm(values.reshape(-1, DIM), axis=1, keepdims=True)
    np.testing.assert_allclose(source.pixel_features(frame, uv)[inside], unit[number[inside]], atol=1e-5)
    every_second = (source.pixel_features(frame, uv) @ unit[0]).reshape(34, 44)[::2, ::2]
    np.testing.assert_allclose(source.relevancy(frame, unit[0], 2), every_second, atol=1e-6)


@pytest.mark.parametrize("ending", ["npy", "safetensors"])
def test_arrays_of_points_need_no_photograph(scene: Scene, tmp_path: Path, words: WordEncoder, ending: str) -> None:
    assert scene.cloud is not None
    assert scene.cloud.labels is not None
    features = words.encode_text(["floor", "box"])[scene.cloud.labels] * 3
    features[::5] = 0
    (tmp_path / "arrays").mkdir()
    if ending == "npy":
        np.save(tmp_path / "arrays" / "box.npy", features)
    else:
        save_file({"whatever": features}, tmp_path / "arrays" / "points.safetensors")
    bare = replace(scene, frames=())
    teacher = _teacher(tmp_path / "arrays", bare)
    assert not teacher.needs_images(bare)
    lifted = teacher.lift(bare, scene.cloud, (), CONFIG, progress=Silent())
    np.testing.assert_array_equal(lifted.point_row, np.flatnonzero(np.arange(len(features)) % 5))
    np.testing.assert_allclose(lifted.features(), features[lifted.point_row] / 3, atol=1e-3)
    assert lifted.key == teacher.lifted_key(bare, scene.cloud, (), CONFIG)
    other = replace(scene.cloud, xyz=scene.cloud.xyz + np.float32(1))
    assert lifted.key != teacher.lifted_key(bare, other, (), CONFIG)
    fewer = replace(scene.cloud, xyz=scene.cloud.xyz[1:], rgb=None, labels=None, instances=None)
    with pytest.raises(DataError, match=r"rows, the cloud of box .* points"):
        teacher.lift(bare, fewer, (), CONFIG, progress=Silent())


def test_the_key_follows_the_content(scene: Scene, folder: Path) -> None:
    key = _teacher(folder, scene).source.key(scene.frames[0])
    values = np.load(folder / "0.npy")
    np.save(folder / "0.npy", values)
    assert _teacher(folder, scene).source.key(scene.frames[0]) == key
    np.save(folder / "0.npy", values * np.float16(0.5))
    assert _teacher(folder, scene).source.key(scene.frames[0]) != key


def test_a_list_of_hashes_is_held_to(scene: Scene, folder: Path) -> None:
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  ./{path.name}" for path in sorted(folder.iterdir())]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    _teacher(folder, scene)
    np.save(folder / "0.npy", np.load(folder / "0.npy") * np.float16(0.5))
    with pytest.raises(DataError, match=r"0\.npy does not match its hash in SHA256SUMS"):
        _teacher(folder, scene)
    (folder / "SHA256SUMS").write_text(lines[1] + "\n")
    with pytest.raises(DataError, match=r"0\.npy is not listed"):
        _teacher(folder, scene)
    (folder / "SHA256SUMS").write_text("what\n")
    with pytest.raises(DataError, match="Line 1 of .* must be a hash"):
        _teacher(folder, scene)


def test_the_text_side_is_the_one_that_was_named(folder: Path, words: WordEncoder) -> None:
    teacher = _teacher(folder)
    assert teacher.card.spec == f"features:{folder}@minilm"
    assert teacher.card.text == words.card.text
    np.testing.assert_array_equal(teacher.text(["box"]), words.encode_text(["box"]))
    assert teacher.describe() == {"kind": "arrays", "arrays": str(folder), "text_encoder": "minilm"}
    with pytest.raises(UsageError, match="does not name the text encoder"):
        open_teacher(f"features:{folder}", device=CPU)
    with pytest.raises(UsageError, match="--refine does not apply to"):
        open_teacher(f"features:{folder}@minilm", refine="dino", device=CPU)
    with pytest.raises(UsageError, match="encodes only text"):
        open_teacher("minilm", device=CPU)


def _with(values: np.ndarray, place: tuple[int, ...], value: float) -> np.ndarray:
    changed = values.copy()
    changed[place] = value
    return changed


GOOD = np.ones((4, 5, DIM), np.float32)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (_with(GOOD, (1, 2, 3), np.nan), r"NaN or infinity in 1 of 20 vectors"),
        (_with(GOOD, (1, 2), np.inf), r"NaN or infinity in 1 of 20"),
        (np.ones((4, 5, DIM + 1), np.float32), f"features of width {DIM + 1}, the text encoder's vectors have {DIM}"),
        (np.ones((DIM, 4, 5), np.float32), r"transposed, as \[h, w, d\]"),
        (np.ones((4, DIM), np.float32), r"features of a frame must be \[h, w, d\]"),
        (np.ones((4, 5, DIM), np.int64), "is not an array of features"),
        (np.ones((1, 4, 5, DIM), np.float32), "is not an array of features"),
        (np.ones((0, 5, DIM), np.float32), "is not an array of features"),
        (np.array([{}]), "Cannot read"),
        (None, "Cannot read"),
    ],
)
def test_what_is_wrong_with_an_array_is_said(scene: Scene, folder: Path, values: np.ndarray | None, says: str) -> None:
    path = folder / "1.npy"
    if values is None:
        path.write_bytes(path.read_bytes()[:200])
    else:
        np.save(path, values, allow_pickle=True)
    for _ in range(2):  # what was found wrong is not remembered as right
        with pytest.raises(DataError, match=says) as caught:
            _teacher(folder, scene)
        assert "1.npy" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_what_is_missing_is_said(scene: Scene, folder: Path, tmp_path: Path) -> None:
    (folder / "1.npy").unlink()
    with pytest.raises(DataError, match=r"No features for 1 of 3 frames of box .*1\.color\.npy"):
        _teacher(folder, scene)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is empty"):
        _teacher(tmp_path / "empty")
    save_file({"a": GOOD, "b": GOOD}, folder / "1.safetensors")
    with pytest.raises(DataError, match="2 tensors, none of them named features"):
        _teacher(folder, scene)
    twins = tuple(replace(frame, name=f"x{frame.name}", image_path=Path("0.jpg")) for frame in scene.frames)
    with pytest.raises(DataError, match="x0 and x1 of box would share"):
        _teacher(folder, replace(scene, frames=twins))
