from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.features.batches import MAX_WAITING, Batcher, PendingImage
from ov3d.common.features.crops import CropPlan, channels_first
from ov3d.common.features.extract import extract_features, plan_extraction
from ov3d.common.features.refine import RefineConfig, Refiner
from ov3d.common.features.store import FeatureStore
from ov3d.common.scenes.scene import Frame
from tests.common.features.fakes import (
    DIM,
    PLAN,
    FakeEncoder,
    FakePatches,
    KilledError,
    Listener,
    make_frame,
    make_store,
    picture,
)

CROPS = PLAN.num_crops(96, 72)


@pytest.fixture
def frames(tmp_path: Path) -> list[Frame]:
    return [make_frame(tmp_path / "images", name) for name in "abcd"]


def contents(store: FeatureStore, frames: list[Frame]) -> list[bytes]:
    return [store.path(frame).read_bytes() for frame in frames]


def refining_store(root: Path) -> FeatureStore:
    config = RefineConfig(grid_side=16, superpixels=20, image_side=48)
    return FeatureStore(root, FakeEncoder().card, PLAN, Refiner(config, FakePatches.identity))


def test_report_counts_and_a_second_run_skips(tmp_path: Path, frames: list[Frame]) -> None:
    store, listener = make_store(tmp_path / "store"), Listener()
    report = extract_features(frames, store, FakeEncoder(), progress=listener)
    assert (report.images, report.skipped, report.failed, report.crops) == (4, 0, (), 4 * CROPS)
    assert report.bytes == sum(map(len, contents(store, frames)))
    assert listener.totals == listener.advanced == {"Encoding crops": 4 * CROPS}
    encoder = FakeEncoder()
    again = extract_features(frames, store, encoder)
    assert (again.images, again.skipped, again.crops, again.bytes, encoder.batches) == (0, 4, 0, 0, [])
    assert again.to_json()["skipped"] == 4


@pytest.mark.parametrize("batch_size", [1, 7, 50, 1000])
def test_batches_across_images_change_no_number(tmp_path: Path, frames: list[Frame], batch_size: int) -> None:
    alone, together = make_store(tmp_path / "alone"), make_store(tmp_path / "together")
    for frame in frames:
        extract_features([frame], alone, FakeEncoder(), batch_size=64)
    encoder = FakeEncoder()
    extract_features(frames, together, encoder, batch_size=batch_size)
    assert contents(together, frames) == contents(alone, frames)
    # Batches are full but for the last of each crop size.
    wanted = sum(-(-4 * len(grid) // batch_size) for grid in PLAN.boxes(96, 72))
    assert len(encoder.batches) == wanted


@pytest.mark.parametrize("die_after", [0, 3, 9, 14])
def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path, frames: list[Frame], die_after: int) -> None:
    whole, cut_short = make_store(tmp_path / "whole"), make_store(tmp_path / "cut")
    extract_features(frames, whole, FakeEncoder(), batch_size=40)
    with pytest.raises(KilledError):
        extract_features(frames, cut_short, FakeEncoder(die_after=die_after), batch_size=40)
    left = make_store(tmp_path / "cut").missing(frames)
    assert left
    report = extract_features(frames, make_store(tmp_path / "cut"), FakeEncoder(), batch_size=40)
    assert (report.images, report.skipped, report.crops) == (len(left), 4 - len(left), len(left) * CROPS)
    assert contents(cut_short, frames) == contents(whole, frames)


def test_some_images_are_written_before_the_end(tmp_path: Path, frames: list[Frame]) -> None:
    store = make_store(tmp_path / "store")
    with pytest.raises(KilledError):
        extract_features(frames, store, FakeEncoder(die_after=14), batch_size=40)
    assert 1 <= len(store.missing(frames)) < 4


def test_the_same_image_under_two_paths_is_stored_once(tmp_path: Path, frames: list[Frame]) -> None:
    copy_path = tmp_path / "elsewhere" / "copy.png"
    copy_path.parent.mkdir()
    shutil.copy(frames[0].image_path, copy_path)
    copy = replace(frames[0], name="copy", image_path=copy_path)
    store = make_store(tmp_path / "store")
    report = extract_features([frames[0], copy], store, FakeEncoder())
    assert (report.images, report.skipped, report.crops) == (1, 1, CROPS)
    assert store.path(frames[0]) == store.path(copy)
    assert len(list(store.root.glob("*/*/*.safetensors"))) == 1
    assert store.has(copy)


def test_a_changed_image_is_extracted_anew(tmp_path: Path, frames: list[Frame]) -> None:
    store = make_store(tmp_path / "store")
    extract_features(frames, store, FakeEncoder())
    before = store.features_at(frames[1], np.array([[30.5, 30.5]]))
    Image.fromarray(picture(77, 96, 72)).save(frames[1].image_path)
    report = extract_features(frames, make_store(tmp_path / "store"), FakeEncoder())
    assert (report.images, report.skipped) == (1, 3)
    assert np.abs(store.features_at(frames[1], np.array([[30.5, 30.5]])) - before).max() > 0.05


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_file_is_extracted_again_and_said(tmp_path: Path, frames: list[Frame], damage: str) -> None:
    store, listener = make_store(tmp_path / "store"), Listener()
    extract_features(frames, store, FakeEncoder())
    path = store.path(frames[2])
    whole = path.read_bytes()
    damaged = bytearray(whole[:-7] if damage == "cut" else whole)
    damaged[len(damaged) // 2] ^= 16
    path.write_bytes(bytes(damaged))
    report = extract_features(frames, make_store(tmp_path / "store"), FakeEncoder(), progress=listener)
    assert (report.images, report.skipped) == (1, 3)
    assert len(listener.lines) == 1
    assert "image c are extracted again" in listener.lines[0]
    assert "damaged" in listener.lines[0]
    assert path.read_bytes() == whole


def test_images_that_cannot_be_read_are_named_and_the_others_done(tmp_path: Path, frames: list[Frame]) -> None:
    store, listener = make_store(tmp_path / "store"), Listener()
    frames[0].image_path.unlink()
    frames[2].image_path.write_bytes(frames[2].image_path.read_bytes()[:3000])
    report = extract_features(frames, store, FakeEncoder(), progress=listener)
    assert (report.images, report.skipped) == (2, 0)
    assert [name for name, _ in report.failed] == ["a", "c"]
    assert "No image at" in report.failed[0][1]
    assert "cannot be read" in report.failed[1][1]
    assert len(listener.lines) == 2
    assert listener.advanced == listener.totals


def test_no_readable_image_is_one_error(tmp_path: Path, frames: list[Frame]) -> None:
    for frame in frames:
        frame.image_path.write_bytes(b"no image")
    with pytest.raises(DataError, match="None of 4 images can be read; the first, a: .*cannot be read"):
        extract_features(frames, make_store(tmp_path / "store"), FakeEncoder())


def test_a_plan_for_a_dry_run_holds(tmp_path: Path, frames: list[Frame]) -> None:
    store = make_store(tmp_path / "store")
    extract_features(frames[:1], store, FakeEncoder())
    plan = plan_extraction(frames, store)
    assert (plan.images, plan.missing, plan.crops) == (4, 3, 3 * CROPS)
    report = extract_features(frames, store, FakeEncoder())
    assert report.crops == plan.crops
    assert 0.5 < plan.bytes / report.bytes < 1  # headers come on top
    assert plan.to_json()["missing"] == 3
    assert plan_extraction(frames, store).missing == 0


def test_many_image_sizes_do_not_pile_up() -> None:
    finished: list[str] = []
    encoder, plan = FakeEncoder(), CropPlan((0.5,))
    batcher = Batcher(encoder, 10_000, lambda pending: finished.append(pending.frame.name), lambda _: None)
    for idx in range(30):
        width = 40 + 2 * idx
        image = channels_first(picture(idx, width, 30), torch.device("cpu"))
        frame = Frame.__new__(Frame)
        object.__setattr__(frame, "name", str(idx))
        batcher.add(PendingImage(frame, image, plan.boxes(width, 30), DIM))
        assert idx + 1 - len(finished) <= MAX_WAITING
    batcher.flush()
    assert sorted(finished, key=int) == [str(idx) for idx in range(30)]


def test_vectors_that_are_not_finite_are_refused(tmp_path: Path, frames: list[Frame]) -> None:
    class Broken(FakeEncoder):
        def encode_crops(self, crops: torch.Tensor) -> torch.Tensor:
            return super().encode_crops(crops) * float("nan")

    store = make_store(tmp_path / "store")
    with pytest.raises(DataError, match="returned NaN or infinity for crops of a"):
        extract_features(frames, store, Broken())
    assert store.missing(frames) == frames


def test_encoder_and_store_must_fit(tmp_path: Path, frames: list[Frame]) -> None:
    with pytest.raises(UsageError, match="store is of encoder fake"):
        extract_features(frames, make_store(tmp_path), FakeEncoder(8))
    with pytest.raises(UsageError, match="refines with fake-patches"):
        extract_features(frames, refining_store(tmp_path), FakeEncoder())


SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from ov3d.common.scenes.cameras import Camera
from ov3d.common.features.extract import extract_features
from ov3d.common.scenes.scene import Frame
from tests.common.features.fakes import FakeEncoder, make_store
import numpy as np
images, root = map(Path, sys.argv[1:])
camera = Camera(96, 72, 80.0, 80.0, 48.0, 36.0)
frames = [Frame(p.stem, p, camera, np.eye(4)) for p in sorted(images.glob("*.png"))]
extract_features(frames, make_store(root), FakeEncoder(), batch_size=16)
"""


def test_two_processes_at_once_do_no_harm(tmp_path: Path, frames: list[Frame]) -> None:
    alone, shared = make_store(tmp_path / "alone"), make_store(tmp_path / "shared")
    extract_features(frames, alone, FakeEncoder())
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "images"), str(shared.root)]
    root = Path(__file__).resolve().parents[3]
    processes = [subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
    assert contents(shared, frames) == contents(alone, frames)
    assert len(list(shared.root.rglob("*.ov3d-tmp"))) == 0


@pytest.mark.offline_weights
def test_refined_features_are_stored_beside_the_crops(tmp_path: Path, frames: list[Frame]) -> None:
    store, listener = refining_store(tmp_path / "store"), Listener()
    extract_features(frames[:1], store.unrefined(), FakeEncoder())
    plan = plan_extraction(frames, store)
    assert (plan.missing, plan.crops) == (4, 3 * CROPS)
    report = extract_features(frames, store, FakeEncoder(), patch_encoder=FakePatches(), progress=listener)
    assert (report.images, report.crops, report.skipped) == (4, 3 * CROPS, 0)
    assert listener.advanced == listener.totals == {"Encoding crops": 3 * CROPS, "Refining": 4}
    assert store.key(frames[0]) != store.unrefined().key(frames[0])
    features = store.features_at(frames[0], frames[0].camera.pixel_centres(4))
    assert features.shape == (24 * 18, 1, DIM)
    np.testing.assert_allclose(np.linalg.norm(features[:, 0], axis=1), 1, atol=1e-5)
    again = extract_features(frames, store, FakeEncoder(), patch_encoder=FakePatches())
    assert (again.images, again.skipped) == (0, 4)


@pytest.mark.offline_weights
def test_an_unreadable_image_is_not_refined(tmp_path: Path, frames: list[Frame]) -> None:
    frames[1].image_path.write_bytes(b"no image")
    store = refining_store(tmp_path / "store")
    report = extract_features(frames, store, FakeEncoder(), patch_encoder=FakePatches())
    assert (report.images, [name for name, _ in report.failed]) == (3, ["b"])
