from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ov3d.common.base.errors import CorruptFileError, DataError, UsageError
from ov3d.common.base.files import hash_file
from ov3d.common.features.content_hash import ContentHasher
from ov3d.common.features.crops import CropPlan
from ov3d.common.features.extract import extract_features
from ov3d.common.features.store import FeatureStore, verify_cache
from ov3d.common.scenes.scene import Frame
from tests.common.features.fakes import DIM, PLAN, FakeEncoder, make_frame, make_store, picture


def settle(path: Path) -> None:
    """Make a file look as if it had been changed a minute ago, so that its hash is remembered."""
    then = path.stat().st_mtime_ns - 60 * 10**9
    os.utime(path, ns=(then, then))


@pytest.fixture
def frame(tmp_path: Path) -> Frame:
    return make_frame(tmp_path / "images", "a")


def test_round_trip_keeps_the_encoders_vectors(tmp_path: Path, frame: Frame) -> None:
    encoder, store = FakeEncoder(), make_store(tmp_path / "store")
    assert store.fault(frame) == "missing"
    extract_features([frame], store, encoder)
    assert store.has(frame)
    # One crop covers the top left pixel of each scale: its feature is that crop's vector, to fp16.
    grids = PLAN.boxes(96, 72)
    crops = [picture(97, 96, 72)[: grid.size, : grid.size].transpose(2, 0, 1) for grid in grids]
    torch_crops = [torch.from_numpy(np.ascontiguousarray(crop))[None] for crop in crops]
    expected = np.stack([encoder.encode_crops(crop).numpy()[0] for crop in torch_crops])
    features = store.features_at(frame, np.array([[0.5, 0.5]]))
    assert features.shape == (1, 2, DIM)
    np.testing.assert_allclose(features[0], expected, atol=1e-3)


def test_repeated_and_fractional_coordinates_mean_their_pixel(tmp_path: Path, frame: Frame) -> None:
    store = make_store(tmp_path / "store")
    extract_features([frame], store, FakeEncoder())
    few = np.array([[10.5, 20.5], [95.5, 71.5], [40.5, 3.5]])
    many = np.repeat(few, 50, axis=0) + np.random.default_rng(0).uniform(-0.49, 0.49, (150, 2))
    np.testing.assert_array_equal(store.features_at(frame, many), np.repeat(store.features_at(frame, few), 50, axis=0))
    np.testing.assert_array_equal(
        store.pixel_features(frame, many), np.repeat(store.pixel_features(frame, few), 50, axis=0)
    )
    np.testing.assert_array_equal(
        store.pixel_features(frame, np.array([[96.0, 72.0]])), store.pixel_features(frame, few[1:2])
    )


@pytest.mark.parametrize("uv", [[-0.1, 3.0], [3.0, 72.1], [np.nan, 3.0]])
def test_pixels_outside_are_refused(tmp_path: Path, frame: Frame, uv: list[float]) -> None:
    store = make_store(tmp_path / "store")
    extract_features([frame], store, FakeEncoder())
    with pytest.raises(DataError, match="outside image a"):
        store.features_at(frame, np.array([[1.0, 1.0], uv]))


def test_store_relevancy_follows_pixel_centres(tmp_path: Path, frame: Frame) -> None:
    store = make_store(tmp_path / "store")
    extract_features([frame], store, FakeEncoder())
    text = np.eye(DIM, dtype=np.float32)[3]
    dense = store.pixel_features(frame, frame.camera.pixel_centres(5)) @ text
    np.testing.assert_allclose(store.relevancy(frame, text, 5), dense.reshape(15, 20), atol=1e-6)


def test_missing_features_say_how_many_and_what_to_run(tmp_path: Path, frame: Frame) -> None:
    store = make_store(tmp_path / "store")
    other = make_frame(tmp_path / "images", "b")
    extract_features([frame], store, FakeEncoder())
    assert store.missing([frame, other]) == [other]
    with pytest.raises(DataError) as failure:
        store.require([frame, other], "desk")
    assert str(failure.value) == (
        "No cached features for 1 of 2 images in desk (encoder fake). Run: ov3d extract-features desk --encoder fake"
    )
    with pytest.raises(DataError, match="No cached features for image b"):
        store.features_at(other, np.array([[1.0, 1.0]]))
    store.require([frame], "desk")


def test_keys_tell_image_encoder_and_plan_apart(tmp_path: Path, frame: Frame) -> None:
    other = make_frame(tmp_path / "images", "b")
    keys = {
        make_store(tmp_path).key(frame),
        make_store(tmp_path).key(other),
        make_store(tmp_path, FakeEncoder(8)).key(frame),
        make_store(tmp_path, plan=CropPlan((0.3,))).key(frame),
    }
    assert len(keys) == 4


def test_a_changed_file_is_read_anew_and_a_damaged_one_refused(tmp_path: Path, frame: Frame) -> None:
    store = make_store(tmp_path / "store")
    extract_features([frame], store, FakeEncoder())
    uv = np.array([[5.5, 5.5]])
    before = store.features_at(frame, uv)
    path = store.path(frame)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[-100] ^= 4
    path.write_bytes(bytes(damaged))
    assert not store.has(frame)
    assert "checksum" in store.fault(frame)
    with pytest.raises(CorruptFileError):
        store.features_at(frame, uv)
    path.write_bytes(whole)
    np.testing.assert_array_equal(store.features_at(frame, uv), before)


def test_only_a_few_views_stay_loaded(tmp_path: Path) -> None:
    frames = [make_frame(tmp_path / "images", name) for name in "abcd"]
    store = FeatureStore(tmp_path / "store", FakeEncoder().card, PLAN, keep=2)
    extract_features(frames, store, FakeEncoder())
    first = store.load(frames[0])
    assert store.load(frames[0]) is first
    store.load(frames[1])
    store.load(frames[2])
    assert store.load(frames[0]) is not first


def test_writes_go_to_the_right_kind_of_store(tmp_path: Path, frame: Frame) -> None:
    with pytest.raises(UsageError, match="cannot store superpixels"):
        make_store(tmp_path).write_segments(frame, np.zeros((2, 2), np.uint16), np.zeros((1, 3), np.float16))


def test_default_root_is_in_the_cache(tmp_path: Path) -> None:
    assert FeatureStore(None, FakeEncoder().card).root == tmp_path / "cache" / "features"


# ------------------------------------------------------------------------------------------------------------ hashes


def test_hashes_are_remembered_by_path_size_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, memo = tmp_path / "a.png", tmp_path / "memo.sqlite"
    image.write_bytes(b"first")
    settle(image)
    digest = ContentHasher(memo).hash(image)
    assert digest == hash_file(image)
    monkeypatch.setattr("ov3d.common.features.content_hash.hash_file", lambda _: "hashed again")
    hasher = ContentHasher(memo)
    assert hasher.hash(image) == digest
    assert hasher.hash(image, refresh=True) == "hashed again"
    image.write_bytes(b"second!")
    assert ContentHasher(memo).hash(image) == "hashed again"


def test_a_fresh_file_is_not_remembered(tmp_path: Path) -> None:
    # Same size, and the time set back to the same tick: only reading it again can tell.
    image, hasher = tmp_path / "a.png", ContentHasher(tmp_path / "memo.sqlite")
    image.write_bytes(b"first")
    stat = image.stat()
    first = hasher.hash(image)
    image.write_bytes(b"other")
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert hasher.hash(image) != first


@pytest.mark.parametrize("damage", ["garbage", "cut", "row"])
def test_a_damaged_memory_is_as_good_as_none(tmp_path: Path, damage: str) -> None:
    image, memo = tmp_path / "a.png", tmp_path / "memo.sqlite"
    image.write_bytes(b"content")
    settle(image)
    digest = ContentHasher(memo).hash(image)
    if damage == "garbage":
        memo.write_bytes(b"no database at all" * 1000)
    elif damage == "cut":
        memo.write_bytes(memo.read_bytes()[:700])
    else:
        with sqlite3.connect(memo) as opened:
            opened.execute("UPDATE images SET hash = 'f00'")
    assert ContentHasher(memo).hash(image) == digest
    assert ContentHasher(memo).hash(image) == digest


def test_an_image_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No image at .*gone\.png"):
        ContentHasher(tmp_path / "memo.sqlite").hash(tmp_path / "gone.png")


# ------------------------------------------------------------------------------------------------------------ verify


def test_verify_finds_what_is_damaged_outdated_and_orphaned(tmp_path: Path) -> None:
    frames = [make_frame(tmp_path / "images", name) for name in "abcd"]
    store = make_store(tmp_path / "store")
    extract_features(frames, store, FakeEncoder())
    report = verify_cache(store.root)
    assert report.num_files == 4
    assert report.num_bytes == sum(store.path(frame).stat().st_size for frame in frames)
    assert not (report.damaged or report.outdated or report.orphaned)
    paths = [store.path(frame) for frame in frames]
    paths[0].write_bytes(paths[0].read_bytes()[:-1])
    frames[1].image_path.unlink()
    Image.fromarray(picture(9, 96, 72)).save(frames[2].image_path)
    report = verify_cache(store.root)
    assert (report.damaged, report.orphaned, report.outdated) == ((paths[0],), (paths[1],), (paths[2],))
    assert report.to_json()["damaged"] == [str(paths[0])]


def test_verify_corrects_a_hash_that_no_longer_holds(tmp_path: Path) -> None:
    frame = make_frame(tmp_path / "images", "a")
    settle(frame.image_path)
    store = make_store(tmp_path / "store")
    extract_features([frame], store, FakeEncoder())
    stat = frame.image_path.stat()
    content = bytearray(frame.image_path.read_bytes())
    content[-1] ^= 1
    frame.image_path.write_bytes(bytes(content))
    os.utime(frame.image_path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert make_store(tmp_path / "store").has(frame)  # size and time are the same: only a new hash can tell
    assert verify_cache(store.root).outdated == (store.path(frame),)
    assert not make_store(tmp_path / "store").has(frame)


def test_verify_of_an_empty_cache(tmp_path: Path) -> None:
    assert verify_cache(tmp_path / "none").num_files == 0
