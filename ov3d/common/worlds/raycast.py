"""Pictures of a world of primitives: exact depth, class and object per pixel, and a shaded, anti-aliased photograph.

Depth, class and object are those of the ray through the pixel's centre. Colour is filtered: textures by their footprint,
outlines by four more rays in each pixel next to a change of primitive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ov3d.common.base.shapes import Array, Bool, Float32, Float64, Int32, Int64, UInt8
from ov3d.common.scenes.cameras import Camera, invert_pose
from ov3d.common.scenes.scene import IGNORE
from ov3d.common.worlds.primitives import Primitive, all_corners, intersect, normals

LIGHT = np.array([0.35, -0.5, 0.79])
"""Direction to the lamp; every surface is lit from both sides, since a room has light from everywhere."""

_TO_LIGHT = LIGHT / np.linalg.norm(LIGHT)

SKY = (0.75, 0.82, 0.90)
"""Colour of a ray that hits nothing."""

_NEAR_PLANE = 1e-3
"""Near plane, metres: outlines of solids that reach behind the eye are cut there; nothing is closer."""

_SUBPIXELS = np.array([[-0.25, -0.25], [0.25, -0.25], [-0.25, 0.25], [0.25, 0.25]])


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """First hits of some rays.

    Attributes:
        t: ray parameter, inf for misses.
        primitive: index of the primitive hit, -1 for misses.
    """

    t: Float64[Array, " n"]
    primitive: Int32[Array, " n"]


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A rendered view of a world.

    Attributes:
        camera, world_from_camera: the viewpoint.
        rgb: the photograph.
        depth: along the optical axis, metres, 0 for misses.
        labels: class ids, `IGNORE` for misses.
        instances: object ids, `IGNORE` for misses and surfaces that are not objects.
    """

    camera: Camera
    world_from_camera: Float64[Array, "4 4"]
    rgb: UInt8[Array, "h w 3"]
    depth: Float32[Array, "h w"]
    labels: Int32[Array, "h w"]
    instances: Int32[Array, "h w"]


def cast(primitives: Sequence[Primitive], origins: Float64[Array, "_k 3"], directions: Float64[Array, "n 3"]) -> Hits:
    """First hits of rays, testing every primitive on every ray; `origins` has the eye of each ray, or one for all."""
    return _cast(primitives, origins, directions, [slice(0, len(directions))] * len(primitives))


def rays(
    camera: Camera, world_from_camera: Float64[Array, "4 4"], uv: Float64[Array, "n 2"]
) -> tuple[Float64[Array, "1 3"], Float64[Array, "n 3"]]:
    """Eye and directions of the rays through pixels; t along them is the depth along the optical axis."""
    ahead = camera.unproject(uv, np.ones(len(uv)))
    return world_from_camera[None, :3, 3].copy(), np.einsum("ij,nj->ni", world_from_camera[:3, :3], ahead)


def render(primitives: Sequence[Primitive], camera: Camera, world_from_camera: Float64[Array, "4 4"]) -> View:
    """Render a view of a world.

    Args:
        primitives: the world; the eye is outside all of them.
        camera: intrinsics.
        world_from_camera: pose.

    Returns:
        Photograph, exact depth, classes and objects.
    """
    shape = (camera.height, camera.width)
    uv = camera.pixel_centres()
    outlines = outlines_on_screen(all_corners(primitives), camera, world_from_camera)
    shown = np.flatnonzero(outlines[:, 0] <= outlines[:, 2])
    primitives, outlines = [primitives[int(number)] for number in shown], outlines[shown]
    hits, colour = _look(primitives, camera, world_from_camera, outlines, uv)
    _soften_edges(primitives, camera, world_from_camera, outlines, hits, colour)
    labels = np.array([*(p.label for p in primitives), IGNORE], np.int32)  # index -1 (a miss) reads the last
    instances = np.array([*(p.instance for p in primitives), IGNORE], np.int32)
    depth = np.where(np.isfinite(hits.t), hits.t, 0.0).astype(np.float32)
    return View(
        camera=camera,
        world_from_camera=world_from_camera,
        rgb=(colour.clip(0, 1) * 255 + 0.5).astype(np.uint8).reshape(*shape, 3),
        depth=depth.reshape(shape),
        labels=labels[hits.primitive].reshape(shape),
        instances=instances[hits.primitive].reshape(shape),
    )


def _look(
    primitives: Sequence[Primitive],
    camera: Camera,
    world_from_camera: Float64[Array, "4 4"],
    outlines: Float64[Array, "p 4"],
    uv: Float64[Array, "n 2"],
) -> tuple[Hits, Float32[Array, "n 3"]]:
    """Hits and colours of pixels in order of v."""
    origin, directions = rays(camera, world_from_camera, uv)
    rows = [_pixels_within(outline, uv) for outline in outlines]
    hits = _cast(primitives, origin, directions, rows)
    return hits, _shade(primitives, origin, directions, hits, 1 / camera.fx)


def outlines_on_screen(
    corners: Float64[Array, "p 8 3"], camera: Camera, world_from_camera: Float64[Array, "4 4"]
) -> Float64[Array, "p 4"]:
    """Left, top, right and bottom of the rectangle around the part of each hull of eight corners in front, pixels.

    Left exceeds right if no part of it is in the picture.
    """
    camera_from_world = invert_pose(world_from_camera)
    corners = np.einsum("ij,pkj->pki", camera_from_world[:3, :3], corners) + camera_from_world[:3, 3]
    depth = corners[:, :, 2] - _NEAR_PLANE
    with np.errstate(divide="ignore", invalid="ignore"):
        places = corners[:, :, :2] / corners[:, :, 2:] * (camera.fx, camera.fy) + (camera.cx, camera.cy)
    low, high = places.min(axis=1), places.max(axis=1)
    for number in np.flatnonzero((depth > 0).any(axis=1) & (depth <= 0).any(axis=1)):
        low[number], high[number] = _cut_at_near_plane(corners[number], depth[number], camera)
    outlines = np.concatenate([low - 1e-6, high + 1e-6], axis=1)
    outside = (high < 0).any(axis=1) | (low > (camera.width, camera.height)).any(axis=1)
    outlines[outside | (depth <= 0).all(axis=1)] = (np.inf, np.inf, -np.inf, -np.inf)
    return outlines


def _cut_at_near_plane(
    corners: Float64[Array, "8 3"], depth: Float64[Array, " 8"], camera: Camera
) -> tuple[Float64[Array, " 2"], Float64[Array, " 2"]]:
    """Least and greatest u and v of a hull cut at the near plane; all lines between corners are treated as edges."""
    front, back = np.flatnonzero(depth > 0), np.flatnonzero(depth <= 0)
    i, j = np.repeat(front, len(back)), np.tile(back, len(front))
    share = (depth[i] / (depth[i] - depth[j]))[:, None]
    places, _ = camera.project(np.concatenate([corners[front], corners[i] + share * (corners[j] - corners[i])]))
    return places.min(axis=0), places.max(axis=0)


def _pixels_within(outline: Float64[Array, " 4"], uv: Float64[Array, "n 2"]) -> Int64[Array, " _m"]:
    """The pixels in a rectangle; `uv` is sorted by v."""
    left, top, right, bottom = outline
    first, last = np.searchsorted(uv[:, 1], (top, bottom))
    columns = uv[first:last, 0]
    return first + np.flatnonzero((columns >= left) & (columns <= right))


def nearest(
    primitives: Sequence[Primitive],
    num_rays: int,
    rays_of: Callable[[int], tuple[slice | Int64[Array, " _m"], Float64[Array, "_k 3"], Float64[Array, "_m 3"]]],
) -> Hits:
    """First hits, testing each primitive on the rays that may hit it.

    Args:
        primitives: the solids; the first wins if several are hit at the same t.
        num_rays: number of rays.
        rays_of: for a primitive's index, the rays to test (a slice, or indices), the eye of each or one for all, and
            their directions.
    """
    best = np.full(num_rays, np.inf)
    which = np.full(num_rays, -1, np.int32)
    for number, primitive in enumerate(primitives):
        mine, origins, directions = rays_of(number)
        if len(directions) == 0:
            continue
        reached = best[mine]
        t = intersect(primitive, origins, directions)
        closer = t < reached
        best[mine] = np.where(closer, t, reached)
        which[mine] = np.where(closer, np.int32(number), which[mine])
    return Hits(best, which)


def _cast(
    primitives: Sequence[Primitive],
    origins: Float64[Array, "_k 3"],
    directions: Float64[Array, "n 3"],
    rows: Sequence[slice | Int64[Array, " _m"]],
) -> Hits:
    def rays_of(number: int) -> tuple[slice | Int64[Array, " _m"], Float64[Array, "_k 3"], Float64[Array, "_m 3"]]:
        mine = rows[number]
        return mine, origins if len(origins) == 1 else origins[mine], directions[mine]

    return nearest(primitives, len(directions), rays_of)


def _shade(
    primitives: Sequence[Primitive],
    origin: Float64[Array, "1 3"],
    directions: Float64[Array, "n 3"],
    hits: Hits,
    pixel_angle: float,
) -> Float32[Array, "n 3"]:
    """Colours of hits; `pixel_angle` is a pixel's width at depth 1."""
    colours = np.empty((len(directions), 3), np.float32)
    colours[hits.primitive < 0] = SKY
    order = np.argsort(hits.primitive, kind="stable")
    starts = np.searchsorted(hits.primitive[order], np.arange(len(primitives) + 1))
    for number, primitive in enumerate(primitives):
        rows = order[starts[number] : starts[number + 1]]
        if len(rows):
            d, t = directions[rows], hits.t[rows]
            colours[rows] = _surface(primitive, origin + t[:, None] * d, d, t * pixel_angle)
    return colours


def _surface(
    primitive: Primitive,
    points: Float64[Array, "n 3"],
    directions: Float64[Array, "n 3"],
    pixel_width: Float64[Array, " n"],
) -> Float32[Array, "n 3"]:
    """Colours of points on one primitive; `pixel_width` in metres, across the ray."""
    material = primitive.material
    normal, local = normals(primitive, points)
    light = material.matte + (1 - material.matte) * np.abs(normal @ _TO_LIGHT)
    colour = np.broadcast_to(np.asarray(material.colour, np.float32), (len(points), 3))
    if material.texture is not None:
        # An oblique footprint is an ellipse; the circle of the same area neither blurs nor flickers much.
        slant = np.abs((normal * directions).sum(axis=1)) / np.linalg.norm(directions, axis=1)
        width = pixel_width / np.sqrt(np.maximum(slant, 0.05))
        colour = _textured(primitive, local, width, colour)
    return (colour * light[:, None]).astype(np.float32)


def _textured(
    primitive: Primitive,
    local: Float64[Array, "n 3"],
    width: Float64[Array, " n"],
    colour: Float32[Array, "n 3"],
) -> Float32[Array, "n 3"]:
    """The material's colour times its texture.

    A picture (scale 0) covers the front of a box, x to the right and y up, seen from +z. A tiling texture is mapped in metres
    along the two axes of the face, so that it has the same size on all boxes.
    """
    material, half = primitive.material, primitive.half_size
    assert material.texture is not None
    if material.scale == 0:
        front = local[:, 2] > 1 - 1e-6
        st = np.column_stack([(local[:, 0] + 1) / 2, (1 - local[:, 1]) / 2])
        picture = material.texture.sample(st, width / (2 * half[0]))
        return np.where(front[:, None], picture, colour)
    metres = local * half
    axis = np.abs(local).argmax(axis=1) if primitive.shape != "rectangle" else np.full(len(local), 2)
    across = np.where(axis == 0, metres[:, 1], metres[:, 0])
    down = -np.where(axis == 2, metres[:, 1], metres[:, 2])
    if material.grain:
        long, high = np.where(axis == 0, half[1], half[0]), np.where(axis == 2, half[1], half[2])
        across, down = np.where(high > long, down, across), np.where(high > long, across, down)
    return colour * material.texture.sample(np.column_stack([across, down]) / material.scale, width / material.scale)


def _soften_edges(
    primitives: Sequence[Primitive],
    camera: Camera,
    world_from_camera: Float64[Array, "4 4"],
    outlines: Float64[Array, "p 4"],
    hits: Hits,
    colour: Float32[Array, "n 3"],
) -> None:
    """Give each pixel next to a change of primitive the mean colour of four rays, in place."""
    pixels = np.flatnonzero(_edges(hits.primitive.reshape(camera.height, camera.width)))
    if len(pixels) == 0:
        return
    uv = (camera.pixel_centres()[pixels][:, None] + _SUBPIXELS).reshape(-1, 2)
    order = np.argsort(uv[:, 1], kind="stable")
    _, seen = _look(primitives, camera, world_from_camera, outlines, uv[order])
    samples = np.empty_like(seen)
    samples[order] = seen
    colour[pixels] = samples.reshape(-1, 4, 3).mean(axis=1)


def _edges(ids: Int32[Array, "h w"]) -> Bool[Array, "h w"]:
    """Pixels next to a change of id."""
    edge = np.zeros(ids.shape, np.bool_)
    across, down = ids[:, 1:] != ids[:, :-1], ids[1:] != ids[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return edge
