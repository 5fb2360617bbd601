"""Rays through pixels: a capture's photographs as one bank of pixels at one working size.

A pixel with centre (u, v) looks along R ((u - c_x)/f_x, (v - c_y)/f_y, 1), with R the camera's rotation; rays have unit
directions, so a depth z along the optical axis is a distance z |(..., ..., 1)| along the ray.

Symbols: f frames, p pixels of all frames one after the other, n pixels of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ov3d.common.base.files import hash_file, hash_text
from ov3d.common.base.progress import Progress
from ov3d.common.base.shapes import Array, Bool, Float, Float32, Int64, UInt8
from ov3d.common.features.crops import bounded_size, resized
from ov3d.common.scenes.cameras import Camera
from ov3d.common.scenes.scene import Frame


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """Pixels of some frames.

    Attributes:
        origin: camera centres, world.
        direction: unit vectors, world.
        colour: in [0, 1].
        depth: measured distance along the ray, world units; 0 where unknown.
    """

    origin: Float[Tensor, "n 3"]
    direction: Float[Tensor, "n 3"]
    colour: Float[Tensor, "n 3"]
    depth: Float[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.origin)


class PixelBank:
    """All pixels of some frames, in memory.

    Args:
        frames: posed photographs.
        long_side: images are downscaled to this long side, never enlarged.
        device: of the batches.
        progress: receives progress.
        with_depth: whether measured depth is read.

    Raises:
        DataError: an image or depth image cannot be read.
    """

    def __init__(
        self,
        frames: Sequence[Frame],
        *,
        long_side: int,
        device: torch.device,
        progress: Progress,
        with_depth: bool = False,
    ) -> None:
        self.frames = tuple(frames)
        self.cameras = tuple(working_camera(frame.camera, long_side) for frame in frames)
        sizes = [camera.width * camera.height for camera in self.cameras]
        self.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        colours, depths, usable = [], [], []
        with progress.task("Reading photographs", len(frames)) as task:
            for frame, camera in zip(frames, self.cameras, strict=True):
                colours.append(resized(frame.load_image(), (camera.width, camera.height)).reshape(-1, 3))
                usable.append(_nearest(frame.load_mask(), camera).reshape(-1))
                depths.append(_ray_depth(frame, camera) if with_depth else np.zeros(0, np.float32))
                task.advance()
        self.usable = torch.from_numpy(np.flatnonzero(np.concatenate(usable))).to(device)
        self.colour = torch.from_numpy(np.concatenate(colours)).to(device)
        self.depth = torch.from_numpy(np.concatenate(depths)).to(device) if with_depth else None
        self._starts = torch.from_numpy(self.starts).to(device)
        self._pose = _stacked([frame.world_from_camera[:3] for frame in frames], device)
        self._lens = _stacked([(c.fx, c.fy, c.cx, c.cy, c.width) for c in self.cameras], device)

    def __len__(self) -> int:
        return int(self.starts[-1])

    @cached_property
    def key(self) -> str:
        """Hash of everything that determines pixels and rays: files, cameras, poses, sizes."""
        parts = [repr((camera.width, camera.height)) for camera in self.cameras]
        for frame, pose in zip(self.frames, self._pose.cpu().numpy(), strict=True):
            depth = frame.depth if self.depth is not None else None
            files = (frame.image_path, frame.mask_path, depth and depth.path)
            parts += [hash_file(path) if path else "" for path in files]
            parts += [frame.pixels_key, repr(frame.camera), pose.tobytes().hex()]
            parts.append(repr(replace(depth, path=Path())) if depth else "")
        return hash_text("pixels-1", *parts)

    @property
    def num_bytes(self) -> int:
        """Memory of the pixels."""
        return self.colour.nbytes + (self.depth.nbytes if self.depth is not None else 0)

    def draw(self, count: int, generator: torch.Generator) -> Int64[Tensor, " n"]:
        """Random pixels that no mask excludes."""
        picks = torch.randint(len(self.usable), (count,), generator=generator)
        return self.usable[picks.to(self.usable.device)]

    def pixels(self, idx: Int64[Tensor, " n"]) -> Pixels:
        """Rays and colours of pixels of the bank."""
        origin, direction = self.rays(idx)
        colour = self.colour[idx].float() / 255
        depth = self.depth[idx] if self.depth is not None else torch.zeros_like(origin[:, 0])
        return Pixels(origin, direction, colour, depth)

    def rays(self, idx: Int64[Tensor, " n"]) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
        """Origins and unit directions, world."""
        frame = self.frame_idx(idx)
        fx, fy, cx, cy, width = self._lens[frame].unbind(1)
        inside = idx - self._starts[frame]
        columns = width.long()
        u, v = inside % columns + 0.5, torch.div(inside, columns, rounding_mode="floor") + 0.5
        pose = self._pose[frame]
        local = torch.stack(((u - cx) / fx, (v - cy) / fy, torch.ones_like(u)), 1).float()
        direction = torch.einsum("nij,nj->ni", pose[:, :, :3], local)
        return pose[:, :, 3], direction / direction.norm(dim=1, keepdim=True)

    def frame_idx(self, idx: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        """The frame that each pixel belongs to."""
        return torch.searchsorted(self._starts, idx, right=True) - 1

    def of_frame(self, frame_idx: int) -> Int64[Tensor, " n"]:
        """All pixels of a frame, row by row."""
        first, last = self.starts[frame_idx : frame_idx + 2].tolist()
        return torch.arange(first, last, device=self.colour.device)

    def image(self, frame_idx: int) -> UInt8[Array, "h w 3"]:
        """A photograph at the working size."""
        camera = self.cameras[frame_idx]
        rows = self.colour[self.starts[frame_idx] : self.starts[frame_idx + 1]]
        return rows.cpu().numpy().reshape(camera.height, camera.width, 3)

    def full_size(self, frame_idx: int, idx: Int64[Tensor, " n"]) -> Float32[Array, "n 2"]:
        """(u, v) of pixels of a frame in its own full-size camera, for stores that do not know the working size."""
        inside = idx.cpu().numpy() - self.starts[frame_idx]
        small, full = self.cameras[frame_idx], self.frames[frame_idx].camera
        uv = np.column_stack([inside % small.width + 0.5, inside // small.width + 0.5])
        return (uv * (full.width / small.width, full.height / small.height)).astype(np.float32)


def working_camera(camera: Camera, long_side: int) -> Camera:
    """The camera of an image downscaled to a long side."""
    return camera.resized(*bounded_size(camera.width, camera.height, long_side))


def _ray_depth(frame: Frame, camera: Camera) -> Float32[Array, " n"]:
    """Measured distances along the rays of a working camera, 0 if unknown: the nearest measurement, never a mean."""
    if frame.depth is None:
        return np.zeros(camera.width * camera.height, np.float32)
    measured, lens = frame.depth.load(), frame.depth.camera
    ways = camera.unproject(camera.pixel_centres(), np.ones(camera.width * camera.height))
    uv, _ = lens.project(ways)
    column, row = np.floor(uv).astype(np.int64).T
    inside = (column >= 0) & (column < lens.width) & (row >= 0) & (row < lens.height)
    depth = np.zeros(len(ways))
    depth[inside] = measured[row[inside], column[inside]]
    return (depth * np.linalg.norm(ways, axis=1)).astype(np.float32)


def _nearest(mask: Bool[Array, "h w"], camera: Camera) -> Bool[Array, "h2 w2"]:
    height, width = mask.shape
    rows = ((np.arange(camera.height) + 0.5) * height / camera.height).astype(np.int64)
    columns = ((np.arange(camera.width) + 0.5) * width / camera.width).astype(np.int64)
    return mask[rows[:, None], columns]


def _stacked(values: Sequence[object], device: torch.device) -> Float[Tensor, "n ..."]:
    return torch.from_numpy(np.array(values, np.float32)).to(device)
