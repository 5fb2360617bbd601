"""Generated streets, read back by the readers of the layouts that they were written in: all that was generated is there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ov3d.common.readers import open_source
from ov3d.common.scenes.cameras import invert_pose
from ov3d.common.scenes.scene import IGNORE, Scene
from ov3d.common.worlds.nuscenes_writer import write_nuscenes
from ov3d.common.worlds.semantickitti_writer import write_semantickitti
from ov3d.common.worlds.street import StreetConfig, Sweep, build_drive
from ov3d.common.worlds.street_writing import class_ids

SMALL = StreetConfig(seed=5, num_sweeps=2, columns=120, width=96, height=54, reach=40.0)


def check_points(scene: Scene, sweep: Sweep, dataset: str, field: str) -> None:
    """The scene's points, classes and objects are those of the sweep."""
    cloud = scene.cloud
    assert cloud is not None and cloud.labels is not None and cloud.instances is not None
    assert np.array_equal(cloud.xyz, sweep.xyz)
    classes = np.asarray(class_ids(dataset, field))[sweep.labels]
    assert np.array_equal(cloud.labels, np.where(classes > 0, classes - 1, IGNORE))
    owned = (sweep.instances != IGNORE) & (cloud.labels != IGNORE)
    assert np.array_equal(cloud.instances != IGNORE, owned)
    pairs = np.unique(np.column_stack([cloud.instances, sweep.instances])[owned], axis=0)
    assert len(pairs) == len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1])) > 3


def check_frames(scene: Scene, sweep: Sweep, names: dict[str, str]) -> None:
    """Photographs, their cameras, poses and times are those that were taken; `names` are those of the rig's cameras."""
    assert scene.sweep is not None and len(scene.frames) == len(sweep.shots)
    global_from_lidar = sweep.world_from_ego @ sweep.ego_from_lidar
    for shot in sweep.shots:
        frame = scene.frame(names.get(shot.mount.name, shot.mount.name))
        camera = shot.mount.camera
        assert (frame.camera.width, frame.camera.height) == (camera.width, camera.height)
        np.testing.assert_allclose(frame.camera.matrix, camera.matrix, rtol=1e-12)
        expected = invert_pose(global_from_lidar) @ shot.world_from_ego @ shot.mount.ego_from_camera
        np.testing.assert_allclose(frame.world_from_camera, expected, atol=1e-6)
        difference = np.abs(frame.load_image().astype(int) - shot.view.rgb)
        assert difference.mean() < (8 if frame.image_path.suffix == ".jpg" else 1e-9)


@pytest.mark.slow
def test_nuscenes(tmp_path: Path) -> None:
    other = dataclasses.replace(SMALL, seed=7)
    source = open_source(write_nuscenes(tmp_path / "street", {"train": [SMALL], "val": [other]}))
    assert source.ids == ("scene-0001-000", "scene-0001-001", "scene-0002-000", "scene-0002-001")
    assert source.splits["train"] == source.ids[:2] and source.splits["val"] == source.ids[2:]
    for config, drive_name in ((SMALL, "scene-0001"), (other, "scene-0002")):
        drive = build_drive(config)
        for number, sweep in enumerate(drive.sweeps()):
            scene = source.load(f"{drive_name}-{number:03d}")
            assert scene.cloud is not None and scene.sweep is not None and scene.notes == ()
            check_points(scene, sweep, "nuscenes-panoptic", "nuscenes")
            assert np.array_equal(scene.cloud.intensity, np.rint(sweep.intensity * np.float32(255)))
            check_frames(scene, sweep, {})
            pose = sweep.world_from_ego @ sweep.ego_from_lidar
            np.testing.assert_allclose(scene.sweep.global_from_lidar, pose, atol=1e-9)
            assert scene.sweep.time == sweep.timestamp
            assert dict(scene.sweep.camera_times) == {shot.mount.name: shot.timestamp for shot in sweep.shots}


@pytest.mark.slow
def test_semantickitti(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, rig="semantickitti", beams=64, width=124, height=38)
    source = open_source(write_semantickitti(tmp_path / "street", {"08": config}))
    assert source.ids == ("08-000000", "08-000001") and source.splits == {"val": source.ids}
    drive = build_drive(config)
    sweeps = list(drive.sweeps())
    lidar = [sweep.world_from_ego @ sweep.ego_from_lidar for sweep in sweeps]
    for number, sweep in enumerate(sweeps):
        scene = source[number]
        assert scene.cloud is not None and scene.sweep is not None and scene.notes == ()
        check_points(scene, sweep, "semantickitti", "kitti")
        assert np.array_equal(scene.cloud.intensity, sweep.intensity)
        check_frames(scene, sweep, {sweep.shots[0].mount.name: "image_2"})
        np.testing.assert_allclose(scene.sweep.global_from_lidar, invert_pose(lidar[0]) @ lidar[number], atol=1e-6)
        assert scene.sweep.time == pytest.approx(1e6 * config.interval * number, abs=1)
