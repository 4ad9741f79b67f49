"""User-named wrappers around each environment."""

import inspect
from collections.abc import Sequence
from typing import Any

import gymnasium as gym

from nexus.core.errors import ConfigError, one_line
from nexus.core.importable import import_object

__all__ = ["wrapped"]


def wrapped(env: gym.Env[Any, Any], wrappers: Sequence[str], name: str) -> gym.Env[Any, Any]:
    """Return an environment with wrappers around it, the first innermost.

    Args:
        env: the environment as it was made.
        wrappers: names of classes or functions that take an environment and return one.
        name: name of the environment.

    Raises:
        ConfigError: one can't be imported or called, or does not return an environment.
    """
    for wrapper in wrappers:
        env = wrapped_once(env, wrapper, name)
    return env


def wrapped_once(env: gym.Env[Any, Any], wrapper: str, name: str) -> gym.Env[Any, Any]:
    """Return an environment in one wrapper."""
    wrap = import_object(wrapper, "wrapper")
    if not callable(wrap):
        kind = type(wrap).__name__
        raise ConfigError(f"wrapper {wrapper!r} is a {kind}: needs a class or function that takes an environment")
    try:
        found = wrap(env)
    except Exception as error:  # user code
        raise ConfigError(
            f"wrapper {wrapper!r} around {name}: {one_line(error)}{wrapper_hint(wrap, wrapper)}"
        ) from error
    if not isinstance(found, gym.Env):
        hint = "; does it end with return?" if found is None else ""
        raise ConfigError(
            f"wrapper {wrapper!r} around {name} returned {type(found).__name__}: needs a gymnasium.Env{hint}"
        )
    return found


def wrapper_hint(wrap: Any, wrapper: str) -> str:
    """Return advice on a wrapper that needs more arguments, else an empty text."""
    try:
        inspect.signature(wrap).bind(None)
    except TypeError:
        short = wrapper.partition(":")[2]
        return f"; write a function that takes an environment and returns {short}(env, ...)"
    except ValueError:  # signatures of C code are unknown
        return ""
    return ""
