"""A cloud from depth: pixels are unprojected to the world and thinned to one point per voxel.

Symbols: K_d the depth camera, T = world_from_camera, D the depth image; pixel (u, v) becomes X = T K_d^-1 (u, v, 1) D(u, v).

A voxel's point is the mean of its pixels, its colour their mean colour, its class and object their majority vote.
Frames are read one at a time and only sums per voxel are kept, so memory grows with the surface, not with the number of
frames. Points are in the order of their voxels, which depends on nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.packing import KeyLayout
from ov3d.common.base.progress import Progress, Silent
from ov3d.common.base.shapes import Array, Bool, Float32, Float64, Int32, Int64
from ov3d.common.scenes.cameras import transform
from ov3d.common.scenes.scene import IGNORE, Frame, PointCloud, Scene

FINE_VOXEL, COARSE_VOXEL = 0.01, 0.02
"""Metres: for a table or a shelf, and for a room."""

SMALL_SCENE = 3.0
"""Metres across (9 in 10 of the points) below which a scene gets the fine voxel size."""

PIXELS_A_VOXEL = 4.0
"""Voxel width in median pixel footprints if units are arbitrary: equals 2 cm in a 3 m room at 640 pixels."""

FLYING_STEP = 0.02
"""Least difference from both neighbours, as a share of its depth, for a pixel to count as flying."""

GRAZING = 11.4
"""Tangent of 85 degrees: a plane this oblique changes by GRAZING / f of its depth per pixel (f in pixels)."""

_HALF_RANGE = 1 << 20
_KEYS = KeyLayout((21, 21, 21), (_HALF_RANGE, _HALF_RANGE, _HALF_RANGE))
_BUFFER_ROWS = 4_000_000


def with_cloud(scene: Scene, *, voxel_size: float | None = None, progress: Progress | None = None) -> Scene:
    """The scene with a cloud: its own if it has one, else one made from its frames' depth.

    Flying pixels, which float between an edge and the background, are dropped: see `flying`.

    Args:
        scene: with a cloud, or with frames that have depth. Points get the truth of labelled frames: the class of
            most labelled pixels, the object (or no object) of most pixels.
        voxel_size: edge of a voxel, scene units. By default 1 cm for metric scenes less than `SMALL_SCENE` across and
            2 cm for larger ones; `PIXELS_A_VOXEL` median pixel footprints if units are arbitrary.
        progress: receives progress per frame.

    Raises:
        DataError: the scene has neither a cloud nor depth, or no depth is valid.
        UsageError: the voxel size is not positive.
    """
    if scene.cloud is not None:
        return scene
    frames = frames_with_depth(scene)
    if voxel_size is not None and not (np.isfinite(voxel_size) and voxel_size > 0):
        raise UsageError(f"voxel_size must be positive, got {voxel_size} {scene.world.unit_name}.")
    size = voxel_size or default_voxel_size(scene)
    sums = _Voxels(size, labelled=any(f.labels for f in frames), instanced=any(f.instances for f in frames))
    with (progress or Silent()).task("Making a cloud from depth", len(frames)) as task:
        for frame in frames:
            sums.add(_pixels(frame))
            task.advance()
    cloud = sums.cloud()
    if len(cloud) == 0:
        raise DataError(
            f"None of the {len(frames)} frames of {scene.name} has valid depth.", "Check depth/: 0 means missing."
        )
    note = f"cloud of {len(cloud)} points made from {len(frames)} depth images, one per voxel of {size:.4g}"
    notes = [*scene.notes, f"{note} {scene.world.unit_name}"]
    if sums.num_far:
        notes.append(f"{sums.num_far} depth pixels are too far away for this voxel size and are left out")
    return replace(scene, cloud=cloud, notes=tuple(notes))


def frames_with_depth(scene: Scene) -> list[Frame]:
    """The frames that a cloud can be made from.

    Raises:
        DataError: no frame has depth, and the scene has no cloud.
    """
    frames = [frame for frame in scene.frames if frame.depth is not None]
    if not frames and scene.cloud is None:
        raise DataError(
            f"Scene {scene.name} has neither a cloud nor depth.",
            "Put depth/N.png (16-bit millimetres) beside color/, or cloud.ply into the folder. For photographs alone, run: "
            f"ov3d train nerf {scene.name}",
        )
    return frames


def default_voxel_size(scene: Scene) -> float:
    """The default voxel size for a scene, from a sample of its depth (see `with_cloud`); scene units."""
    frames = [frame for frame in scene.frames if frame.depth is not None]
    points, footprints = [], []
    for frame in frames[:: max(1, len(frames) // 16)]:
        assert frame.depth is not None
        camera, depth = frame.depth.camera, frame.depth.load()[::8, ::8].ravel()
        seen = depth > 0
        local = camera.unproject(camera.pixel_centres(8)[seen], depth[seen])
        points.append(transform(frame.world_from_camera, local))
        footprints.append(depth[seen] / camera.fx)
    if scene.world.units == "arbitrary":
        widths = np.concatenate(footprints)
        return float(PIXELS_A_VOXEL * np.median(widths)) if len(widths) else COARSE_VOXEL
    sample = np.concatenate(points)
    if len(sample) == 0:
        return COARSE_VOXEL
    low, high = np.percentile(sample, (5, 95), axis=0)
    return FINE_VOXEL if float((high - low).max()) < SMALL_SCENE else COARSE_VOXEL


@dataclass(frozen=True, slots=True, eq=False)
class _Pixels:
    """Depth pixels of one frame, in the world; `labels` and `instances` are None if the frame has none."""

    xyz: Float64[Array, "n 3"]
    rgb: Float64[Array, "n 3"]
    labels: Int32[Array, " n"] | None
    instances: Int32[Array, " n"] | None


def _pixels(frame: Frame) -> _Pixels:
    """The valid depth pixels of a frame that are also visible in its photograph."""
    assert frame.depth is not None
    image, depth = frame.load_image(), frame.depth.load()
    keep = np.flatnonzero((depth > 0) & ~flying(depth, frame.depth.camera.fx))
    z = depth.ravel()[keep]
    local = frame.depth.camera.unproject(frame.depth.camera.pixel_centres()[keep], z)
    uv, _ = frame.camera.project(local)
    inside = ((uv >= 0) & (uv < (frame.camera.width, frame.camera.height))).all(axis=1)
    local, uv = local[inside], uv[inside]
    rows, columns = uv[:, 1].astype(np.int64), uv[:, 0].astype(np.int64)
    return _Pixels(
        xyz=transform(frame.world_from_camera, local),
        rgb=image[rows, columns].astype(np.float64),
        labels=None if frame.labels is None else _nearest(frame.labels.load(), uv, image.shape),
        instances=None if frame.instances is None else _nearest(frame.instances.load(), uv, image.shape),
    )


def _nearest(ids: Int32[Array, "h w"], uv: Float64[Array, "n 2"], shape: tuple[int, ...]) -> Int32[Array, " n"]:
    """Ids at pixels of the photograph, from an image of ids that may be smaller or larger than it."""
    scale = (ids.shape[1] / shape[1], ids.shape[0] / shape[0])
    columns, rows = (uv * scale).astype(np.int64).T
    return ids[rows.clip(0, ids.shape[0] - 1), columns.clip(0, ids.shape[1] - 1)]


def flying(depth: Float32[Array, "h w"], focal: float) -> Bool[Array, "h w"]:
    """Pixels that float between foreground and background.

    Along its row or column, such a pixel's depth is between its two neighbours', and differs from each by more than a plane
    seen at 5 degrees would, and by at least `FLYING_STEP` of the depth. A clean edge loses nothing; a pixel with a missing
    neighbour is kept.

    Args:
        depth: 0 where missing.
        focal: focal length, pixels.
    """
    share = max(FLYING_STEP, GRAZING / focal)
    out = np.zeros(depth.shape, np.bool_)
    for before, here, after, target in (
        (depth[:, :-2], depth[:, 1:-1], depth[:, 2:], out[:, 1:-1]),
        (depth[:-2], depth[1:-1], depth[2:], out[1:-1]),
    ):
        rise, step = here - before, share * here
        fall = after - here
        between = (rise * fall > 0) & (np.minimum(np.abs(rise), np.abs(fall)) > step)
        target |= between & (before > 0) & (here > 0) & (after > 0)
    return out


# ----------------------------------------------------------------------------------------------------------- thinning


class _Votes:
    """How often each id was seen in each voxel: rows (voxel key, id, count), sorted by key and id."""

    def __init__(self) -> None:
        self._rows: list[Int64[Array, "_n 3"]] = []

    def add(self, keys: Int64[Array, " n"], ids: Int32[Array, " n"]) -> None:
        self._rows.append(_counted(np.column_stack([keys, ids.astype(np.int64), np.ones(len(keys), np.int64)])))

    def merge(self) -> None:
        if len(self._rows) > 1:
            self._rows = [_counted(np.concatenate(self._rows))]

    def winners(self, keys: Int64[Array, " n"]) -> Int32[Array, " n"]:
        """The id with most votes in each voxel, the smallest in a tie, `IGNORE` without votes."""
        self.merge()
        out = np.full(len(keys), IGNORE, np.int32)
        if self._rows and len(self._rows[0]):
            rows = self._rows[0]
            rows = rows[np.lexsort((-rows[:, 1], rows[:, 2], rows[:, 0]))]  # the last row of a key wins
            last = np.flatnonzero(np.append(rows[1:, 0] != rows[:-1, 0], True))
            out[np.searchsorted(keys, rows[last, 0])] = rows[last, 1]
        return out


def _counted(rows: Int64[Array, "n 3"]) -> Int64[Array, "m 3"]:
    """Sum the counts of rows with equal key and id."""
    if len(rows) == 0:
        return rows
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    starts = np.flatnonzero(np.append(True, (rows[1:, :2] != rows[:-1, :2]).any(axis=1)))
    return np.column_stack([rows[starts, :2], np.add.reduceat(rows[:, 2], starts)])


class _Voxels:
    """Sums per voxel, by packed key."""

    def __init__(self, size: float, *, labelled: bool, instanced: bool) -> None:
        self.size = size
        self.num_far = 0
        self._labels = _Votes() if labelled else None
        self._instances = _Votes() if instanced else None
        self._keys: list[Int64[Array, " _n"]] = []
        self._sums: list[Float64[Array, "_n 7"]] = []  # x, y, z, red, green, blue, count
        self._waiting = 0

    def add(self, pixels: _Pixels) -> None:
        cell = np.floor(pixels.xyz / self.size)
        near = (np.abs(cell) < _HALF_RANGE - 1).all(axis=1)
        self.num_far += int((~near).sum())
        keys = _KEYS.pack(*cell[near].astype(np.int64).T)
        values = np.column_stack([pixels.xyz[near], pixels.rgb[near], np.ones(len(keys))])
        unique, sums = _summed(keys, values)
        self._keys.append(unique)
        self._sums.append(sums)
        if self._labels is not None and pixels.labels is not None:
            known = near & (pixels.labels != IGNORE)  # a pixel of unknown class does not vote
            self._labels.add(keys[known[near]], pixels.labels[known])
        if self._instances is not None and pixels.instances is not None:
            self._instances.add(keys, pixels.instances[near])  # "no object" is a valid vote
        self._waiting += len(unique)
        if self._waiting > _BUFFER_ROWS:
            self._merge()

    def cloud(self) -> PointCloud:
        self._merge()
        keys, sums = self._keys[0], self._sums[0]
        mean = sums[:, :6] / sums[:, 6:]
        return PointCloud(
            xyz=mean[:, :3].astype(np.float32),
            rgb=(mean[:, 3:] + 0.5).astype(np.uint8),
            labels=None if self._labels is None else self._labels.winners(keys),
            instances=None if self._instances is None else self._instances.winners(keys),
        )

    def _merge(self) -> None:
        keys, sums = _summed(np.concatenate(self._keys), np.concatenate(self._sums))
        self._keys, self._sums, self._waiting = [keys], [sums], 0
        for votes in (self._labels, self._instances):
            if votes is not None:
                votes.merge()


def _summed(
    keys: Int64[Array, " n"], values: Float64[Array, "n c"]
) -> tuple[Int64[Array, " m"], Float64[Array, "m c"]]:
    """Distinct keys in order, and the sums of their rows."""
    if len(keys) == 0:
        return keys, values
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    return keys[starts], np.add.reduceat(values[order], starts, axis=0)
