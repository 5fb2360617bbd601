"""The configuration of every backend: a preset fills in what is not given, stages are the first ones."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import yaml

from ov3d.common.base.config import Config, dump_config, load_config
from ov3d.common.base.errors import UsageError
from ov3d.common.learning.run_config import RunConfig


class Part(Config):
    steps: int = 10
    rate: float = 0.1


class Settings(RunConfig):
    STAGES: ClassVar[tuple[str, ...]] = ("look", "learn")
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {"cpu": {}, "quick": {"stages": ["look"], "part": {"steps": 1}}}

    part: Part = Part()


def test_values_come_from_the_user_then_the_preset_then_the_class() -> None:
    assert (Settings().preset, Settings().stages, Settings().part) == ("cpu", ("look", "learn"), Part())
    quick = load_config(Settings, None, ["preset=quick", "part.rate=0.5"])
    assert (quick.stages, quick.part) == (("look",), Part(steps=1, rate=0.5))
    given = load_config(Settings, None, ["preset=quick", "stages=[look, learn]", "part.steps=7", "seed=3"])
    assert (given.stages, given.part, given.seed) == (("look", "learn"), Part(steps=7), 3)
    assert Settings.model_validate(yaml.safe_load(dump_config(given))) == given


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("preset=slow", "preset must be one of cpu, quick"),
        ("preset=[a]", "preset"),
        ("refine=sharp", "refine must be auto, none, dino or timm:NAME"),
        ("stages=[learn]", "stages must be a prefix of look, learn"),
        ("stages=[]", "stages must be a prefix of look, learn"),
        ("stages=[look, look]", "stages must be a prefix of look, learn"),
        ("seed=-1", "seed"),
        ("part=3", "part"),
        ("sed=1", "Did you mean seed"),
    ],
)
def test_what_cannot_be_is_named(override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_config(Settings, None, [override])
