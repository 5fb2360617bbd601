"""Configuration: what is unknown or of the wrong type is refused, with the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ov3d.common.base.config import Config, dump_config, load_config
from ov3d.common.base.errors import DataError, UsageError


class Lift(Config):
    border: int = 10
    tolerance: float = 0.25


class Settings(Config):
    encoder: str = "offline"
    lift: Lift = Lift()
    stages: tuple[str, ...] = ("fuse",)


def test_file_then_overrides(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("encoder: a\nlift: {border: 5}\n")
    settings = load_config(Settings, path, ["lift.tolerance=0.1", "stages=[fuse, guide]"])
    assert settings == Settings(encoder="a", lift=Lift(border=5, tolerance=0.1), stages=("fuse", "guide"))
    assert load_config(Settings, None, []) == Settings()


def test_overrides_may_be_a_mapping_nested_or_dotted(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("encoder: a\nlift: {border: 5}\n")
    expected = Settings(encoder="a", lift=Lift(border=5, tolerance=1e-05), stages=("fuse", "guide"))
    for lift in ({"lift": {"tolerance": 1e-05}}, {"lift.tolerance": 1e-05}):
        assert load_config(Settings, path, {**lift, "stages": ("fuse", "guide")}) == expected
    assert load_config(Settings, None, {"encoder": "no"}).encoder == "no"  # a text stays one
    assert load_config(Settings, None, {"lift": {}}) == Settings()
    with pytest.raises(UsageError, match=r"lift\.bordr \(settings\).*Did you mean border"):
        load_config(Settings, None, {"lift": {"bordr": 5}})


def test_dump_comes_back(tmp_path: Path) -> None:
    settings = Settings(lift=Lift(border=3))
    assert Settings.model_validate(yaml.safe_load(dump_config(settings))) == settings


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lift.bordr=5", "Unknown configuration key lift.bordr.*Did you mean border"),
        ("encodr=x", "Did you mean encoder"),
        ("lift.border=many", "lift.border.*not 'many'"),
        ("lift.border", "not of the form key=value"),
        ("=3", "not of the form key=value"),
        ("encoder.x=3", "encoder"),
        ("lift.border=[1", "not a YAML value"),
    ],
)
def test_a_wrong_override_is_one_clear_error(override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_config(Settings, None, [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [("- a\n", "holds a list"), ("a: [", "is not valid YAML"), ("!!python/object:os.system {}", "is not valid YAML")],
)
def test_a_wrong_file_is_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_config(Settings, path)
    with pytest.raises(DataError, match="Configuration file .* does not exist"):
        load_config(Settings, tmp_path / "none.yaml")


def test_a_value_below_a_value_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("lift: 3\n")
    with pytest.raises(UsageError, match="lift is a single value"):
        load_config(Settings, path, ["lift.border=1"])
