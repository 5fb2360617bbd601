"""What is found out, and refused, before a run starts; and the small measures of an evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ov3d.common.base.config import load_config
from ov3d.common.base.errors import DataError, UsageError
from ov3d.nerf.config import NerfConfig
from ov3d.nerf.evaluate import ssim
from ov3d.nerf.preflight import Needs, check_memory, class_names, described, estimate, split_views
from tests.common.small_scenes import box_scene
from tests.nerf.scenes import CPU


def test_every_eighth_view_is_kept_out(tmp_path: Path) -> None:
    scene = box_scene(tmp_path / "s", 9)
    train, held_out = split_views(scene, NerfConfig())
    assert [frame.name for frame in held_out] == ["0", "8"]
    assert len(train) == 7
    _, named = split_views(scene, NerfConfig(held_out=("3",)))
    assert [frame.name for frame in named] == ["3"]
    assert split_views(scene, NerfConfig(held_out_every=0))[1] == ()
    with pytest.raises(DataError, match="no view 'nine'"):
        split_views(scene, NerfConfig(held_out=("nine",)))
    with pytest.raises(DataError, match="2 posed photographs, of which 1 would be used for training"):
        split_views(box_scene(tmp_path / "t", 2), NerfConfig())


def test_what_does_not_fit_is_refused_with_the_fix(tmp_path: Path) -> None:
    train, held_out = split_views(box_scene(tmp_path / "s", 9), NerfConfig())
    found = estimate(train, NerfConfig(), CPU)
    check_memory(found)
    assert 0 < found.num_bytes < 2 << 30
    assert estimate(train, NerfConfig(preset="paper"), CPU).num_bytes > found.num_bytes
    with pytest.raises(DataError, match=r"needs about 4\.0 GiB of memory; 2\.0 GiB are free") as info:
        check_memory(Needs(4 << 30, 60.0, 2 << 30))
    assert "field.last_voxels" in info.value.hint
    line = described(box_scene(tmp_path / "s", 9), train, held_out, found)
    assert "9 posed photographs; 7 to learn from, 2 kept out (0, 8)" in line


def test_class_names(tmp_path: Path) -> None:
    scene = box_scene(tmp_path / "s", 3)
    assert class_names(scene, NerfConfig()) == ("floor", "box")
    assert class_names(scene, NerfConfig(classes=("a chair", " a table "))) == ("a chair", "a table")
    for classes, words in (((), "names no classes"), (("a", " "), "has no name"), (("cat", "Cat"), "named twice")):
        with pytest.raises(DataError, match=words):
            class_names(replace(scene, classes=classes), NerfConfig())


def test_presets_fill_in_what_is_not_given() -> None:
    paper = load_config(NerfConfig, None, ["preset=paper", "field.steps=5"])
    assert paper.field.steps == 5
    assert paper.field.last_voxels == 262144000
    assert paper.distil.divergence == "kl"
    assert load_config(NerfConfig).field.last_voxels == 144**3
    again = NerfConfig.model_validate(paper.model_dump(mode="json"))
    assert again == paper
    with pytest.raises(UsageError, match=r"Unknown configuration key field.stepps"):
        load_config(NerfConfig, None, ["preset=gpu", "field.stepps=3"])
    with pytest.raises(UsageError, match="preset"):
        load_config(NerfConfig, None, ["preset=laptop"])


def test_refinements_are_those_of_the_points_backend() -> None:
    for refine in ("auto", "none", "dino", "timm:some_model"):
        assert load_config(NerfConfig, None, [f"refine={refine}"]).refine == refine
    with pytest.raises(UsageError, match="refine must be auto, none, dino or timm:NAME"):
        load_config(NerfConfig, None, ["refine=sharp"])


def test_structural_similarity() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (30, 40, 3)).astype(np.uint8)
    assert ssim(image, image) == pytest.approx(1)
    noisy = np.clip(image.astype(int) + rng.integers(-60, 60, image.shape), 0, 255).astype(np.uint8)
    metrics = pytest.importorskip("skimage.metrics", reason="no scikit-image to compare with")
    expected = metrics.structural_similarity(
        image, noisy, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )
    assert ssim(image, noisy) == pytest.approx(expected, abs=0.01)
    assert np.isnan(ssim(image[:5], image[:5]))
