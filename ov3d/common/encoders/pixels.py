"""Resizing images for encoders."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ov3d.common.base.shapes import UInt8


def resize(images: UInt8[Tensor, "b 3 h w"], size: tuple[int, int]) -> UInt8[Tensor, "b 3 y x"]:
    """Images resized to (height, width), bicubic with antialiasing.

    On the CPU bytes are resized as bytes, channels last: 40 times faster than through floats, and equal to within one grey
    level. Other devices resize floats and round.
    """
    if images.shape[-2:] == size:
        return images
    if images.device.type == "cpu":
        images = images.contiguous(memory_format=torch.channels_last)
        return F.interpolate(images, size, mode="bicubic", antialias=True)
    resized = F.interpolate(images.float(), size, mode="bicubic", antialias=True)
    return resized.round_().clamp_(0, 255).to(torch.uint8)
