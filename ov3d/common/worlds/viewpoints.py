"""Where to stand in a room: views chosen greedily so that every photograph is well seen twice, then every piece of furniture.

Candidates are in front of a photograph, around a piece, or anywhere; lines of sight are cast, so hidden parts do not count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ov3d.common.base.shapes import Array, Bool, Float64
from ov3d.common.scenes.cameras import Camera, invert_pose, look_at, transform
from ov3d.common.worlds.furniture import Random
from ov3d.common.worlds.raycast import cast
from ov3d.common.worlds.rooms import Room, Thing
from ov3d.common.worlds.walls import Picture, wall_pose

SIGHTINGS = 2
"""Views that must show each photograph whole."""

_MARGIN_PX = 6.0
_GRID = np.array([(x, y) for x in (-0.95, -0.32, 0.32, 0.95) for y in (-0.95, -0.32, 0.32, 0.95)])


@dataclass(frozen=True, slots=True, eq=False)
class _Candidate:
    pose: Float64[Array, "4 4"]
    pictures: frozenset[int]
    things: frozenset[int]


def choose_views(rng: Random, room: Room, camera: Camera, num_views: int) -> list[Float64[Array, "4 4"]] | None:
    """Poses that look around a room.

    Args:
        rng: source of all random choices.
        room: the room.
        camera: intrinsics of all views.
        num_views: number of views.

    Returns:
        `world_from_camera` of each view, or None if no choice of candidates shows every photograph `SIGHTINGS` times.
    """
    candidates = _judge(room, camera, _candidates(rng, room))
    chosen: list[_Candidate] = []
    while len(chosen) < num_views and candidates:
        gains = [_gain(candidate, chosen) for candidate in candidates]
        chosen.append(candidates.pop(int(np.argmax(gains))))
    for picture in room.pictures:
        if sum(picture.instance in view.pictures for view in chosen) < SIGHTINGS:
            return None
    return [view.pose for view in chosen] if len(chosen) == num_views else None


def _candidates(rng: Random, room: Room) -> list[Float64[Array, "4 4"]]:
    """Poses in free space."""
    poses = []
    for picture in room.pictures:
        poses += [pose for _ in range(16) if (pose := _before_picture(rng, room, picture)) is not None]
    for thing in room.things:
        poses += [pose for _ in range(8) if (pose := _around_thing(rng, room, thing)) is not None]
    for _ in range(60):
        eye = _eye(rng, room, rng.uniform(-0.5, 0.5, 2) * (room.size[0] - 0.8, room.size[1] - 0.8))
        if eye is not None:
            angle = rng.uniform(0, 2 * np.pi)
            ahead = np.array([np.cos(angle), np.sin(angle), rng.uniform(-0.35, 0.0)])
            poses.append(look_at(eye, eye + ahead))
    return poses


def _before_picture(rng: Random, room: Room, picture: Picture) -> Float64[Array, "4 4"] | None:
    frame = wall_pose(room.size, picture.wall)
    distance, angle = rng.uniform(1.8, 3.0), rng.uniform(-0.65, 0.65)
    foot = frame[:3, 3] + frame[:3, 0] * (picture.along + distance * np.sin(angle))
    foot = foot + frame[:3, 2] * distance * np.cos(angle)
    eye = _eye(rng, room, foot[:2])
    if eye is None:
        return None
    aside, below = rng.uniform(-0.5, 0.5), rng.uniform(-0.45, 0.1)
    target = transform(frame, np.array([[picture.along + aside, picture.above + below, 0.0]]))[0]
    return look_at(eye, target)


def _around_thing(rng: Random, room: Room, thing: Thing) -> Float64[Array, "4 4"] | None:
    middle = thing.footprint.mean(axis=0)
    angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(1.6, 3.2)
    eye = _eye(rng, room, middle + distance * np.array([np.cos(angle), np.sin(angle)]))
    if eye is None:
        return None
    return look_at(eye, np.array([*(middle + rng.uniform(-0.3, 0.3, 2)), min(thing.height, 1.4) * 0.6]))


def _eye(rng: Random, room: Room, place: Float64[Array, " 2"]) -> Float64[Array, " 3"] | None:
    """A standing person's eye above a position; None if outside the room or inside something tall."""
    height = float(rng.uniform(1.4, 1.65))
    if (np.abs(place) > np.array(room.size[:2]) / 2 - 0.35).any():
        return None
    for thing in room.things:
        reach = 0.45 if thing.height > height - 0.35 else 0.05
        if _distance_to(thing.footprint, place) < reach:
            return None
    return np.array([place[0], place[1], height])


def _distance_to(rectangle: Float64[Array, "4 2"], place: Float64[Array, " 2"]) -> float:
    """Distance from a position to a rectangle, 0 inside."""
    origin, a, b = rectangle[0], rectangle[1] - rectangle[0], rectangle[3] - rectangle[0]
    size = np.array([np.linalg.norm(a), np.linalg.norm(b)])
    local = np.array([(place - origin) @ a, (place - origin) @ b]) / size
    return float(np.linalg.norm(np.maximum(np.maximum(-local, local - size), 0)))


def _judge(room: Room, camera: Camera, poses: list[Float64[Array, "4 4"]]) -> list[_Candidate]:
    """Which photographs and pieces each pose shows: those with enough unoccluded points in view."""
    points_of = {p.instance: _picture_points(room, p) for p in room.pictures}
    points_of.update({t.instance: _part_centres(t) for t in room.things})
    targets, eyes, points = [], [np.zeros((0, 3))], [np.zeros((0, 3))]
    for number, pose in enumerate(poses):
        facing = [p.instance for p in room.pictures if _faces(room, camera, p, pose)]
        for instance in [*facing, *(t.instance for t in room.things)]:
            inside = _inside(camera, pose, points_of[instance])
            # A photograph must be fully visible; for a piece, half is enough.
            if inside.mean() >= (1.0 if instance in facing else 0.5):
                targets.append((number, instance, int(inside.sum()), instance in facing))
                points.append(points_of[instance][inside])
                eyes.append(np.broadcast_to(pose[:3, 3], points[-1].shape))
    origins = np.concatenate(eyes)
    hits = cast(room.primitives, origins, np.concatenate(points) - origins)
    met = np.array([p.instance for p in room.primitives])[hits.primitive]
    seen: list[set[int]] = [set() for _ in poses]
    start = 0
    for number, instance, count, is_picture in targets:
        share = (met[start : start + count] == instance).sum() / len(points_of[instance])
        start += count
        if share >= (1.0 if is_picture else 0.5):
            seen[number].add(instance)
    hung = frozenset(p.instance for p in room.pictures)
    return [_Candidate(pose, hung & found, frozenset(found - hung)) for pose, found in zip(poses, seen, strict=True)]


def _inside(camera: Camera, pose: Float64[Array, "4 4"], points: Float64[Array, "n 3"]) -> Bool[Array, " n"]:
    """Points well inside a camera's picture."""
    uv, z = camera.project(transform(invert_pose(pose), points))
    edge = np.array([camera.width, camera.height]) - _MARGIN_PX
    return (z > 0.3) & (uv > _MARGIN_PX).all(axis=1) & (uv < edge).all(axis=1)


def _faces(room: Room, camera: Camera, picture: Picture, pose: Float64[Array, "4 4"]) -> bool:
    """Whether a photograph faces the camera (within 55 degrees) and appears neither too small nor too large."""
    frame = wall_pose(room.size, picture.wall)
    middle = frame[:3, 3] + frame[:3, 0] * picture.along + frame[:3, 1] * picture.above
    to_eye = pose[:3, 3] - middle
    distance = float(np.linalg.norm(to_eye))
    long_side = camera.fx * max(picture.width, picture.height) / distance / camera.width
    return bool(to_eye @ frame[:3, 2] > 0.57 * distance) and 0.15 < long_side < 0.48


def _picture_points(room: Room, picture: Picture) -> Float64[Array, "16 3"]:
    flat = _GRID * (picture.width / 2, picture.height / 2) + (picture.along, picture.above)
    return transform(wall_pose(room.size, picture.wall), np.column_stack([flat, np.full(len(flat), 0.025)]))


def _part_centres(thing: Thing) -> Float64[Array, "_n 3"]:
    """Up to eight points inside a piece: a ray to them hits the piece first, unless something occludes it."""
    step = max(1, len(thing.parts) // 8)
    return np.stack([part.world_from_local[:3, 3] for part in thing.parts[::step]])


def _gain(candidate: _Candidate, chosen: list[_Candidate]) -> float:
    """The gain from a view: photographs first, then pieces, then new viewing directions."""
    gain = 0.0
    for instance in sorted(candidate.pictures):
        times = sum(instance in view.pictures for view in chosen)
        gain += 10.0 if times < SIGHTINGS else 1.0
    for instance in sorted(candidate.things):
        times = sum(instance in view.things for view in chosen)
        gain += (3.0, 1.0)[times] if times < 2 else 0.1
    # The same position and direction as another view shows nothing new.
    apart = [
        np.linalg.norm(candidate.pose[:3, 3] - view.pose[:3, 3])
        + np.arccos(np.clip(candidate.pose[:3, 2] @ view.pose[:3, 2], -1, 1))
        for view in chosen
    ]
    return gain + 2.0 * float(min([1.0, *apart]))
