"""The four solids that generated rooms are made of, and their intersections with rays.

Each is a unit shape in [-1, 1]^3 under an affine map `world_from_local`, so a ray o + t d keeps its t in the local frame, and
t is the depth along the optical axis if d has z = 1 in the camera.

    box        the cube
    ellipsoid  x^2 + y^2 + z^2 = 1
    frustum    x^2 + y^2 = r(z)^2 with r = 1 at z = -1 and `taper` at z = +1, capped: cylinder, cone, lamp shade
    rectangle  z = 0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from ov3d.common.base.shapes import Array, Float64
from ov3d.common.scenes.cameras import transform
from ov3d.common.scenes.scene import IGNORE
from ov3d.common.worlds.textures import Material

Shape = Literal["box", "ellipsoid", "frustum", "rectangle"]

Triple = tuple[float | int, float | int, float | int]  # beartype's `float` excludes int

NEAR = 1e-6
"""Hits closer than this are at or behind the eye, and do not count."""

_CORNERS = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])


@dataclass(frozen=True, eq=False)  # no slots, because cached properties need a dict
class Primitive:
    """One solid of a world.

    Attributes:
        shape: which unit shape.
        world_from_local: affine map from the unit shape to the world, metres.
        material: what it looks like.
        label: class id.
        instance: object id, `IGNORE` for surfaces that are not objects (walls, floor).
        taper: of a frustum, radius at the top over radius at the bottom.
    """

    shape: Shape
    world_from_local: Float64[Array, "4 4"]
    material: Material
    label: int = IGNORE
    instance: int = IGNORE
    taper: float = 1.0

    def corners(self) -> Float64[Array, "8 3"]:
        """The corners of the unit shape's box, in the world: their convex hull contains the solid."""
        flat = self.shape == "rectangle"
        return transform(self.world_from_local, _CORNERS * (1.0, 1.0, 0.0 if flat else 1.0))

    @cached_property
    def local_from_world(self) -> Float64[Array, "4 4"]:
        """The inverse of `world_from_local`."""
        return np.linalg.inv(self.world_from_local)

    @property
    def half_size(self) -> Float64[Array, " 3"]:
        """Half the lengths of the box's three edges, metres."""
        return np.linalg.norm(self.world_from_local[:3, :3], axis=0)


def solid(
    shape: Shape,
    centre: Triple,
    size: Triple,
    material: Material,
    *,
    taper: float = 1.0,
) -> Primitive:
    """A solid with its axes along the world's: `size` is its full extent in x, y, z, metres."""
    pose = np.diag([size[0] / 2, size[1] / 2, size[2] / 2, 1.0])
    pose[:3, 3] = centre
    return Primitive(shape, pose, material, taper=taper)


def rod(start: Triple, end: Triple, radius: float, material: Material, *, taper: float = 1.0) -> Primitive:
    """A round bar from one point to another; `taper` is its radius at the end over `radius`, which it has at the start."""
    first, last = np.array(start, np.float64), np.array(end, np.float64)
    axis = (last - first) / np.linalg.norm(last - first)
    aside = np.cross(axis, (0.0, 1.0, 0.0) if abs(axis[1]) < 0.9 else (1.0, 0.0, 0.0))
    aside /= np.linalg.norm(aside)
    pose = np.eye(4)
    pose[:3, :3] = np.column_stack([aside * radius, np.cross(axis, aside) * radius, (last - first) / 2])
    pose[:3, 3] = (first + last) / 2
    return Primitive("frustum", pose, material, taper=taper)


def leaning(part: Primitive, forward: float) -> Primitive:
    """A solid sheared so that its top is `forward` metres along x from its bottom: a windscreen, a leaning back."""
    pose = part.world_from_local.copy()
    pose[0, 2] += forward / 2
    return replace(part, world_from_local=pose)


def gable(centre: Triple, size: Triple, material: Material) -> Primitive:
    """A ridged roof: `size` is ridge length, span and height, `centre` the middle of its base.

    It is a box on its edge, half of it below the base, hidden by whatever is underneath.
    """
    length, span, height = size
    pose = np.eye(4)
    pose[:3, :3] = np.array([[length / 2, 0, 0], [0, span / 4, -span / 4], [0, height / 2, height / 2]])
    pose[:3, 3] = centre
    return Primitive("box", pose, material)


def pose_at(x: float, y: float, yaw: float = 0.0, z: float = 0.0) -> Float64[Array, "4 4"]:
    """`world_from_piece` of an upright piece at a position, rotated by `yaw` radians anticlockwise."""
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    pose[:3, 3] = x, y, z
    return pose


def placed(
    parts: list[Primitive], world_from_piece: Float64[Array, "4 4"], label: int, instance: int
) -> list[Primitive]:
    """Parts of one piece, moved into the world and marked with its class and object id."""
    return [
        replace(part, world_from_local=world_from_piece @ part.world_from_local, label=label, instance=instance)
        for part in parts
    ]


def all_corners(primitives: Sequence[Primitive]) -> Float64[Array, "n 8 3"]:
    """`Primitive.corners` of many at once."""
    poses = np.stack([primitive.world_from_local for primitive in primitives])
    thick = np.array([primitive.shape != "rectangle" for primitive in primitives], np.float64)
    local = _CORNERS * np.column_stack([np.ones_like(thick), np.ones_like(thick), thick])[:, None]
    return np.einsum("nij,nkj->nki", poses[:, :3, :3], local) + poses[:, None, :3, 3]


def bounds(parts: list[Primitive]) -> tuple[Float64[Array, " 3"], Float64[Array, " 3"]]:
    """Lowest and highest corner of the box around some parts."""
    corners = np.concatenate([part.corners() for part in parts])
    return corners.min(axis=0), corners.max(axis=0)


def intersect(
    primitive: Primitive, origins: Float64[Array, "_k 3"], directions: Float64[Array, "n 3"]
) -> Float64[Array, " n"]:
    """Where rays first enter a solid.

    Args:
        primitive: the solid; the eyes are outside it.
        origins: the eye of each ray, or a single one for all, world.
        directions: of any length, world.

    Returns:
        t of the first hit, origin + t direction, inf for misses.
    """
    local_from_world = primitive.local_from_world
    o = transform(local_from_world, origins).T
    # Axes first, since NumPy reduces long rows far faster than short ones; einsum, since a product with a 3x3 matrix is not
    # worth waking BLAS threads, which on a busy machine takes longer than the work.
    d = np.einsum("ij,nj->in", local_from_world[:3, :3], directions)
    with np.errstate(divide="ignore", invalid="ignore"):
        if primitive.shape == "box":
            return _meet_box(o, d)
        if primitive.shape == "ellipsoid":
            return _meet_ellipsoid(o, d)
        if primitive.shape == "frustum":
            return _meet_frustum(o, d, primitive.taper)
        return _meet_rectangle(o, d)


def normals(primitive: Primitive, points: Float64[Array, "n 3"]) -> tuple[Float64[Array, "n 3"], Float64[Array, "n 3"]]:
    """Unit outward normals in the world and positions in the unit shape, for points on a solid's surface."""
    local_from_world = primitive.local_from_world
    p = transform(local_from_world, points)
    if primitive.shape == "ellipsoid":
        n = p
    elif primitive.shape == "rectangle":
        n = np.broadcast_to(np.array([0.0, 0.0, 1.0]), p.shape)
    elif primitive.shape == "box":
        n = np.zeros_like(p)
        axis = np.abs(p).argmax(axis=1)
        rows = np.arange(len(p))
        n[rows, axis] = np.sign(p[rows, axis])
    else:
        slope = (primitive.taper - 1) / 2
        radius = (1 + primitive.taper) / 2 + slope * p[:, 2]
        n = np.column_stack([p[:, :2], -slope * radius])
        # The nearer of side and cap, measured in the unit shape.
        cap = np.abs(np.abs(p[:, 2]) - 1) < np.abs(np.hypot(p[:, 0], p[:, 1]) - radius)
        n[cap] = np.column_stack([np.zeros((cap.sum(), 2)), np.sign(p[cap, 2])])
    world = n @ local_from_world[:3, :3]  # normals transform by the inverse transpose
    length = np.linalg.norm(world, axis=1, keepdims=True)
    return world / np.maximum(length, 1e-300), p


def _first(*candidates: Float64[Array, " n"]) -> Float64[Array, " n"]:
    """The smallest candidate in front of the eye; NaN and values behind it count as misses."""
    stacked = np.stack(candidates)
    return np.where(stacked > NEAR, stacked, np.inf).min(axis=0)


def _meet_box(o: Float64[Array, "3 _k"], d: Float64[Array, "3 n"]) -> Float64[Array, " n"]:
    """Slabs (Kay & Kajiya, SIGGRAPH 1986)."""
    d = np.where(d == 0, 1e-300, d)  # a ray along a slab: its two distances become ± huge, never 0 * inf
    low, high = (-1 - o) / d, (1 - o) / d
    enter = np.minimum(low, high).max(axis=0)
    leave = np.maximum(low, high).min(axis=0)
    return np.where((enter <= leave) & (enter > NEAR), enter, np.inf)


def _meet_ellipsoid(o: Float64[Array, "3 _k"], d: Float64[Array, "3 n"]) -> Float64[Array, " n"]:
    a = (d * d).sum(axis=0)
    b = (o * d).sum(axis=0)
    root = np.sqrt(b * b - a * ((o * o).sum(axis=0) - 1))  # NaN if the ray misses
    return _first((-b - root) / a)


def _meet_frustum(o: Float64[Array, "3 _k"], d: Float64[Array, "3 n"], taper: float) -> Float64[Array, " n"]:
    middle, slope = (1 + taper) / 2, (taper - 1) / 2
    radius = middle + slope * o[2]
    a = d[0] ** 2 + d[1] ** 2 - slope**2 * d[2] ** 2
    b = o[0] * d[0] + o[1] * d[1] - slope * radius * d[2]
    root = np.sqrt(b * b - a * (o[0] ** 2 + o[1] ** 2 - radius**2))
    hits = []
    for side in ((-b - root) / a, (-b + root) / a):
        z = o[2] + side * d[2]
        hits.append(np.where(np.abs(z) <= 1, side, np.inf))
    for end, limit in ((-1.0, 1.0), (1.0, taper)):
        t = (end - o[2]) / d[2]
        x, y = o[0] + t * d[0], o[1] + t * d[1]
        hits.append(np.where(x * x + y * y <= limit * limit, t, np.inf))
    return _first(*hits)


def _meet_rectangle(o: Float64[Array, "3 _k"], d: Float64[Array, "3 n"]) -> Float64[Array, " n"]:
    t = -o[2] / d[2]
    x, y = o[0] + t * d[0], o[1] + t * d[1]
    return _first(np.where((np.abs(x) <= 1) & (np.abs(y) <= 1), t, np.inf))
