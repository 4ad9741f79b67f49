"""Which states count as the same one, for bonuses that count visits."""

import math
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import numpy as np
from gymnasium import spaces

from nexus.core.digests import Keys, digest
from nexus.core.errors import ConfigError, one_line
from nexus.core.importable import import_object, is_import_name
from nexus.core.packing import Layout
from nexus.core.types import Array
from nexus.envs.packing import packed_in

__all__ = ["keys_for"]

FEW_NUMBERS = 8  # numbers that a grid can cut up: with more of them hardly any state occurs twice
MOST_EXACT = 1_000  # bytes of a state up to which only the same bytes count as the same state
HASH_BITS = 32  # bits of a hash


def keys_for(observed: spaces.Space[Any], way: str, bins: int, rng: np.random.Generator) -> Keys:
    """Return the function that says which states count as the same.

    Args:
        observed: the space of a state.
        way: `exact`, `grid`, `hash`, `auto` or `module:Name`.
        bins: of each number, for `grid`.
        rng: draws the projection of `hash`.

    Raises:
        ConfigError: the states have no numbers to cut up, or the user's function can't be imported.
    """
    packed = packed_in(observed)
    if is_import_name(way):
        function = import_object(way, "bonus_states")
        if not callable(function):
            raise ConfigError(f"bonus_states {way!r} is a {type(function).__name__}: needs a function of a state")
        return partial(own_keys, function, way, None if packed is None else packed.layout)
    shape, dtype = observed.shape or (), np.dtype(observed.dtype)
    floats = packed is None and dtype.kind == "f"
    if way == "auto":
        size = math.prod(shape)
        way = ("grid" if size <= FEW_NUMBERS else "hash") if floats else "exact" if size <= MOST_EXACT else "hash"
    if way == "exact":
        return exact_keys
    if packed is not None:
        raise ConfigError(f"bonus_states = {way!r}: states of several parts need exact, or a function of your own")
    if way == "grid":
        if not isinstance(observed, spaces.Box) or not floats:
            raise ConfigError(f"bonus_states = 'grid': {observed} has no real numbers to cut up; use exact or hash")
        return partial(grid_keys, observed.low.ravel().astype(float), observed.high.ravel().astype(float), bins)
    return partial(hashed_keys, rng.normal(size=(math.prod(shape), HASH_BITS)).astype(np.float32))


def exact_keys(states: Array) -> Sequence[bytes]:
    """Return a digest of each state's bytes."""
    return [digest(state.tobytes()) for state in np.ascontiguousarray(states)]


def grid_keys(low: Array, high: Array, bins: int, states: Array) -> Sequence[bytes]:
    """Return a digest of each state's cell, where each number has `bins` of them between its bounds.

    A number without bounds is mapped to (-1, 1) first, by x / (1 + |x|).
    """
    numbers = states.reshape(len(states), -1).astype(float)
    bounded = (high - low) < 1e6
    numbers = np.where(bounded, numbers, numbers / (1 + np.abs(numbers)))
    least, most = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
    cells = np.floor((numbers - least) / np.where(most > least, most - least, 1.0) * bins)
    return exact_keys(np.clip(cells, 0, bins - 1).astype(np.int64))


def hashed_keys(projection: Array, states: Array) -> Sequence[bytes]:
    """Return a digest of the signs of 32 random projections of each state (SimHash, Charikar 2002).

    As in Tang et al. 2017, https://arxiv.org/abs/1611.04717.
    """
    numbers = states.reshape(len(states), -1).astype(np.float32)
    return exact_keys(np.packbits(numbers @ projection > 0, axis=1))


def own_keys(function: Callable[[Any], Hashable], name: str, layout: Layout | None, states: Array) -> Sequence[bytes]:
    """Return a digest of what a user's function makes of each state.

    Raises:
        ConfigError: it raises an error, or returns something else than text, bytes, numbers or a tuple of them.
    """
    found = []
    for state in states:
        seen = state if layout is None else layout.observation(state)
        try:
            key = function(seen)
        except Exception as error:  # foreign code
            raise ConfigError(f"bonus_states {name!r}: {one_line(error)}") from error
        found.append(digest(repr(plain_key(key, name)).encode()))
    return found


def plain_key(key: Any, name: str) -> Any:
    """Return a key without NumPy's types, which print differently for the same number."""
    if isinstance(key, np.ndarray | np.generic):
        key = key.tolist()
    if isinstance(key, tuple | list):
        return tuple(plain_key(part, name) for part in key)
    if not isinstance(key, str | bytes | bool | int | float):
        raise ConfigError(f"bonus_states {name!r} returned {key!r}: needs text, bytes, numbers, or a tuple of them")
    return key
