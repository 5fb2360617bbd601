"""What can be set: nothing but what every backend has."""

from typing import ClassVar

from ov3d.common.learning.run_config import RunConfig


class ToyConfig(RunConfig):
    """The toy backend: a vector for every colour."""

    STAGES: ClassVar[tuple[str, ...]] = ("colour",)
