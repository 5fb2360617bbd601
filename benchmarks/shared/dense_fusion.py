"""Dense feature maps of a room and two ways to fuse them onto its points: `ov3d.common.lifting.lift`, and the usual loop.

The room has views of 320x240 with depth, and a dense map of fp16 features for each view, channels first as extractors give
them. The peer is our own plain reading of the usual fusion loop (Xu et al., ECCV 2024; Peng et al., CVPR 2023): every view
projects all points in fp64, gathers a feature for all of them, and adds what it sees to fp32 sums of all points. Both end
with one fp16 row for each point that some view sees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ov3d.common.lifting.lift import LiftConfig, Views, lift, view_means
from ov3d.common.scenes.cameras import Camera, look_at, transform
from ov3d.common.scenes.scene import DepthImage, Frame, PointCloud

NUM_VIEWS = 20
CAMERA = Camera(320, 240, 290.0, 290.0, 160.0, 120.0)
NUM_MAPS = 4
"""Distinct maps, which the views take in turn: far above any cache, so turns save nothing."""
ROOM = np.array([6.0, 5.0, 2.8])
BOXES = np.array([[1.0, 1, 0, 2.2, 1.8, 0.9], [3.5, 3, 0, 5, 4.2, 0.6], [4.2, 0.5, 0, 4.8, 1.3, 1.6]])
PAPER = LiftConfig(border=10.0, depth_tolerance=0.25, missing_depth="drop")
"""The paper's border and tolerance, as in the peer."""


@dataclass
class DenseMaps:
    """Feature maps in memory [d, h * w], fp16, one a frame."""

    maps: list[torch.Tensor]

    def key(self, frame: Frame) -> str:
        return frame.name

    def map_of(self, frame: Frame) -> torch.Tensor:
        return self.maps[int(frame.name) % len(self.maps)]

    def pixel_features(self, frame: Frame, uv: np.ndarray) -> np.ndarray:
        column, row = uv.astype(np.int64).T
        # NumPy gathers columns faster than torch, and does it on any type of two bytes; torch transposes faster.
        bits = self.map_of(frame).view(torch.int16).numpy()
        gathered = np.take(bits, row * frame.camera.width + column, axis=1, mode="clip")
        return torch.from_numpy(gathered).t().contiguous().view(torch.float16).numpy()


@dataclass(frozen=True)
class Fusion:
    """Points, views and feature maps, and both ways to fuse them."""

    points: np.ndarray
    frames: list[Frame]
    source: DenseMaps
    config: LiftConfig

    def calls(self) -> dict[str, Callable[[], np.ndarray | torch.Tensor]]:
        """What takes turns; each returns the rows that it would store."""
        return {"ours": self.ours, "peer": lambda: self.peer()[1].half()}

    def ours(self) -> np.ndarray:
        """One fp16 row for each seen point (and its norm, its number of views, its point)."""
        return lift(PointCloud(self.points), self.frames, self.source, self.config).code

    def peer(self) -> tuple[np.ndarray, torch.Tensor]:
        """The full-gather loop: seen points, and their means in fp32."""
        dim = len(self.source.maps[0])
        sums = torch.zeros(len(self.points), dim)
        counts = torch.zeros(len(self.points), 1)
        homogeneous = np.concatenate([self.points.astype(np.float64), np.ones((len(self.points), 1))], axis=1)
        for frame in self.frames:
            assert frame.depth is not None
            depth, camera = frame.depth.load(), frame.camera
            local = (np.linalg.inv(frame.world_from_camera) @ homogeneous.T).T
            with np.errstate(divide="ignore", invalid="ignore"):
                u = local[:, 0] / local[:, 2] * camera.fx + camera.cx
                v = local[:, 1] / local[:, 2] * camera.fy + camera.cy
            border = self.config.border * camera.width / 320
            seen = (local[:, 2] > 0) & (u >= border) & (v >= border)
            seen &= (u < camera.width - border) & (v < camera.height - border)
            column, row = np.zeros(len(self.points), np.int64), np.zeros(len(self.points), np.int64)
            column[seen], row[seen] = np.floor(u[seen]).astype(int), np.floor(v[seen]).astype(int)
            measured = depth[row, column].astype(np.float64)
            seen &= np.abs(measured - local[:, 2]) <= self.config.depth_tolerance * measured
            dense = self.source.map_of(frame).view(dim, camera.height, camera.width)
            gathered = dense[:, torch.from_numpy(row), torch.from_numpy(column)].permute(1, 0)  # a row for every point
            mask = torch.from_numpy(seen)
            counts[mask] += 1
            sums[mask] += gathered[mask]
        means = sums / counts.clamp(min=1e-5)
        seen_points = np.flatnonzero(counts[:, 0].numpy())
        return seen_points, means[torch.from_numpy(seen_points)]

    def largest_difference(self) -> float:
        """Between the means of both, in fp32, absolute; infinite where they see different points."""
        seen, means = self.peer()
        views = Views(PointCloud(self.points), self.frames, self.config)
        counts = views.count()
        if not np.array_equal(seen, np.flatnonzero(counts)):
            return float("inf")
        found = view_means(views, counts, self.source)
        return max(float(np.abs(mean - means[rows].numpy()).max()) for rows, mean in found)


def make_fusion(folder: Path, *, num_points: int, dim: int, memory_mib: int) -> Fusion:
    """The room's points, its posed views with depth images in `folder`, and the feature maps."""
    from PIL import Image

    rng = np.random.default_rng(0)
    points = room_points(rng, num_points)
    frames = []
    for idx in range(NUM_VIEWS):
        angle = 2 * np.pi * idx / NUM_VIEWS
        eye = np.array([3 + 2.7 * np.cos(angle), 2.5 + 2.2 * np.sin(angle), 1.5])  # along the walls, looking across
        pose = look_at(eye, np.array([3.0, 2.5, 0.4 + 0.6 * (idx % 3)]))
        path = folder / f"{idx}.png"
        Image.fromarray(np.round(room_depth(pose) * 1000).astype(np.uint16)).save(path)
        frames.append(Frame(str(idx), folder / "none.png", CAMERA, pose, DepthImage(path, 0.001, CAMERA)))
    generator = torch.Generator().manual_seed(0)
    size = (dim, CAMERA.height * CAMERA.width)
    maps = [torch.randn(size, generator=generator).mul_(dim**-0.5).half() for _ in range(NUM_MAPS)]
    return Fusion(points, frames, DenseMaps(maps), PAPER.model_copy(update={"memory_mib": memory_mib}))


def room_points(rng: np.random.Generator, num_points: int) -> np.ndarray:
    """Points on the walls, the floor and some boxes, in an order as a scanner gives it: neighbours mostly together."""
    solids = [np.concatenate([np.zeros(3), ROOM]), *BOXES]
    faces = [(solid, axis, side) for solid in solids for axis in range(3) for side in (0, 1)]
    extents = np.array([np.prod(np.delete(solid[3:] - solid[:3], axis)) for solid, axis, _ in faces])
    numbers = rng.multinomial(num_points, extents / extents.sum())
    parts = []
    for (solid, axis, side), number in zip(faces, numbers, strict=True):
        part = rng.uniform(solid[:3], solid[3:], (number, 3))
        part[:, axis] = solid[axis + 3 * side]
        parts.append(part)
    points = np.concatenate(parts)
    cell = np.floor(points / 0.25).astype(np.int64)
    return points[np.lexsort(cell.T)].astype(np.float32)


def room_depth(pose: np.ndarray) -> np.ndarray:
    """Exact depth inside the room: the far side of the walls, the near side of the boxes (slab test)."""
    uv = CAMERA.pixel_centres()
    rays = transform(pose, CAMERA.unproject(uv, np.ones(len(uv)))) - pose[:3, 3]
    depth = np.full(len(uv), np.inf)
    for idx, solid in enumerate([np.concatenate([np.zeros(3), ROOM]), *BOXES]):
        with np.errstate(divide="ignore"):
            low, high = (solid[:3] - pose[:3, 3]) / rays, (solid[3:] - pose[:3, 3]) / rays
        enter, leave = np.minimum(low, high).max(1), np.maximum(low, high).min(1)
        hit = leave if idx == 0 else np.where((enter <= leave) & (enter > 0), enter, np.inf)
        depth = np.minimum(depth, hit)
    return depth.reshape(CAMERA.height, CAMERA.width)
