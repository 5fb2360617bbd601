"""Lifting: features of photographs, averaged on the points that the photographs see.

Two passes. The first finds the points that every frame sees; the union of those points are the rows. The second averages in
blocks of rows, so that the fp32 sums of one block stay within a memory budget for clouds of any size: a point's feature is
the plain mean of the unit vectors at its pixels, in the order of the frames, so the blocks do not change a bit.

Symbols: n points, v rows (points that some frame sees), d width of the encoder, r rank of the code (d without a basis).
Source: Xu et al., ECCV 2024, section 3 (mean over visible views); Peng et al., *OpenScene*, CVPR 2023, section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from pydantic import Field

from ov3d.common.base.files import hash_file, hash_text
from ov3d.common.base.progress import Progress, Silent
from ov3d.common.base.shapes import Array, Bool, Float, Float16, Float32, Int32, Int64, UInt16
from ov3d.common.lifting.basis import Coder
from ov3d.common.lifting.features import KIND, LiftedFeatures, even_rows, named, read_lifted, write_lifted
from ov3d.common.lifting.projection import (
    PointBlocks,
    VisibilityConfig,
    VisiblePoints,
    median_spacing,
    visible_in_frame,
)
from ov3d.common.scenes.cameras import Camera
from ov3d.common.scenes.scene import Frame, PointCloud

T = TypeVar("T")

__all__ = [
    "LiftConfig",
    "LiftedFeatures",
    "PartialFeatures",
    "PixelFeatures",
    "Views",
    "lift",
    "lifted_key",
    "read_lifted",
    "view_means",
    "write_lifted",
]

ALGORITHM = "mean-1"
"""Part of the key: increased when the same inputs would give other numbers."""

MIB = 1 << 20
CHUNK_BYTES = 4 * MIB
"""Approximate bytes of features requested from the source at a time (at least `MIN_CHUNK_ROWS` pixels), so that reading,
converting and adding stay in the processor's cache."""
MIN_CHUNK_ROWS = 1024


def _nothing() -> None:
    """Ignores progress."""


class LiftConfig(VisibilityConfig):
    """How features are lifted from photographs onto points."""

    memory_mib: int = Field(default=1024, ge=1)
    """Budget for the fp32 sums and for the cached pixels, each; it affects only the speed."""

    @property
    def key_text(self) -> str:
        """The settings that affect numbers, for keys."""
        return f"{ALGORITHM} {self.border!r} {self.depth_tolerance!r} {self.missing_depth}"


@runtime_checkable
class PixelFeatures(Protocol):
    """A source of features of photographs, for example `FeatureStore`."""

    def key(self, frame: Frame) -> str:
        """Identifies the content of the frame's features: image, encoder, plan."""
        ...

    def pixel_features(self, frame: Frame, uv: Float[Array, "n 2"]) -> Float[Array, "n d"]:
        """Unit vectors at pixels of the frame's camera (lifting uses their centres, +0.5), fp16 or fp32; called from several
        threads at once.

        Zeros where the frame has no feature; such a source is also `PartialFeatures`.
        """
        ...


@runtime_checkable
class PartialFeatures(Protocol):
    """A source without features at some pixels (void labels, zero vectors); views do not count as seeing points there."""

    def known(self, frame: Frame, uv: Float[Array, "n 2"]) -> Bool[Array, " n"]:
        """Which pixels of the frame's camera have a feature."""
        ...


def lift(
    cloud: PointCloud,
    frames: Sequence[Frame],
    source: PixelFeatures,
    config: LiftConfig | None = None,
    *,
    progress: Progress | None = None,
    coder: Coder | None = None,
    sample_rows: int | None = None,
) -> LiftedFeatures:
    """Average the features of photographs on the points that they see.

    Args:
        cloud: n points.
        frames: posed photographs with features in `source`; their order is the order of summation.
        source: provides unit vectors at pixels.
        config: visibility and memory.
        progress: receives progress.
        coder: if given, features are coded block by block, so that they are never whole in memory.
        sample_rows: if given, lifts only an even sample of about this many seen points, to choose a basis.

    Returns:
        Features of the v points that at least one frame sees; v may be 0.
    """
    config = config or LiftConfig()
    listener: Progress = progress or Silent()
    views = Views(cloud, frames, config, source)
    with listener.task("Finding visible points", len(frames)) as task, _workers() as pool:
        num_views = views.count(task.advance, pool)
    point_row = np.flatnonzero(num_views).astype(np.int32)
    if sample_rows is not None:
        chosen = even_rows(point_row, sample_rows)
        num_views[np.setdiff1d(point_row, chosen, assume_unique=True)] = 0
        point_row = chosen
    source_key = lifted_key(cloud, frames, source, config)
    code = np.zeros((len(point_row), views.probe_dim(source) if coder is None else len(coder.basis)), np.float16)
    norms = np.zeros(len(point_row), np.float32)
    blocks = -(-len(code) * views.probe_dim(source) * 4 // (config.memory_mib * MIB))
    with listener.task("Lifting features", max(blocks, 1) * len(frames)) as task, _workers() as pool:
        for rows, mean in view_means(views, num_views, source, task.advance, pool):
            norms[rows] = _normalise_into(code[rows], mean, pool, coder)
    key, facts = named(source_key, coder, sample_rows)
    basis = None if coder is None else coder.basis
    return LiftedFeatures(code, point_row, norms, num_views[point_row], len(cloud), key, basis, facts)


def view_means(
    views: Views,
    num_views: Int32[Array, " n"],
    source: PixelFeatures,
    advance: Callable[[], object] = _nothing,
    pool: Executor | None = None,
) -> Iterator[tuple[slice, Float32[Array, "b d"]]]:
    """Means over views of the seen points, block by block.

    Args:
        views: what each frame sees.
        num_views: number of frames that see each point.
        source: provides unit vectors at pixels.
        advance: called once per frame and block.
        pool: worker threads; None uses only this thread. They do not change a bit.

    Yields:
        The rows of a block and their means in fp32, before normalising. The array is reused for the next block.
    """
    point_row = np.flatnonzero(num_views)
    dim = views.probe_dim(source)
    block_rows = max((views.config.memory_mib * MIB) // (4 * max(dim, 1)), 1)
    sums = np.empty((min(block_rows, len(point_row)), dim), np.float32)
    for start in range(0, len(point_row), block_rows):
        points = point_row[start : start + block_rows]
        block = sums[: len(points)]
        block[:] = 0
        for frame_idx in range(len(views)):
            _add_frame(block, points, views, frame_idx, source, pool)
            advance()
        block /= num_views[points, None].astype(np.float32)
        yield slice(start, start + len(points)), block


@dataclass(frozen=True, slots=True, eq=False)
class SeenPixels:
    """The points that one frame sees, in a quarter of the memory of `VisiblePoints`, to cache many views of a large cloud.

    Attributes:
        point_idx: indices into the cloud, ascending.
        pixels: (column, row) of each point in the frame's camera.
    """

    point_idx: Int32[Array, " v"]
    pixels: Int32[Array, "v 2"] | UInt16[Array, "v 2"]

    @classmethod
    def of(cls, seen: VisiblePoints, camera: Camera) -> SeenPixels:
        """The pixels of visible points; all are inside the image."""
        narrow = max(camera.width, camera.height) <= 1 << 16
        pixels = seen.uv.astype(np.uint16 if narrow else np.int32)  # nothing is negative: truncating rounds down
        return cls(seen.point_idx.astype(np.int32), pixels)

    @property
    def nbytes(self) -> int:
        """Bytes of both arrays."""
        return self.point_idx.nbytes + self.pixels.nbytes


class Views:
    """Which points each frame of a scene sees; cached up to the memory budget, recomputed beyond it.

    Args:
        cloud: the points.
        frames: posed photographs.
        config: visibility and memory.
        source: if it is `PartialFeatures`, frames see only pixels with a feature, so means are over views that have one.
    """

    def __init__(
        self, cloud: PointCloud, frames: Sequence[Frame], config: LiftConfig, source: PixelFeatures | None = None
    ) -> None:
        self.config = config
        candidate: object = source  # mypy does not accept a protocol as a subclass of another
        self._partial = candidate if isinstance(candidate, PartialFeatures) else None
        self.frames = tuple(frames)
        self._num_points = len(cloud)
        self._blocks = PointBlocks(cloud.xyz)
        self._spacing = median_spacing(cloud.xyz)
        self._remembered: dict[int, SeenPixels] = {}
        self._room = config.memory_mib * MIB
        self._dim: int | None = None

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, frame_idx: int) -> SeenPixels:
        if frame_idx in self._remembered:
            return self._remembered[frame_idx]
        frame = self.frames[frame_idx]
        seen = visible_in_frame(self._blocks, frame, self.config, spacing=self._spacing)
        if self._partial is not None and not (known := self._partial.known(frame, seen.uv)).all():
            seen = VisiblePoints(seen.point_idx[known], seen.uv[known], seen.z[known])
        return SeenPixels.of(seen, frame.camera)

    def count(self, advance: Callable[[], object] = _nothing, pool: Executor | None = None) -> Int32[Array, " n"]:
        """The number of frames that see each point; visible points are cached within the budget."""
        counts = np.zeros(self._num_points, np.int32)
        for frame_idx, seen in enumerate(_mapped(self.__getitem__, range(len(self)), pool)):
            counts[seen.point_idx] += 1  # a frame sees a point once, so no index repeats
            if frame_idx not in self._remembered and seen.nbytes <= self._room:
                self._room -= seen.nbytes
                self._remembered[frame_idx] = seen
            advance()
        return counts

    def probe_dim(self, source: PixelFeatures) -> int:
        """Width of the source's features, from one pixel; 0 without frames."""
        if self._dim is None:
            centre = np.array([[0.5, 0.5]])
            self._dim = int(source.pixel_features(self.frames[0], centre).shape[1]) if self.frames else 0
        return self._dim


def lifted_key(cloud: PointCloud, frames: Sequence[Frame], source: PixelFeatures, config: LiftConfig) -> str:
    """The key of the result of `lift`, without lifting: positions, cameras, depth, features and settings."""
    parts = [KIND, config.key_text, _hash_array(cloud.xyz)]
    for frame in frames:
        camera = frame.camera
        parts += [source.key(frame), _hash_array(np.asarray(frame.world_from_camera, np.float64)), repr(camera)]
        if frame.depth is not None:
            parts += [hash_file(frame.depth.path), repr(frame.depth.scale), repr(frame.depth.camera)]
    return hash_text(*parts)


def _add_frame(
    block: Float32[Array, "b d"],
    points: Int64[Array, " b"],
    views: Views,
    frame_idx: int,
    source: PixelFeatures,
    pool: Executor | None,
) -> None:
    """Add a frame's features to the points of a block.

    A frame sees a point once, so no row repeats: chunks of pixels may be added in any order and by any thread.
    """
    seen, frame = views[frame_idx], views.frames[frame_idx]
    first, last = np.searchsorted(seen.point_idx, (points[0], points[-1] + 1))
    pixels = seen.pixels[first:last]
    # Pixels are requested in image order, so that the source reads its memory in order.
    order = np.argsort(pixels[:, 1].astype(np.int64) * frame.camera.width + pixels[:, 0], kind="stable")
    rows = np.searchsorted(points, seen.point_idx[first:last])[order]
    uv = pixels[order] + 0.5  # features are evaluated at pixel centres
    chunk = max(CHUNK_BYTES // (4 * block.shape[1]), MIN_CHUNK_ROWS)

    def add(start: int) -> None:
        features = source.pixel_features(frame, uv[start : start + chunk])
        if features.dtype == np.float16:  # torch uses the processor's instruction, NumPy converts one by one
            features = torch.from_numpy(features).float().numpy()
        block[rows[start : start + chunk]] += features

    for _ in _mapped(add, range(0, len(rows), chunk), pool):
        pass


def _normalise_into(
    code: Float16[Array, "b r"], mean: Float32[Array, "b d"], pool: Executor | None, coder: Coder | None
) -> Float32[Array, " b"]:
    """Write the unit vectors of `mean`, or their codes, to `code`; returns the norms. Rows of zeros stay zero."""
    norms = np.empty(len(mean), np.float32)

    def normalise(start: int) -> None:
        rows = slice(start, start + MIN_CHUNK_ROWS)
        norms[rows] = np.sqrt(np.einsum("ij,ij->i", mean[rows], mean[rows], dtype=np.float32))
        unit = mean[rows] / np.maximum(norms[rows, None], np.float32(1e-12))
        values = unit if coder is None else coder.encode(unit)
        code[rows] = torch.from_numpy(values).half().numpy()

    for _ in _mapped(normalise, range(0, len(mean), MIN_CHUNK_ROWS), pool):
        pass
    return norms


def _workers() -> Executor:
    """As many threads as torch would use, each running torch single-threaded: splitting small products gains nothing."""
    return ThreadPoolExecutor(torch.get_num_threads(), initializer=torch.set_num_threads, initargs=(1,))


def _mapped(function: Callable[[int], T], arguments: range, pool: Executor | None) -> Iterable[T]:
    """The function's values in order, computed by the pool's threads if there is a pool."""
    return map(function, arguments) if pool is None else pool.map(function, arguments)


def _hash_array(values: Float[Array, ...]) -> str:
    import xxhash

    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(values).data) if values.size else "empty"
