"""Estimates before anything is made: bytes of an extraction exactly enough, nothing written, less once features are there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ov3d.common.base.config import load_config
from ov3d.common.base.errors import DataError
from ov3d.common.features.estimate import estimate_extraction, peak_memory
from ov3d.common.features.extract import extract_features, plan_extraction
from ov3d.common.features.store import FeatureStore
from ov3d.common.learning.run import estimate_run, train_run
from ov3d.common.scenes.scene import LazyScenes
from ov3d.common.worlds.gallery import GalleryConfig, write_gallery
from ov3d.points.backend import PointsBackend
from tests.colour_encoder import ColourEncoder, colour_encoder
from tests.common.small_scenes import box_scene

__all__ = ["colour_encoder"]

CPU = torch.device("cpu")


def test_bytes_of_an_extraction_are_near_what_is_written(tmp_path: Path) -> None:
    scene, encoder = box_scene(tmp_path / "scene", 5), ColourEncoder()
    store = FeatureStore(tmp_path / "features", encoder.card)
    found = estimate_extraction(plan_extraction(scene.frames, store), store, encoder, CPU)
    assert found["seconds"] > 0
    assert found["peak_bytes"] >= peak_memory() * 0.9
    report = extract_features(scene.frames, store, encoder)
    assert report.bytes / 2 <= found["bytes"] <= 2 * report.bytes
    after = estimate_extraction(plan_extraction(scene.frames, store), store, encoder, CPU)
    assert (after["bytes"], after["seconds"]) == (0, 0.0)


@pytest.mark.usefixtures("colour_encoder")
def test_a_run_is_estimated_and_nothing_is_made(tmp_path: Path) -> None:
    room = GalleryConfig(photographs=(), furniture=5, num_views=4, width=96, height=72)
    scene = write_gallery(tmp_path / "room", room)
    backend = PointsBackend()
    before = sorted(tmp_path.rglob("*"))
    config = load_config(backend.config_type, None, ["lift.border=2"])
    (row,) = estimate_run(backend, scene.path, config, device="cpu")
    assert sorted(tmp_path.rglob("*")) == before or not list(tmp_path.rglob("*.safetensors"))
    assert (row.images, row.points > 1000) == (4, True)
    run = train_run(backend, scene.path, config, outputs=tmp_path / "runs", device="cpu")
    made = sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())
    (left,) = estimate_run(backend, scene.path, config, device="cpu")
    assert left.images == 0
    assert made / 2.5 <= left.bytes <= 2.5 * made


@pytest.mark.usefixtures("colour_encoder")
def test_a_run_that_could_not_fuse_is_not_estimated(tmp_path: Path) -> None:
    scene = replace(box_scene(tmp_path / "scene", 3, with_depth=False), cloud=None)
    source = LazyScenes((scene.name,), lambda _: scene)
    with pytest.raises(DataError, match=r"neither a cloud nor depth.*ov3d train nerf"):
        PointsBackend().estimate(source, PointsBackend.config_type(), device=CPU)
