"""Clouds from depth, against a loop over pixels."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.readers import load_scene
from ov3d.common.scenes import cloud_from_depth
from ov3d.common.scenes.cameras import Camera, look_at
from ov3d.common.scenes.cloud_from_depth import default_voxel_size, flying, with_cloud
from ov3d.common.scenes.scene import IGNORE, PointCloud, Scene, World
from ov3d.common.worlds.raycast import View
from ov3d.common.worlds.scannet_writer import write_facts, write_view

CAMERA = Camera(20, 14, 16.0, 16.0, 10.0, 7.0)
CLASSES = ("a", "b", "c")


def _views(seed: int = 0) -> list[View]:
    """Three views of smooth random surfaces, with holes, unknown labels and pixels without an object."""
    rng = np.random.default_rng(seed)
    views = []
    for k in range(3):
        v, u = np.mgrid[0:14, 0:20]
        depth = 1.5 + 0.2 * np.sin(u / 6 + k) + 0.1 * np.cos(v / 5)
        depth[rng.random(depth.shape) < 0.1] = 0
        views.append(
            View(
                camera=CAMERA,
                world_from_camera=look_at(np.array([0.1 * k, -2.0, 1.0]), np.array([0.0, 0.0, 0.9])),
                rgb=rng.integers(0, 256, (14, 20, 3)).astype(np.uint8),
                depth=depth.astype(np.float32),
                labels=rng.integers(-1, 3, (14, 20)).astype(np.int32),
                instances=np.where(rng.random((14, 20)) < 0.5, IGNORE, 4).astype(np.int32),
            )
        )
    return views


@pytest.fixture()
def scene(tmp_path: Path) -> Scene:
    write_facts(tmp_path, CAMERA, CLASSES)
    for number, view in enumerate(_views()):
        write_view(tmp_path, str(number), view)
    return load_scene(tmp_path)


def _slow(scene: Scene, size: float) -> dict[tuple[int, ...], dict[str, object]]:
    """One pixel after another: voxel to sums and votes."""
    voxels: dict[tuple[int, ...], dict] = {}
    for frame in scene.frames:
        image, depth = frame.load_image(), frame.depth.load()
        labels, instances = frame.labels.load(), frame.instances.load()
        camera = frame.depth.camera
        for i in range(camera.height):
            for j in range(camera.width):
                z = float(depth[i, j])
                if z <= 0:
                    continue
                ray = np.array([(j + 0.5 - camera.cx) / camera.fx, (i + 0.5 - camera.cy) / camera.fy, 1.0])
                point = (frame.world_from_camera @ np.append(ray * z, 1.0))[:3]
                voxel = voxels.setdefault(
                    tuple(int(np.floor(c / size)) for c in point),
                    {"xyz": [], "rgb": [], "labels": Counter(), "instances": Counter()},
                )
                voxel["xyz"].append(point)
                voxel["rgb"].append(image[i, j].astype(float))
                if labels[i, j] != IGNORE:
                    voxel["labels"][int(labels[i, j])] += 1
                voxel["instances"][int(instances[i, j])] += 1
    return voxels


def _winner(votes: Counter) -> int:
    return min(votes, key=lambda name: (-votes[name], name)) if votes else IGNORE


def test_equals_a_loop_over_pixels(scene: Scene) -> None:
    size = 0.11
    expected, cloud = _slow(scene, size), with_cloud(scene, voxel_size=size).cloud
    assert len(cloud) == len(expected)
    several = 0
    for n, key in enumerate(sorted(expected)):  # the order of the points is that of their voxels
        voxel = expected[key]
        several += len(voxel["xyz"]) > 1
        np.testing.assert_allclose(cloud.xyz[n], np.mean(voxel["xyz"], axis=0), atol=1e-6)
        np.testing.assert_allclose(cloud.rgb[n], np.mean(voxel["rgb"], axis=0), atol=0.5001)
        assert cloud.labels[n] == _winner(voxel["labels"])
        assert cloud.instances[n] == _winner(voxel["instances"])
    assert several > 50  # voxels do gather pixels, so the votes above were votes


def test_merging_often_or_once_gives_the_same(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    once = with_cloud(scene, voxel_size=0.1).cloud
    monkeypatch.setattr(cloud_from_depth, "_BUFFER_ROWS", 1)
    often = with_cloud(scene, voxel_size=0.1).cloud
    np.testing.assert_allclose(often.xyz, once.xyz, atol=1e-6)
    assert np.array_equal(often.labels, once.labels)
    assert np.array_equal(often.instances, once.instances)


def test_frames_in_another_order_give_the_same_points(scene: Scene) -> None:
    cloud = with_cloud(scene, voxel_size=0.1).cloud
    turned = with_cloud(replace(scene, frames=scene.frames[::-1]), voxel_size=0.1).cloud
    np.testing.assert_allclose(turned.xyz, cloud.xyz, atol=1e-6)
    assert np.array_equal(turned.labels, cloud.labels)


def test_moving_the_world_by_whole_voxels_moves_the_cloud(scene: Scene) -> None:
    size, by = 0.125, np.array([8.0, -16.0, 4.0])  # exact in binary, so that no point changes its voxel by rounding
    moved = []
    for frame in scene.frames:
        pose = frame.world_from_camera.copy()
        pose[:3, 3] += by
        moved.append(replace(frame, world_from_camera=pose))
    here = with_cloud(scene, voxel_size=size).cloud
    there = with_cloud(replace(scene, frames=tuple(moved)), voxel_size=size).cloud
    np.testing.assert_allclose(there.xyz - by.astype(np.float32), here.xyz, atol=1e-5)
    assert np.array_equal(there.labels, here.labels)
    assert np.array_equal(there.rgb, here.rgb)


def test_depth_smaller_than_the_photograph(scene: Scene, tmp_path: Path) -> None:
    from PIL import Image

    cloud = with_cloud(scene, voxel_size=0.1).cloud
    for frame in scene.frames:
        image = Image.open(frame.image_path)
        image.resize((40, 28), Image.NEAREST).save(frame.image_path)
    matrix = np.diag([32.0, 32.0, 1.0])
    matrix[:2, 2] = 19.5, 13.5
    np.savetxt(tmp_path / "intrinsic" / "intrinsic_color.txt", matrix)
    larger = with_cloud(load_scene(tmp_path), voxel_size=0.1).cloud
    assert np.array_equal(larger.xyz, cloud.xyz)
    assert np.array_equal(larger.rgb, cloud.rgb)
    assert np.array_equal(larger.labels, cloud.labels)


def test_frames_without_labels_do_not_vote(scene: Scene) -> None:
    alone = with_cloud(replace(scene, frames=scene.frames[:1]), voxel_size=0.1).cloud
    silent = tuple(replace(frame, labels=None, instances=None) for frame in scene.frames[1:])
    joined = with_cloud(replace(scene, frames=(scene.frames[0], *silent)), voxel_size=0.1).cloud
    labelled = lambda cloud: Counter(cloud.labels[cloud.labels != IGNORE].tolist())  # noqa: E731
    assert labelled(alone) == labelled(joined)
    bare = with_cloud(replace(scene, frames=silent), voxel_size=0.1).cloud
    assert bare.labels is None
    assert bare.instances is None


def test_flying_pixels_are_dropped_and_clean_edges_kept() -> None:
    row = np.array([1, 1, 1.5, 2, 2, 0, 1.5, 2, 1, 1, 2, 2], np.float32)
    #                     ^ hangs          ^ unknown neighbour: kept   ^ a clean edge: kept
    depth = np.repeat(row[None], 5, axis=0)
    assert np.flatnonzero(flying(depth, 500.0)[2]).tolist() == [2]
    assert np.flatnonzero(flying(depth.T.copy(), 500.0)[:, 2]).tolist() == [2]
    # A floor 1.5 m below the eye, 40 pixels and more under the horizon (at f = 500: from 4.6 degrees on).
    floor = (1.5 * 500.0 / np.arange(45, 200)).astype(np.float32)
    assert not flying(np.repeat(floor[:, None], 5, axis=1), 500.0).any()
    coarse = (1.5 * 16.0 / np.arange(1, 8)).astype(np.float32)
    assert not flying(np.repeat(coarse[:, None], 5, axis=1), 16.0)[2:].any()  # few pixels: each step is large


def test_the_default_voxel_fits_the_scene(scene: Scene) -> None:
    assert default_voxel_size(scene) == cloud_from_depth.FINE_VOXEL  # under a metre across
    wide = []
    for k, frame in enumerate(scene.frames):
        pose = frame.world_from_camera.copy()
        pose[0, 3] += 4.0 * k
        wide.append(replace(frame, world_from_camera=pose))
    assert default_voxel_size(replace(scene, frames=tuple(wide))) == cloud_from_depth.COARSE_VOXEL
    unknown = replace(scene, world=World(units="arbitrary"))
    assert default_voxel_size(unknown) == pytest.approx(cloud_from_depth.PIXELS_A_VOXEL * 1.5 / 16, rel=0.15)
    assert "units" in with_cloud(unknown).notes[-1]


def test_a_scene_with_a_cloud_is_left_alone(scene: Scene) -> None:
    own = replace(scene, cloud=PointCloud(np.zeros((1, 3), np.float32)))
    assert with_cloud(own) is own


def test_faults(scene: Scene) -> None:
    bare = replace(scene, frames=tuple(replace(frame, depth=None) for frame in scene.frames))
    with pytest.raises(DataError, match=r"neither a cloud nor depth.*depth/N\.png"):
        with_cloud(bare)
    with pytest.raises(UsageError, match="voxel_size must be positive, got -1"):
        with_cloud(scene, voxel_size=-1.0)
    nothing = [replace(frame, depth=replace(frame.depth, scale=0.0)) for frame in scene.frames]
    with pytest.raises(DataError, match="None of the 3 frames .* has valid depth"):
        with_cloud(replace(scene, frames=tuple(nothing)))
    tiny = with_cloud(scene, voxel_size=0.11)
    assert not any("too far" in note for note in tiny.notes)
    with pytest.raises(DataError, match="has valid depth"):
        with_cloud(scene, voxel_size=1e-9)  # two metres are more voxels than a key can count
