"""A generated room, learnt for real from the command line, and scored in views that no loss saw."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ov3d.common.worlds.gallery import GalleryConfig, write_gallery
from tests.cli.conftest import Ov3d, ov3d

__all__ = ["ov3d"]

SETTINGS = (
    "field.steps=260",
    "field.rays=1024",
    "field.samples=40000",
    "field.first_voxels=64000",
    "field.last_voxels=250000",
    "field.upsample_at=[80,140]",
    "field.colour_width=32",
    "field.occupancy_from=60",
    "field.view_every=0",
    "distil.steps=120",
    "distil.joint_from=60",
    "distil.rays=1024",
    "distil.patches=0",
    "view_long_side=96",
    "held_out_every=6",
    "classes=[wall,floor,ceiling,box,pedestal,cat,temple]",
)
LEAST_PSNR, LEAST_GAIN = 23.0, 0.05
"""Floors: when they were set, the run reached 27.4 dB and was 0.13 better than its teacher."""


@pytest.mark.slow
@pytest.mark.offline_weights
def test_a_small_room_is_learnt(ov3d: Ov3d, tmp_path: Path) -> None:
    """Colours of held-out views, and labels in them that are better than the corrupted ones that were learnt from."""
    pytest.importorskip("skimage", reason="the photographs ship in a package")
    config = GalleryConfig(seed=3, num_views=12, width=96, height=72, photographs=("cat", "temple"))
    write_gallery(tmp_path / "room", config)
    words = [word for setting in SETTINGS for word in ("--set", setting)]
    done = ov3d(
        *("train", "nerf", tmp_path / "room", "--encoder", "labels:scene,corrupt=30", "--outputs", tmp_path / "out"),
        *("--json", *words),
    )
    assert done.code == 0, done.err
    run = Path(json.loads(done.out)["run"])
    (facts,) = json.loads(done.out)["manifest"]["facts"].values()
    done = ov3d("eval", run, "--json")
    assert done.code == 0, done.err
    field, teacher = json.loads(done.out)["reports"]
    ours, theirs, psnr = field["means"]["mIoU"], teacher["means"]["mIoU"], field["extra"]["PSNR"]
    print(f"PSNR {psnr:.2f} dB, mIoU {ours:.3f}, teacher {theirs:.3f}")
    assert "held-out" in field["title"] and "teacher" in teacher["title"]
    assert facts["held_out"] == ["0", "6"]
    assert psnr > LEAST_PSNR
    assert facts["psnr"] == pytest.approx(psnr, abs=0.5)  # the field as it was before its appearance was tuned along
    assert ours > theirs + LEAST_GAIN
