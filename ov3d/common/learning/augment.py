"""Augmentation of clouds before a training step, so that the network does not memorise rooms.

Positions are tilted, rotated, scaled and mirrored; colours change in contrast, tint and noise: the recipe of sparse networks
for rooms (Choy et al. 2019, arXiv 1904.08755), with the ranges of 3DSS-VLG. All randomness comes from the given generator.
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
"""How clouds are rotated about the vertical, see `AugmentConfig.turn`."""
OFTEN = 0.95
"""Chance of tint and of noise."""


class AugmentConfig(Config):
    """How a cloud is augmented before a step. Short trainings use little of it; the preset `paper` has the paper's values."""

    tilt: float = Field(default=0.0, ge=0)
    """Largest rotation about x and y, radians."""
    turn: Turn = "quarter"
    """Rotation about the vertical: by any angle, or by quarter turns, which keep walls aligned with the voxels."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Range of the scale factor."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of mirroring, for x and for y separately."""
    contrast: float = Field(default=0.0, ge=0, le=1)
    """Probability that the contrast is stretched towards the full range, by a random degree."""
    tint: float = Field(default=0.03, ge=0, le=1)
    """Largest shift of a colour channel, as a share of the full range; applied in 19 of 20 steps."""
    colour_noise: float = Field(default=0.02, ge=0, le=1)
    """Standard deviation of colour noise, as a share of the full range; applied in 19 of 20 steps."""
    drop_colours: float = Field(default=0.0, ge=0, le=1)
    """Probability that all colours are replaced by grey, so that the network works without colour."""


def augment_positions(
    xyz: Float[Tensor, "n 3"], config: AugmentConfig, generator: torch.Generator
) -> Float[Tensor, "n 3"]:
    """Positions rotated, tilted, mirrored and scaled about the cloud's centre; z is vertical."""
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
    """Colours in [-1, 1], with changed contrast, tint and noise."""
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
    """The rotation about the vertical, radians, for a random number in [-1, 1)."""
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
