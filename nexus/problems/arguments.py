"""Checks of the arguments that the environments are made with."""

import math
from typing import Any

import numpy as np

from nexus.core.errors import ConfigError

__all__ = ["check_choice", "check_number", "check_seed", "check_whole"]


def check_whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Raise `ConfigError` unless a value is a whole number in a range."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ConfigError(f"{name} = {value!r}: needs a whole number")
    if value < least:
        raise ConfigError(f"{name} = {value}: needs at least {least}")
    if most is not None and value > most:
        raise ConfigError(f"{name} = {value}: needs at most {most}")


def check_number(name: str, value: Any, least: float = -math.inf) -> None:
    """Raise `ConfigError` unless a value is a finite number that is at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not math.isfinite(value):
        raise ConfigError(f"{name} = {value!r}: needs a finite number")
    if value < least:
        raise ConfigError(f"{name} = {value}: needs at least {least:g}")


def check_seed(name: str, value: Any) -> None:
    """Raise `ConfigError` unless a value is None or a seed of 32 bits."""
    if value is not None:
        check_whole(name, value, 0, 2**32 - 1)


def check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Raise `ConfigError` unless a value is one of several."""
    if value not in choices:
        raise ConfigError(f"{name} = {value!r}: needs one of {', '.join(map(str, choices))}")
