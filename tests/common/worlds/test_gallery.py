"""Galleries: everything stands where it may, every photograph is seen, and the reader reads what was written."""

from __future__ import annotations

import errno
import importlib.metadata
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ov3d.common.base.errors import DataError, MissingModelError, StorageError, UsageError
from ov3d.common.base.files import hash_file
from ov3d.common.readers import load_scene
from ov3d.common.scenes.cameras import transform
from ov3d.common.scenes.scene import IGNORE, Scene
from ov3d.common.worlds import photographs as photographs_module
from ov3d.common.worlds.furniture import FURNITURE
from ov3d.common.worlds.gallery import (
    EASY,
    HARD,
    Gallery,
    GalleryConfig,
    build_gallery,
    furnished_gallery,
    photograph_gallery,
    write_gallery,
)
from ov3d.common.worlds.photographs import PHOTOGRAPHS, photograph
from ov3d.common.worlds.primitives import bounds, normals
from ov3d.common.worlds.raycast import View, cast, rays
from ov3d.common.worlds.rooms import CLASSES, WALLS

pytestmark = pytest.mark.offline_weights  # the photographs come with the packages of the extra

SMALL = GalleryConfig(seed=2, num_views=8, width=128, height=96, num_boxes=1, num_pedestals=1)
FURNISHED = GalleryConfig(seed=5, num_views=8, width=128, height=96, photographs=("cat", "flower"), furniture=6)


@pytest.fixture(scope="module")
def small() -> tuple[Gallery, list[View]]:
    gallery = build_gallery(SMALL)
    return gallery, list(gallery.views())


@pytest.fixture(scope="module")
def furnished() -> tuple[Gallery, list[View]]:
    gallery = build_gallery(FURNISHED)
    return gallery, list(gallery.views())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return write_gallery(tmp_path_factory.mktemp("worlds") / "room", SMALL)


def test_every_photograph_is_in_two_views_whole(small: tuple[Gallery, list[View]]) -> None:
    gallery, views = small
    assert sorted(p.name for p in gallery.room.pictures) == sorted(EASY)
    for picture in gallery.room.pictures:
        label = CLASSES.index(picture.name)
        whole = 0
        for view in views:
            rows, columns = np.nonzero(view.labels == label)
            inside = len(rows) and rows.min() > 0 and columns.min() > 0 and rows.max() < 95 and columns.max() < 127
            whole += bool(inside and len(rows) > 0.01 * view.labels.size)
        assert whole >= 2, picture.name


def test_pictures_look_like_the_photographs(small: tuple[Gallery, list[View]]) -> None:
    """Correlation of the rendered picture with the photograph, looked up by the exact place of each pixel."""
    gallery, views = small
    solids = gallery.room.primitives
    for picture in gallery.room.pictures:
        which = next(p for p in solids if p.instance == picture.instance)
        view = max(views, key=lambda v: (v.instances == picture.instance).sum())
        mine = np.flatnonzero(view.instances.ravel() == picture.instance)
        eye, directions = rays(view.camera, view.world_from_camera, view.camera.pixel_centres()[mine])
        _, local = normals(which, eye + view.depth.ravel()[mine, None] * directions)
        image = photograph(picture.name).levels[3]
        rows = ((1 - local[:, 1]) / 2 * image.shape[0]).astype(int).clip(0, image.shape[0] - 1)
        right = ((1 + local[:, 0]) / 2 * image.shape[1]).astype(int).clip(0, image.shape[1] - 1)
        seen = view.rgb.reshape(-1, 3)[mine].mean(axis=1)
        upright = np.corrcoef(seen, image[rows, right].mean(axis=1))[0, 1]
        mirrored = np.corrcoef(seen, image[rows, image.shape[1] - 1 - right].mean(axis=1))[0, 1]
        assert upright > 0.85, picture.name
        assert upright > mirrored + 0.2, picture.name


def test_what_one_view_measures_another_sees(furnished: tuple[Gallery, list[View]]) -> None:
    """A point measured from A is, from B's eye, the first thing met or hidden by something nearer; never in free air."""
    gallery, views = furnished
    instances = np.array([p.instance for p in gallery.room.primitives])
    visible = 0
    for a in views:
        local = a.camera.unproject(a.camera.pixel_centres(5), a.depth[::5, ::5].ravel().astype(np.float64))
        points = transform(a.world_from_camera, local)
        for b in views:
            hits = cast(gallery.room.primitives, b.world_from_camera[None, :3, 3], points - b.world_from_camera[:3, 3])
            assert hits.t.max() < 1 + 1e-5
            met = hits.t > 1 - 1e-5
            visible += met.sum()
            assert (instances[hits.primitive[met]] == a.instances[::5, ::5].ravel()[met]).mean() > 0.995
    assert visible > 3 * len(views) * 500  # besides what each sees of itself


def test_things_stand_in_the_room_on_the_floor_and_apart(furnished: tuple[Gallery, list[View]]) -> None:
    gallery, _ = furnished
    things, size = gallery.room.things, np.array(gallery.room.size)
    assert len(things) == 6 + 4
    assert len({thing.name for thing in things} & set(FURNITURE)) == 6
    for thing in things:
        low, high = bounds(thing.parts)
        assert abs(low[2]) < 1e-9
        assert (high < size / (2, 2, 1)).all()
        assert (low[:2] > -size[:2] / 2).all()
    for k, thing in enumerate(things):
        for other in things[:k]:
            assert _gap(thing.footprint, other.footprint) > 0.05, (thing.name, other.name)
    for pose in gallery.poses:
        assert (np.abs(pose[:2, 3]) < size[:2] / 2 - 0.3).all()


def _gap(a: np.ndarray, b: np.ndarray) -> float:
    """Least distance between points spread over two rectangles."""
    s = np.stack(np.meshgrid(np.linspace(0, 1, 25), np.linspace(0, 1, 25)), axis=-1).reshape(-1, 2)
    spread = [r[0] + s[:, :1] * (r[1] - r[0]) + s[:, 1:] * (r[3] - r[0]) for r in (a, b)]
    return float(np.linalg.norm(spread[0][:, None] - spread[1][None], axis=2).min())


def test_no_eye_is_inside_a_solid(furnished: tuple[Gallery, list[View]]) -> None:
    gallery, _ = furnished
    for primitive in gallery.room.primitives:
        if primitive.shape == "rectangle":
            continue
        eyes = transform(np.linalg.inv(primitive.world_from_local), np.stack([p[:3, 3] for p in gallery.poses]))
        assert (np.abs(eyes) > 1).any(axis=1).all()


def test_every_kind_of_furniture_can_stand_and_is_seen() -> None:
    config = GalleryConfig(
        seed=3,
        num_views=14,
        width=64,
        height=48,
        photographs=(),
        furniture=len(FURNITURE),
        num_boxes=0,
        num_pedestals=0,
    )
    seen = np.unique(np.concatenate([view.labels.ravel() for view in build_gallery(config).views()]))
    missing = set(FURNITURE) - {CLASSES[k] for k in seen if k != IGNORE}
    assert not missing


@pytest.mark.parametrize("kind", sorted(FURNITURE))
def test_furniture_varies_and_stands_on_the_floor(kind: str) -> None:
    sizes, colours = set(), set()
    for seed in range(8):
        parts = FURNITURE[kind](np.random.default_rng(seed))
        low, high = bounds(parts)
        assert low[2] == pytest.approx(0, abs=1e-9)
        assert 0.2 < high[2] < 2.0
        assert ((high - low)[:2] < 2.3).all()
        sizes.add(tuple(np.round(high - low, 4)))
        colours.add(tuple(part.material.colour for part in parts))
    assert len(sizes) >= 6
    assert len(colours) >= 3


def test_the_reader_reads_what_was_written(written: Scene, small: tuple[Gallery, list[View]]) -> None:
    gallery, views = small
    assert (written.layout, written.name, written.classes, written.notes) == ("scannet", "room", CLASSES, ())
    assert len(written.frames) == len(views)
    for frame, view in zip(written.frames, views, strict=True):
        assert frame.camera == gallery.camera == frame.depth.camera  # pixel centres: half out, half in
        assert np.array_equal(frame.world_from_camera, view.world_from_camera)
        assert np.array_equal(frame.load_image(), view.rgb)
        assert np.abs(frame.depth.load() - view.depth).max() < 0.000502
        assert np.array_equal(frame.labels.load(), view.labels)
        assert np.array_equal(frame.instances.load(), view.instances)


def test_the_cloud_lies_on_the_surfaces_with_their_truth(written: Scene, small: tuple[Gallery, list[View]]) -> None:
    gallery, views = small
    cloud = written.cloud
    assert len(cloud) > 10_000
    assert set(np.unique(cloud.labels)) >= {CLASSES.index(name) for name in (*EASY, "wall", "floor")}
    solids = gallery.room.primitives
    labels, instances = np.array([p.label for p in solids]), np.array([p.instance for p in solids])
    near = np.full(len(cloud), np.inf)
    agree = np.zeros(len(cloud), bool)
    for view in views:
        eye = view.world_from_camera[None, :3, 3]
        hits = cast(solids, eye, cloud.xyz - eye)
        off = np.abs(hits.t - 1) * np.linalg.norm(cloud.xyz - eye, axis=1)
        near = np.minimum(near, off)
        met = (off < 0.03) & (hits.primitive >= 0)
        agree |= met & (labels[hits.primitive] == cloud.labels) & (instances[hits.primitive] == cloud.instances)
    assert np.median(near) < 0.002
    assert (near < 0.03).mean() > 0.99
    assert agree.mean() > 0.985


def test_the_same_configuration_gives_the_same_bytes(tmp_path: Path) -> None:
    config = GalleryConfig(seed=7, num_views=4, width=48, height=36, photographs=("coffee",), num_boxes=1)
    once, twice = write_gallery(tmp_path / "a", config), write_gallery(tmp_path / "b", config)
    files = sorted(path.relative_to(once.path) for path in once.path.rglob("*") if path.is_file())
    assert len(files) == 4 * 5 + 5
    for file in files:
        assert hash_file(once.path / file) == hash_file(twice.path / file), file
    write_gallery(tmp_path / "a", config)  # over itself
    with pytest.raises(DataError, match="already holds another scene"):
        write_gallery(tmp_path / "a", GalleryConfig(num_views=3))
    other = build_gallery(replace(config, seed=8))
    assert not np.array_equal(other.poses[0], build_gallery(config).poses[0])


def test_presets_and_walls() -> None:
    assert photograph_gallery(3).furniture == 0
    assert photograph_gallery(3, photographs=HARD).photographs == HARD
    assert furnished_gallery(3) == furnished_gallery(3)
    assert len(furnished_gallery(3).photographs) == 2
    bare = GalleryConfig(num_views=1, width=32, height=24, photographs=(), num_boxes=0, num_pedestals=0, wall="plain")
    plain = build_gallery(bare).room.primitives[0].material
    for seed, kind in enumerate(WALLS):
        wall = build_gallery(replace(bare, seed=seed, wall="any")).room.primitives[0]
        assert wall.label == CLASSES.index("wall")
        assert (wall.material.texture is plain.texture) == (kind == "plain")


def test_credits_name_every_photograph_shown(written: Scene) -> None:
    text = (written.path / "credits.txt").read_text()
    assert all(PHOTOGRAPHS[name].credit in text for name in EASY)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"photographs": ("cat", "rokcet")}, "Unknown photograph 'rokcet'. Did you mean rocket"),
        ({"photographs": ("cat", "cat")}, "named twice"),
        ({"wall": "bricks"}, "Unknown kind of wall 'bricks'. Did you mean brick"),
        ({"furniture_classes": ("chaise",)}, "Unknown kind of furniture 'chaise'"),
        ({"furniture": 1, "furniture_classes": ()}, "needs at least one furniture class"),
        ({"num_views": 1}, "num_views must be at least"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_an_impossible_configuration_is_refused(change: dict, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        GalleryConfig(**change)
    assert words in str(caught.value)


def test_too_few_views_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ov3d.common.worlds.gallery._MAX_ATTEMPTS", 1)
    with pytest.raises(DataError, match="6 photographs.*2 views.*more views"):
        build_gallery(GalleryConfig(photographs=HARD, num_views=2))


def test_photographs_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    photographs_module._load.cache_clear()
    monkeypatch.setattr(importlib.metadata, "distribution", nowhere)
    with pytest.raises(MissingModelError, match=r"pip install 'ov3d\[offline\]'"):
        build_gallery(SMALL)


def test_a_full_disk_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = GalleryConfig(seed=1, num_views=2, width=32, height=24, photographs=())
    scene = write_gallery(tmp_path / "room", config)
    before = {path: hash_file(path) for path in sorted(scene.path.rglob("*")) if path.is_file()}

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="The disk is full"):
        write_gallery(tmp_path / "room", replace(config, seed=2))
    assert {path: hash_file(path) for path in sorted(scene.path.rglob("*")) if path.is_file()} == before


def test_a_view_cut_off_while_writing_is_left_out(written: Scene, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(written.path, tmp_path / "cut")
    (tmp_path / "cut" / "pose" / "3.txt").unlink()
    scene = load_scene(tmp_path / "cut")
    assert len(scene.frames) == SMALL.num_views - 1
    assert "1 image has no pose and is left out" in scene.notes
