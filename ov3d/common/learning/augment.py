"""How a cloud is changed before a training step, so that the network does not learn rooms by heart.

Tilt, turn, size and mirror images of positions; contrast, tint and noise of colours: the recipe of sparse networks for rooms
(Choy et al. 2019, arXiv 1904.08755), with the ranges of 3DSS-VLG. Everything comes from the generator that is handed in.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ov3d.common.base.config import Config
from ov3d.common.base.shapes import Float, UInt8

Turn = Literal["any", "quarter", "none"]
"""How clouds are turned about the vertical, see `AugmentConfig.turn`."""
OFTEN = 0.95
"""Chance of tint and of noise."""


class AugmentConfig(Config):
    """How a cloud is changed before a step. A training of minutes has no time for much of it; the paper's is a preset's."""

    tilt: float = Field(default=0.0, ge=0)
    """Largest rotation about x and y, radians."""
    turn: Turn = "quarter"
    """Angles that it is turned by about the vertical: any, or quarter turns, which keep straight walls straight in voxels."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Range of its size."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Chance of a mirror image, for x and for y."""
    contrast: float = Field(default=0.0, ge=0, le=1)
    """Chance that colours are stretched to the whole range, by any degree."""
    tint: float = Field(default=0.03, ge=0, le=1)
    """Largest shift of a colour channel, of the whole range; in 19 of 20 steps."""
    colour_noise: float = Field(default=0.02, ge=0, le=1)
    """Standard deviation of noise on colours, of the whole range; in 19 of 20 steps."""
    drop_colours: float = Field(default=0.0, ge=0, le=1)
    """Chance that all colours are grey, so that the network gets by without."""


def augment_positions(
    xyz: Float[Tensor, "n 3"], config: AugmentConfig, generator: torch.Generator
) -> Float[Tensor, "n 3"]:
    """Turned, tilted, mirrored and resized about the cloud's middle; z is the vertical."""
    angles = (torch.rand(3, generator=generator, dtype=torch.float64) * 2 - 1).tolist()
    turn = _turn(angles[2], config)
    matrix = _rotation(0, angles[0] * config.tilt) @ _rotation(1, angles[1] * config.tilt) @ _rotation(2, turn)
    size, *mirrored = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    low, high = config.scale
    signs = [-1.0 if chance < config.flip else 1.0 for chance in mirrored]
    matrix = (low + size * (high - low)) * matrix @ torch.diag(torch.tensor([*signs, 1.0], dtype=torch.float64))
    shift = torch.rand(3, generator=generator)  # of voxel borders
    return (xyz - xyz.mean(dim=0)) @ matrix.T.to(xyz) + shift.to(xyz)


def augment_colours(
    rgb: UInt8[Tensor, "n 3"], config: AugmentConfig, generator: torch.Generator
) -> Float[Tensor, "n 3"]:
    """Colours in [-1, 1], changed in contrast, tint and noise."""
    values = rgb.float() / 255
    contrast, blend, tinted, noisy, dropped = torch.rand(5, generator=generator).tolist()
    if contrast < config.contrast:
        low, high = values.amin(dim=0), values.amax(dim=0)
        values = (1 - blend) * values + blend * (values - low) / (high - low).clamp(min=1e-3)
    tint = (torch.rand(3, generator=generator) * 2 - 1) * config.tint
    if tinted < OFTEN:
        values = values + tint.to(values)
    if noisy < OFTEN and config.colour_noise:
        values = values + config.colour_noise * torch.randn(values.shape, generator=generator).to(values)
    values = values.clamp(0, 1) * 2 - 1
    return torch.zeros_like(values) if dropped < config.drop_colours else values


def _turn(drawn: float, config: AugmentConfig) -> float:
    """The angle about the vertical of a number drawn from [-1, 1), radians."""
    if config.turn == "any":
        return drawn * math.pi
    return math.floor(2 * drawn) * math.pi / 2 if config.turn == "quarter" else 0.0


def _rotation(axis: int, angle: float) -> Float[Tensor, "3 3"]:
    """A rotation about an axis."""
    cos, sin = math.cos(angle), math.sin(angle)
    one, other = [idx for idx in range(3) if idx != axis]
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[one, one] = matrix[other, other] = cos
    matrix[one, other], matrix[other, one] = -sin, sin
    return matrix
