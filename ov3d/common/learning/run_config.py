"""Settings that every backend has: preset, source of 2D features, stages, seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from ov3d.common.base.config import Config
from ov3d.common.language.specs import AUTO, known_refinement
from ov3d.common.lifting.lift import LiftConfig

Presets = Mapping[str, Mapping[str, Any]]
"""Values by preset name; nested mappings for the parts of a configuration."""


class RunConfig(Config):
    """The base of a backend's configuration.

    A subclass defines its stages and presets. A value comes from the user, else from the preset, else from the class. Stages
    default to all of them.
    """

    STAGES: ClassVar[tuple[str, ...]] = ()
    PRESETS: ClassVar[Presets] = {"cpu": {}}

    preset: str = "cpu"
    """Name of the default values for settings that are not given."""
    encoder: str = "offline"
    """Source of 2D features, as for `--encoder`."""
    refine: str = AUTO
    """Refinement of the 2D features: none, dino or timm:NAME (affinities of a patch encoder, and superpixels); auto means
    dino for the offline encoder and none for others."""
    lift: LiftConfig = LiftConfig()
    """How features are lifted from images onto points."""
    stages: tuple[str, ...] = ()
    """Stages to run, in order: all of them, or any number starting with the first."""
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    """Random seed."""

    @property
    def needs_teacher(self) -> bool:
        """Whether a stage to run needs a 2D teacher."""
        return True

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data  # rejected by the model's own validation
        filled = dict(data)
        preset = str(data.get("preset", cls.model_fields["preset"].default))
        for key, value in {"stages": cls.STAGES, **cls.PRESETS.get(preset, {})}.items():
            given = data.get(key, {} if isinstance(value, Mapping) else value)
            filled[key] = {**value, **given} if isinstance(value, Mapping) and isinstance(given, Mapping) else given
        return filled

    @field_validator("preset")
    @classmethod
    def _is_preset(cls, preset: str) -> str:
        if preset not in cls.PRESETS:
            raise ValueError(f"preset must be one of {', '.join(cls.PRESETS)}")
        return preset

    @field_validator("refine")
    @classmethod
    def _is_refinement(cls, refine: str) -> str:
        return known_refinement(refine)

    @field_validator("stages")
    @classmethod
    def _is_prefix(cls, stages: tuple[str, ...]) -> tuple[str, ...]:
        if not stages or stages != cls.STAGES[: len(stages)]:
            raise ValueError(f"stages must be a prefix of {', '.join(cls.STAGES)}")
        return stages
