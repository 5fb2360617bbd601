"""All rays of a view, row by row, for rendering a frame outside any bank of pixels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ov3d.common.base.shapes import Array, Float, Float64
from ov3d.common.scenes.cameras import Camera


def view_rays(
    camera: Camera, world_from_camera: Float64[Array, "4 4"], device: torch.device
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Origins and unit directions, world."""
    ways = camera.unproject(camera.pixel_centres(), np.ones(camera.width * camera.height))
    ways = ways @ np.asarray(world_from_camera, np.float64)[:3, :3].T
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    origin = np.broadcast_to(world_from_camera[:3, 3], ways.shape)
    return (
        torch.from_numpy(np.array(origin, np.float32)).to(device),
        torch.from_numpy(ways.astype(np.float32)).to(device),
    )
