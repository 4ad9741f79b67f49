"""Frozen configs that check themselves: an unknown key, a wrong type or an impossible value raises one clear error."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from math import isfinite
from types import NoneType, UnionType
from typing import Any, Literal, Self, TypeAlias, Union, dataclass_transform, get_args, get_origin, get_type_hints

import numpy as np
import torch

from nexus.core.errors import ConfigError, nearest
from nexus.core.importable import ImportName, ImportNames, import_name, import_names, is_import_name
from nexus.core.names import current_names
from nexus.core.period import Period

__all__ = ["CheckedConfig", "JsonObject", "Keywords", "Settings", "annotations_of", "config_text", "convert", "keyword"]

Keywords: TypeAlias = Mapping[str, Any]
"""Keyword arguments as JSON values."""


class JsonObject(dict[str, Any]):
    """An object as in JSON, which the command line reads from a file; a type that a setting can declare."""


@dataclass(frozen=True)
class CheckedConfig:
    """A frozen dataclass that is checked when it is made: its fields against their annotations, then each `check`.

    A config combines groups of settings, which are its base classes. Each group checks its own fields, and the config
    those that involve several groups: every `check` runs, so none calls `super().check()`.
    """

    def __post_init__(self) -> None:
        for name, kind in annotations_of(type(self)).items():
            object.__setattr__(self, name, convert(name, getattr(self, name), kind))
        for part in reversed(type(self).__mro__):
            if "check" in vars(part):
                vars(part)["check"](self)

    def require(self, possible: bool, name: str, needs: str) -> None:
        """Raise `ConfigError` that names the field, what it got and what it needs, unless `possible`."""
        if not possible:
            raise ConfigError(f"{name} = {config_text(getattr(self, name))}: needs {needs}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], others: Iterable[str] = ()) -> Self:
        """Build from plain values, as read from JSON; `ALIASES` of settings are accepted too.

        Args:
            values: by the names of the fields.
            others: names that were taken out of the values before, for errors.

        Raises:
            ConfigError: a key is unknown (with the nearest known ones), or a value has the wrong type.
        """
        values = current_names(values)
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(f"unknown setting {key!r}{nearest(str(key), [*known, *others])}")
        return cls(**values)

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values that `from_mapping` reads back, ready for JSON."""
        return {name: as_json(getattr(self, name), value) for name, value in asdict(self).items()}


@dataclass_transform(frozen_default=True)
class Settings(CheckedConfig):
    """Settings of an algorithm of your own, each with a default: a subclass is a frozen dataclass by itself.

    Whole numbers, numbers, text, true or false, one of several words (`Literal`), and all of these or None. The text
    below a setting is its help; a method `check` can `require` what its values must be.
    """

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True)(cls)


def as_json(value: Any, without_classes: Any) -> Any:
    """Return a value for JSON, given the value and its form from `asdict`."""
    if isinstance(value, Period):
        return str(value)
    return list(value) if isinstance(value, tuple) else without_classes


def annotations_of(cls: type[CheckedConfig]) -> dict[str, Any]:
    """Return the annotation of each field of a config class."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}


def convert(name: str, value: Any, kind: Any) -> Any:
    """Return `value` as `kind`, if that loses nothing.

    Raises:
        ConfigError: it does not fit.
    """
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    value = plain_value(value)
    if value is None and NoneType in options:
        return None
    if isinstance(value, float) and not isfinite(value):
        raise ConfigError(f"{name} = {value}: needs a finite number")
    for option in options:
        if option is ImportNames:
            return import_names(name, value)
        if option is ImportName:
            if callable(value) or is_import_name(value):
                return import_name(name, value)
        elif option == Keywords:
            if isinstance(value, Mapping):
                return {word: keyword(name, word, given) for word, given in value.items()}
        elif option is JsonObject:
            if isinstance(value, Mapping):
                return JsonObject({word: keyword(name, word, given) for word, given in value.items()})
        elif get_origin(option) is Literal:
            if value in get_args(option):
                return value
        elif option is Period:
            try:
                return Period.parse(value)
            except ConfigError as error:
                raise ConfigError(f"{name} = {config_text(value)}: {error}") from None
        elif fits_type(value, option):
            return option(value)
    choices = [choice for option in options if get_origin(option) is Literal for choice in get_args(option)]
    meant = nearest(value, choices) if isinstance(value, str) and ImportName in options else ""
    raise ConfigError(f"{name} = {config_text(value)}: needs {options_text(options)}{meant}")


def keyword(name: str, word: Any, value: Any) -> Any:
    """Return the value of a keyword argument for JSON; a tuple becomes a list.

    Raises:
        ConfigError: JSON can't store it, or the keyword is not text.
    """
    if not isinstance(word, str):
        raise ConfigError(f"{name} has the key {word!r}: needs text")
    value = plain_value(value)
    if isinstance(value, list | tuple):
        return [keyword(name, word, item) for item in value]
    if isinstance(value, Mapping):
        return {key: keyword(name, key, item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and isfinite(value)):
        return value
    raise ConfigError(
        f"{name} has {word} = {type(value).__name__}: needs numbers, text, true, false or none, or lists and mappings "
        "of them"
    )


def plain_value(value: Any) -> Any:
    """Convert NumPy numbers, as from sweeps, and torch devices to plain Python; return all else unchanged."""
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, torch.device) else value


def fits_type(value: Any, option: Any) -> bool:
    """True if a plain value can become this plain type without loss; True is an int in Python, never here."""
    if option is bool or isinstance(value, bool):
        return option is bool and isinstance(value, bool)
    if option is float:
        return isinstance(value, int | float)
    if option is int:
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return option is str and isinstance(value, str)


def options_text(options: tuple[Any, ...]) -> str:
    """Name types as a user would."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "none"}
    words |= {
        Keywords: "a mapping from names to values",
        JsonObject: "a mapping as in a JSON file",
        ImportName: "your own as module:Name",
    }
    return " or ".join(
        "one of " + ", ".join(map(str, get_args(option))) if get_origin(option) is Literal else words[option]
        for option in options
    )


def config_text(value: Any) -> str:
    """Return a value as written in a config file."""
    return repr(value) if isinstance(value, str) else str(value)
