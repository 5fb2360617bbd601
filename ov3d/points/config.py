"""Configuration of the points backend; every field is a key of its YAML file and of `--set`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from ov3d.common.config import Config
from ov3d.common.lifted_basis import BasisConfig
from ov3d.common.lifting import LiftConfig
from ov3d.common.specs import AUTO

STAGES = ("fuse",)
"""Stages in order; any prefix can be run."""


class PointsConfig(Config):
    """The points backend: features fused from photographs onto the points they see."""

    encoder: str = "offline"
    """Where 2D features come from, as typed after `--encoder`."""
    refine: str = AUTO
    """Refinement of the 2D features: none, dino or timm:NAME (affinities of a patch encoder, and superpixels); auto is dino
    for the offline encoder and none for others."""
    voxel_size: float | None = Field(default=None, gt=0)
    """Side of the voxels that a cloud made from depth is thinned to, scene units; none lets the scene decide."""
    lift: LiftConfig = LiftConfig()
    """How features get from photographs onto points."""
    basis: BasisConfig = BasisConfig()
    """In how few numbers lifted features are kept."""
    lifted: Path | None = None
    """Another run: its lifted features are taken over where they fit, and its basis codes the others; none lifts anew."""
    score: Literal["mean", "cosine"] = "mean"
    """What a point's score is: the mean of its views' cosines (disagreement lowers it) or the cosine of their mean."""
    score_tolerance: float = Field(default=1e-3, gt=0, lt=1)
    """Largest change of a score that the index's low-rank basis may make."""
    stages: tuple[str, ...] = STAGES
    """Stages to run: a prefix of fuse."""
    seed: int = Field(default=0, ge=0)
    """Seed of everything random."""

    @field_validator("refine")
    @classmethod
    def _is_refinement(cls, refine: str) -> str:
        if refine not in (AUTO, "none", "dino") and not refine.startswith("timm:"):
            raise ValueError("refine must be auto, none, dino or timm:NAME")
        return refine

    @field_validator("stages")
    @classmethod
    def _is_prefix(cls, stages: tuple[str, ...]) -> tuple[str, ...]:
        if not stages or stages != STAGES[: len(stages)]:
            raise ValueError(f"stages must be the first ones of {', '.join(STAGES)}")
        return stages
