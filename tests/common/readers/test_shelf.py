"""A real capture: a shelf bin seen by a depth camera on a robot arm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ov3d.common.readers import load_scene
from ov3d.common.scenes.cameras import invert_pose, transform
from ov3d.common.scenes.cloud_from_depth import with_cloud
from ov3d.common.scenes.scene import IGNORE, Scene

pytestmark = pytest.mark.shared_data


@pytest.fixture(scope="module")
def shelf(request: pytest.FixtureRequest) -> Scene:
    from tests.conftest import shared_data_root

    return load_scene(shared_data_root() / "nerf" / "apc-shelf")


def test_what_is_there(shelf: Scene, shared_data: Path) -> None:
    assert (shelf.name, shelf.layout) == ("apc-shelf", "scannet")
    assert [frame.name for frame in shelf.frames] == [str(k) for k in range(15)]
    assert shelf.classes == ("background", "chenille stems", "bunny book", "tissue box", "joke book")
    assert [frame.name for frame in shelf.frames if frame.labels] == [str(k) for k in range(10)]
    valid = np.mean([(frame.depth.load() > 0).mean() for frame in shelf.frames])
    assert 0.24 < valid < 0.28
    camera = shelf.frames[0].camera
    assert (camera.width, camera.height, camera.cx) == (640, 480, 298.442688 + 0.5)


def test_frames_agree_about_where_things_are(shelf: Scene) -> None:
    """Points of one frame, seen from another, lie where that one measured them: poses, intrinsics, scale and axes fit."""
    errors = []
    for a, b in ((0, 1), (0, 7), (3, 11), (14, 5)):
        source, target = shelf.frames[a], shelf.frames[b]
        depth, other = source.depth.load(), target.depth.load()
        seen = depth.ravel() > 0
        local = source.depth.camera.unproject(source.depth.camera.pixel_centres()[seen], depth.ravel()[seen])
        world = transform(source.world_from_camera, local)
        uv, z = target.depth.camera.project(transform(invert_pose(target.world_from_camera), world))
        inside = (z > 0) & (uv >= 0).all(axis=1) & (uv < (640, 480)).all(axis=1)
        column, row = uv[inside].astype(int).T
        measured = other[row, column]
        errors.append(np.abs(measured - z[inside])[measured > 0])
        assert len(errors[-1]) > 5000
    assert np.median(np.concatenate(errors)) < 0.008


def test_the_cloud_has_the_truth_of_the_labelled_frames(shelf: Scene) -> None:
    cloud = with_cloud(shelf).cloud
    assert 10_000 < len(cloud) < 60_000
    counts = {name: int((cloud.labels == k).sum()) for k, name in enumerate(shelf.classes)}
    assert all(count > 200 for count in counts.values()), counts
    assert 0 < (cloud.labels == IGNORE).mean() < 0.5  # what only the unlabelled frames see
    # Projected back, points carry the label that the frame has there.
    frame = shelf.frames[4]
    labels, depth = frame.labels.load(), frame.depth.load()
    uv, z = frame.camera.project(transform(invert_pose(frame.world_from_camera), cloud.xyz))
    inside = (z > 0) & (uv >= 0).all(axis=1) & (uv < (640, 480)).all(axis=1) & (cloud.labels != IGNORE)
    column, row = uv[inside].astype(int).T
    near = np.abs(depth[row, column] - z[inside]) < 0.02
    assert near.sum() > 2000
    assert (labels[row, column] == cloud.labels[inside])[near].mean() > 0.9
