"""Configuration: strict models, YAML files and `--set a.b=c`.

An unknown key is an error that suggests the nearest known one; nothing is silently ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ov3d.common.base.errors import DataError, UsageError, did_you_mean


class Config(BaseModel):
    """The base of every configuration: unknown keys are refused, and validated values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)


C = TypeVar("C", bound=Config)


def load_config(model: type[C], path: str | Path | None = None, overrides: Iterable[str] | Mapping[str, Any] = ()) -> C:
    """Build `model` from its defaults, then a YAML file, then overrides.

    Args:
        model: the configuration class.
        path: a YAML file, or None.
        overrides: `dotted.key=value` strings, whose values are parsed as YAML scalars or lists; or a mapping from dotted keys
            (or nested mappings) to values. Later ones win.

    Raises:
        DataError: the file is missing or not a YAML mapping.
        UsageError: an unknown key (with the nearest name) or a value of the wrong type.
    """
    data = _read_yaml(Path(path)) if path is not None else {}
    given = _flat(overrides) if isinstance(overrides, Mapping) else map(_parsed, overrides)
    for key, value in given:
        _apply_override(data, key, value)
    source = "settings" if isinstance(overrides, Mapping) else "--set"
    return build_config(model, data, source=str(path) if path is not None else source)


def build_config(model: type[C], data: Mapping[str, Any], *, source: str) -> C:
    """Validate a nested mapping; errors name `source`."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            names = _known_keys(model, [str(part) for part in first["loc"][:-1]])
            hint = did_you_mean(str(first["loc"][-1]), names)
            raise UsageError(f"Unknown configuration key {place} ({source}).", hint) from None
        raise UsageError(f"Configuration key {place} ({source}): {first['msg']}, not {first['input']!r}.") from None


def dump_config(config: Config) -> str:
    """The configuration as YAML text with every value, defaults included."""
    import yaml

    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    if not path.is_file():
        raise DataError(f"Configuration file {path} does not exist.", "Check the path given to --config.")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is not valid YAML: {' '.join(str(error).split())}.", "Fix it, or omit --config."
        ) from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise DataError(
            f"{path} holds a {type(data).__name__}, not a mapping of keys to values.", "Write `key: value`."
        )
    return data


def _parsed(text: str) -> tuple[str, Any]:
    """Key and value of an override."""
    import yaml

    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise UsageError(f"--set {text!r} is not of the form key=value.", "For example: --set lift.border=5")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        raise UsageError(f"--set {text!r}: {value!r} is not a YAML value.", "Quote it.") from None


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values: a nested mapping overrides only the keys it names."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _apply_override(data: dict[str, Any], key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    node = data
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise UsageError(f"Setting {key}: {parent} is a single value without keys.")
        node = child
    node[leaf] = value


def _known_keys(model: type[BaseModel], parents: list[str]) -> list[str]:
    current: type[BaseModel] = model
    for name in parents:
        field = current.model_fields.get(name)
        annotation = field.annotation if field is not None else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        current = annotation
    return list(current.model_fields)
