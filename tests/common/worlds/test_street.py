"""Generated streets: what a sweep says is where it says, and both layouts hold what was measured."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest

from ov3d.common.base.errors import UsageError
from ov3d.common.scenes.cameras import invert_pose, transform
from ov3d.common.scenes.scene import IGNORE
from ov3d.common.worlds.primitives import Primitive
from ov3d.common.worlds.raycast import nearest
from ov3d.common.worlds.spinning_lidar import NOISE_HIT, first_hits
from ov3d.common.worlds.street import Drive, StreetConfig, Sweep, build_drive
from ov3d.common.worlds.street_classes import (
    NOISE,
    NOVEL_STUFF,
    NOVEL_THINGS,
    STREET_CLASSES,
    STREET_NAMES,
    class_id,
)

SMALL = StreetConfig(seed=3, num_sweeps=3, columns=240, width=240, height=135, reach=60.0)


@pytest.fixture(scope="module")
def drive() -> Drive:
    return build_drive(SMALL)


@pytest.fixture(scope="module")
def sweep(drive: Drive) -> Sweep:
    return drive.sweep(1)


def _world_points(sweep: Sweep) -> np.ndarray:
    return transform(sweep.world_from_ego @ sweep.ego_from_lidar, sweep.xyz)


def _same(one: Sweep, other: Sweep) -> bool:
    names = ("xyz", "intensity", "ring", "time", "labels", "instances", "world_from_ego")
    arrays = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)
    pictures = zip(one.shots, other.shots, strict=True)
    return arrays and all(np.array_equal(a.view.rgb, b.view.rgb) for a, b in pictures)


def test_the_same_seed_gives_the_same_sweep_and_another_seed_another(sweep: Sweep) -> None:
    again = build_drive(SMALL).sweep(1)
    assert _same(sweep, again)
    other = build_drive(dataclasses.replace(SMALL, seed=4)).sweep(1, photographs=False)
    assert len(other.xyz) != len(sweep.xyz) or not np.array_equal(other.xyz, sweep.xyz)


def _outside_and_depth(primitive: Primitive, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far points lie outside of a solid at least, and below its surface at most, metres."""
    local_from_world = np.linalg.inv(primitive.world_from_local)
    local = transform(local_from_world, points)
    half = 1 / np.linalg.norm(local_from_world[:3, :3], axis=1)  # from the middle to each face, also of a slanted box
    if primitive.shape == "rectangle":
        aside = ((np.abs(local[:, :2]) - 1) * half[:2]).max(axis=1)
        return np.maximum(aside, np.abs(local[:, 2])), np.zeros(len(points))
    if primitive.shape == "ellipsoid":
        beyond = (np.linalg.norm(local, axis=1) - 1) * half.min()
        return beyond, -beyond
    if primitive.shape == "box":
        beyond = ((np.abs(local) - 1) * half).max(axis=1)
        return beyond, -beyond
    radius = 1 + (primitive.taper - 1) * (local[:, 2] + 1) / 2
    side = (np.hypot(local[:, 0], local[:, 1]) - radius) * half[:2].min()
    beyond = np.maximum(side, (np.abs(local[:, 2]) - 1) * half[2])
    return beyond, -beyond


def test_every_point_lies_on_the_solid_that_it_is_labelled_with(drive: Drive, sweep: Sweep) -> None:
    noise = 6 * drive.rig.lidar.range_noise + 1e-3
    points, seconds = _world_points(sweep), drive.seconds(sweep.timestamp) + sweep.time
    assert set(np.unique(sweep.primitives)) - {NOISE_HIT}
    for number in np.unique(sweep.primitives[sweep.primitives != NOISE_HIT]):
        rows = sweep.primitives == number
        primitive, motion = drive.world.primitives[number], drive.world.motions[number]
        assert (sweep.labels[rows] == primitive.label).all()
        assert (sweep.instances[rows] == primitive.instance).all()
        outside, depth = _outside_and_depth(primitive, points[rows] - motion.displacement(seconds[rows]))
        limit = noise + primitive.material.spread  # a pulse goes into leaves, and out again at an edge
        assert outside.max() <= limit and depth.max() <= limit


def test_the_windows_of_solids_lose_no_hit(drive: Drive) -> None:
    lidar = dataclasses.replace(drive.rig.lidar, columns=48)
    times = np.linspace(0.6, 0.65, lidar.columns)
    poses = drive.ego.poses(times) @ drive.rig.ego_from_lidar
    directions = np.einsum("cij,cbj->cbi", poses[:, :3, :3], lidar.directions()).reshape(-1, 3)
    origins = np.repeat(poses[:, :3, 3], lidar.beams, axis=0)
    hits = first_hits(drive.world, lidar, poses, times, origins, directions)

    def every_ray(number: int) -> tuple[slice, np.ndarray, np.ndarray]:
        moved = np.repeat(drive.world.motions[number].displacement(times), lidar.beams, axis=0)
        return slice(None), origins - moved, directions

    expected = nearest(drive.world.primitives, len(directions), every_ray)
    within = expected.t <= lidar.max_range
    np.testing.assert_allclose(hits.t[within], expected.t[within], rtol=1e-12)
    assert (hits.primitive[within] == expected.primitive[within]).mean() > 0.999  # two may be met at once
    assert within.mean() > 0.5


def test_points_have_the_label_of_the_pixel_that_shows_them(drive: Drive, sweep: Sweep) -> None:
    points, same, total = _world_points(sweep), 0, 0
    for shot in sweep.shots:
        camera = shot.mount.camera
        camera_from_world = invert_pose(shot.world_from_ego @ shot.mount.ego_from_camera)
        uv, z = camera.project(transform(camera_from_world, points))
        inside = (z > 1) & (uv >= 0).all(axis=1) & (uv < (camera.width, camera.height)).all(axis=1)
        inside &= sweep.labels != NOISE
        column, row = np.floor(uv[inside]).astype(int).T
        depth = shot.view.depth[row, column]
        shown = np.abs(z[inside] - depth) < 0.1 + 0.01 * depth
        agree = (shot.view.labels[row, column] == sweep.labels[inside]) & shown
        same, total = same + int(agree.sum()), total + int(shown.sum())
        assert shown.mean() > 0.7, shot.mount.name
        assert shot.view.labels.shape == (camera.height, camera.width)
    assert total > 0.4 * len(points)
    assert same >= 0.97 * total


def test_cameras_are_triggered_as_the_sweep_passes_them(drive: Drive, sweep: Sweep) -> None:
    azimuth = np.degrees(np.arctan2(sweep.xyz[:, 1], sweep.xyz[:, 0])) - 90  # the LiDAR's y axis points ahead
    for shot, ahead in zip(sweep.shots, (0, -55, 55, 180, 110, -110), strict=True):
        offset = (shot.timestamp - sweep.timestamp) / 1e6
        assert -0.05 < offset <= 0
        near = np.abs((azimuth - ahead + 180) % 360 - 180) < 8
        assert abs(np.median(sweep.time[near]) - offset) < 0.002, shot.mount.name
        assert np.array_equal(shot.world_from_ego, drive.world_from_ego(shot.timestamp))
    assert -0.05 < sweep.time.min() < -0.049 and -0.001 < sweep.time.max() < 0


def test_the_frame_of_each_firing_and_that_of_the_sweep_say_the_same(drive: Drive) -> None:
    compensated = drive.sweep(2, photographs=False)
    raw = build_drive(dataclasses.replace(SMALL, motion_compensated=False)).sweep(2, photographs=False)
    assert np.array_equal(raw.time, compensated.time)
    assert np.abs(raw.xyz - compensated.xyz).max() > 0.2  # 8 m/s for 50 ms
    poses = drive.ego.poses(drive.seconds(raw.timestamp) + raw.time) @ raw.ego_from_lidar
    world = np.einsum("nij,nj->ni", poses[:, :3, :3], raw.xyz.astype(np.float64)) + poses[:, :3, 3]
    np.testing.assert_allclose(world, _world_points(compensated), atol=1e-4)


def test_things_move_as_they_say_and_the_rest_stands_still(drive: Drive) -> None:
    sweeps = [drive.sweep(number, photographs=False) for number in (0, 2)]
    moved = Counter()
    for thing in drive.world.things:
        places = []
        for sweep in sweeps:
            seconds = drive.seconds(sweep.timestamp)
            box = thing.world_from_box.copy()
            box[:3, 3] += thing.motion.displacement(np.array([seconds]))[0]
            local = transform(invert_pose(box), _world_points(sweep)[sweep.instances == thing.instance])
            # Within its box at the sweep's time, but for what it moves during the sweep.
            slack = 0.13 + 0.05 * np.linalg.norm(thing.motion.velocity)
            assert (np.abs(local) <= np.array(thing.size) / 2 + slack).all(), thing.name
            places.append(box[:3, 3])
        if np.linalg.norm(places[1] - places[0]) > 0.5:
            moved[thing.name] += 1
    assert moved["car"] and moved["pedestrian"] and moved["bicyclist"]
    assert all(thing.motion.moves or not any(thing.motion.velocity) for thing in drive.world.things)
    assert not any(motion.moves for motion in drive.world.motions[: -sum(len(t.parts) for t in drive.world.things)])


def test_there_is_every_class_in_many_shapes() -> None:
    drives = [build_drive(dataclasses.replace(SMALL, seed=seed, num_sweeps=20)) for seed in range(3)]
    labels = {primitive.label for drive in drives for primitive in drive.world.primitives}
    assert labels == set(range(len(STREET_CLASSES))) - {NOISE}
    for name in (one.name for one in STREET_CLASSES if one.thing):
        things = [thing for drive in drives for thing in drive.world.things if thing.name == name]
        sizes = {tuple(np.round(thing.size, 2)) for thing in things}
        assert len(sizes) >= min(len(things), 3), name
        assert min(len(thing.parts) for thing in things) >= 8, name
    tall = {thing.name: thing.size for drive in drives for thing in drive.world.things}
    assert tall["bus"][0] > 9.5 > tall["car"][0] > 2 * tall["bicycle"][0] > 3 > tall["pedestrian"][2] > tall["child"][2]


def test_a_sweep_shows_base_and_novel_classes() -> None:
    names = Counter()
    for seed in range(2):
        sweep = build_drive(StreetConfig(seed=seed, num_sweeps=2)).sweep(1, photographs=False)
        names.update(STREET_NAMES[label] for label in sweep.labels)
        assert 20_000 < len(sweep.xyz) < 34_688
        assert (sweep.instances[sweep.labels == class_id("road")] == IGNORE).all()
    assert set(NOVEL_STUFF) < set(names) and len(set(NOVEL_THINGS) & set(names)) >= 3
    assert min(names["road"], names["building"]) > 5000 and names["pavement"] > 500


def test_intensity_tells_materials_and_angles_apart(drive: Drive, sweep: Sweep) -> None:
    def mean(name: str, chosen: np.ndarray | bool = True) -> float:
        return float(sweep.intensity[(sweep.labels == class_id(name)) & chosen].mean())

    far = np.linalg.norm(sweep.xyz, axis=1) > 12
    assert mean("lane marking") > 2 * mean("road")
    assert mean("road", ~far) > 1.5 * mean("road", far)
    steps = sweep.intensity.astype(np.float64) * 255
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)
    assert sweep.intensity.min() >= 0 and sweep.intensity.max() <= 1


@pytest.mark.parametrize(("beams", "lowest", "highest"), [(16, -15, 15), (64, -24.9, 2)])
def test_other_sensors_look_elsewhere(beams: int, lowest: float, highest: float) -> None:
    config = dataclasses.replace(SMALL, beams=beams, motion_compensated=False)
    sweep = build_drive(config).sweep(0, photographs=False)
    x, y, z = sweep.xyz.T.astype(np.float64)
    elevation, expected = np.degrees(np.arctan2(z, np.hypot(x, y))), np.linspace(lowest, highest, beams)
    np.testing.assert_allclose(elevation, expected[sweep.ring], atol=1e-3)
    assert len(np.unique(sweep.ring)) > beams // 2


@pytest.mark.parametrize("setting", [{"beams": 20}, {"num_sweeps": 0}, {"speed": -1.0}, {"width": 3}, {"seed": -1}])
def test_a_street_that_cannot_be_is_refused(setting: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        dataclasses.replace(SMALL, **setting)
