"""What doctor says of a scene: facts in words, faults where an answer would be spoilt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ov3d.common.checks.machine import Fact
from ov3d.common.checks.scene import describe_scene
from ov3d.common.readers import load_scene
from ov3d.common.scenes.distortion import Distortion
from ov3d.common.scenes.scene import Scene, World
from tests.common.readers.sweep_writers import write_nuscenes
from tests.common.small_scenes import box_scene


def _facts(scene: Scene) -> dict[str, Fact]:
    return {fact.name: fact for fact in describe_scene(scene)}


def test_a_good_scene_has_no_fault(tmp_path: Path) -> None:
    facts = _facts(box_scene(tmp_path / "box"))
    assert {fact.state for fact in facts.values()} == {"ok"}
    assert facts["frames"].value == "4 (4 of 64x48); 4 with depth, 4 with labels"
    assert facts["labels"].value == "100% of the points; floor, box"
    assert float(facts["seen"].value.split("%")[0]) > 50


def test_cameras_in_one_point_are_a_fault(tmp_path: Path) -> None:
    scene = box_scene(tmp_path / "box")
    frames = tuple(replace(frame, world_from_camera=np.eye(4)) for frame in scene.frames)
    assert _facts(replace(scene, frames=frames))["cameras"].state == "fault"


def test_turned_cameras_see_nothing(tmp_path: Path) -> None:
    scene = box_scene(tmp_path / "box")
    flip = np.diag([1.0, -1.0, -1.0, 1.0])
    frames = tuple(replace(frame, world_from_camera=frame.world_from_camera @ flip) for frame in scene.frames)
    facts = _facts(replace(scene, frames=frames))
    assert facts["seen"].state == "fault"
    assert facts["seen"].value.startswith("0.0%")


def test_photographs_alone_are_no_fault_but_no_points_either(tmp_path: Path) -> None:
    scene = replace(box_scene(tmp_path / "box", with_depth=False), cloud=None)
    assert _facts(scene)["points"].state == "absent"
    assert _facts(replace(scene, frames=()))["frames"].state == "fault"


def test_a_cloud_alone_is_a_scan_and_not_a_fault(tmp_path: Path) -> None:
    scene = box_scene(tmp_path / "box")
    alone = replace(scene, frames=())
    if scene.cloud is None:
        pytest.fail("the small scene has a cloud")
    facts = _facts(alone)
    assert facts["frames"].state == "absent"
    assert "ov3d predict" in facts["frames"].hint
    assert "images" not in facts
    assert "fault" not in {fact.state for fact in facts.values()}


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    scene = box_scene(tmp_path / "box")
    scene.frames[1].image_path.write_bytes(b"no image")
    facts = _facts(scene)
    assert facts["image"].state == "fault"
    assert scene.frames[1].image_path.name in facts["image"].value


def test_the_world_and_the_lens_are_said(tmp_path: Path) -> None:
    scene = box_scene(tmp_path / "box")
    assert _facts(scene)["world"].value == "metres, up 0 0 1" and not _facts(scene)["world"].hint
    lens = Distortion("opencv", (0.01,), scene.frames[0].camera)
    frames = (replace(scene.frames[0], distortion=lens, camera=lens.pinhole()), *scene.frames[1:])
    far = replace(scene, frames=frames, world=World("arbitrary", origin=(4e5, 0.0, -2.0)))
    facts = _facts(far)
    assert facts["world"].value == "arbitrary units, up 0 0 1, origin at 400000 0 -2"
    assert "--scale" in facts["world"].hint
    assert facts["frames"].value.endswith("; 1 straightened (opencv lens)")


@pytest.mark.shared_data
def test_real_captures_make_sense(shared_data: Path) -> None:
    """The fox: photographs of a distorted lens, a quarter of them missing. The shelf: depth that agrees with its poses."""
    fox = _facts(load_scene(shared_data / "nerf" / "fox"))
    assert fox["layout"].value.startswith("nerfstudio at ")
    assert fox["frames"].value == "50 (50 of 1080x1920); 0 with depth, 0 with labels; 50 straightened (opencv lens)"
    assert fox["note"].value.startswith("17 of 67 listed photographs: missing (0005.jpg, ")
    assert {fact.state for fact in fox.values()} == {"ok", "absent"} and fox["world"].hint
    shelf = _facts(load_scene(shared_data / "nerf" / "apc-shelf"))
    assert {fact.state for fact in shelf.values()} == {"ok"}
    assert shelf["layout"].value.startswith("scannet at ") and shelf["world"].value == "metres, up 0 0 1"
    assert float(shelf["seen"].value.split("%")[0]) > 40


def test_cameras_around_a_car_need_not_overlap(tmp_path: Path) -> None:
    scene = load_scene(write_nuscenes(tmp_path, num_points=3000).root, "scene-0061-000")
    assert "overlap" in _facts(replace(scene, sweep=None))
    assert "overlap" not in _facts(scene)
