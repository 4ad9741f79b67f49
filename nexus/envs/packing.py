"""Observations of several parts, in a Dict or a Tuple, packed into one row of bytes."""

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from gymnasium import spaces

from nexus.core.errors import ConfigError, EnvError
from nexus.core.packing import PART_DTYPES, Layout, Part, Path, find, place
from nexus.core.types import Array
from nexus.envs.answers import Form, form_of, is_picture, outside
from nexus.envs.checks import TOO_LARGE, index_text

__all__ = ["Packed", "Packing", "Structured", "packed_in", "way_for"]

Structured: TypeAlias = spaces.Dict | spaces.Tuple  # type: ignore[type-arg]

PACKED = "nexus_packed"  # attribute of a packed space that describes its parts


class Packed(NamedTuple):
    """The composition of packed observations: plain data, which can be sent to another process."""

    layout: Layout
    spaces: tuple[spaces.Box, ...]  # the space of each part as packed


class Leaf(NamedTuple):
    """A part of an observation."""

    part: Part
    space: spaces.Space[Any]  # its space in the environment
    form: Form


class Packing:
    """Packs observations of a Dict or a Tuple, nested to any depth.

    Each part is read like a separate observation: discrete numbers become one-hot vectors, and a
    large grey image gets a channel axis. A row of `space` holds first the float32 parts, then those of
    a byte per number, both in the order of the space.

    Args:
        space: the space of the observations, without any mask.
        name: name of the environment.
        path: path of that space in an observation.

    Raises:
        ConfigError: a network can't read a part; the message says what to do with it.
    """

    def __init__(self, space: Structured, name: str, path: Path = ()) -> None:
        leaves = [leaf_of(*found, name) for found in parts_below(space, path, name)]
        if not leaves:
            raise ConfigError(f"{name} has observations {space}: needs at least one part")
        self.leaves = sorted(leaves, key=lambda leaf: PART_DTYPES.index(leaf.part.dtype))  # stable
        self.layout = Layout(tuple(leaf.part for leaf in self.leaves))
        self.space = spaces.Box(0, 255, (self.layout.nbytes,), np.uint8)
        boxes = [leaf.form.space for leaf in self.leaves]
        vars(self.space)[PACKED] = Packed(self.layout, tuple(box for box in boxes if isinstance(box, spaces.Box)))

    def read(self, observation: Any) -> Array:
        """Return the row `[N]` uint8 of an observation.

        Raises:
            EnvError: a part is missing or does not match its space.
        """
        return self.layout.pack([leaf_array(leaf, observation) for leaf in self.leaves])

    def beyond(self, state: Array) -> str | None:
        """Return a message about a number of a row beyond its bound in the environment's space, or None."""
        for leaf, values in zip(self.leaves, self.layout.unpack(state), strict=True):
            if isinstance(leaf.space, spaces.Box) and isinstance(leaf.form.space, spaces.Box):
                wrong = outside(values, leaf.form.space, place(leaf.part.path))
                if wrong is not None:
                    return wrong
        return None


def parts_below(space: spaces.Space[Any], path: Path, name: str) -> Iterator[tuple[Path, spaces.Space[Any]]]:
    """Yield each space nested in Dicts and Tuples, with its path.

    Raises:
        ConfigError: a key is not text, and could be confused with an index of a Tuple.
    """
    match space:
        case spaces.Dict():
            for key, below in space.spaces.items():
                if not isinstance(key, str):
                    raise ConfigError(f"{name} has {place((*path, key))} in its observations: needs text as keys")
                yield from parts_below(below, (*path, key), name)
        case spaces.Tuple():
            for index, below in enumerate(space.spaces):
                yield from parts_below(below, (*path, index), name)
        case _:
            yield path, space


def leaf_of(path: Path, space: spaces.Space[Any], name: str) -> Leaf:
    """Return a part of an observation.

    Raises:
        ConfigError: a network can't read it.
    """
    where = place(path)
    if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        raise ConfigError(f"{name} has {space} as {where}: needs numbers of a fixed shape; {way_for(space, path)}")
    form = form_of(space, is_picture(space))
    shape, dtype = form.space.shape, form.space.dtype
    assert shape is not None
    if 0 in shape:
        raise ConfigError(f"{name} has {space} as {where}: needs at least one number")
    kind = str(dtype) if str(dtype) in PART_DTYPES else "float32"
    return Leaf(Part(path, shape, kind), space, form)


def leaf_array(leaf: Leaf, observation: Any) -> Array:
    """Return a part of an observation in its packed dtype.

    Raises:
        EnvError: it is missing, does not match its space, or is not finite.
    """
    try:
        found = find(observation, leaf.part.path)
    except LookupError as error:
        raise EnvError(f"its {error}") from None
    try:
        given = leaf.form.read(found)
        with np.errstate(over="ignore"):  # values beyond float32 become infinite
            values: Array = np.asarray(given, leaf.part.dtype)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            where = tuple(np.argwhere(~np.isfinite(values))[0])
            needed = TOO_LARGE if np.isfinite(given[where]) else "needs finite numbers"
            raise EnvError(f"got an observation with {given[where]}{index_text(where)}: {needed}")
    except EnvError as error:
        raise EnvError(f"{place(leaf.part.path)}: {error}") from error
    return values


def way_for(space: spaces.Space[Any], path: Path = ()) -> str:
    """Return advice for a space that no network can read."""
    match space:
        case spaces.Text():
            way = "encode it as numbers, such as a MultiDiscrete of words"
        case spaces.Sequence() | spaces.Graph():
            way = "pad it to a Box of a fixed shape"
        case _:
            way = "encode it as a Box"
    leave = "leave it out with gymnasium.wrappers.FilterObservation, or " if len(path) == 1 else ""
    return f"{leave}{way} in an ObservationWrapper"


def packed_in(space: spaces.Space[Any]) -> Packed | None:
    """Return the composition of packed observations; None for other spaces."""
    return vars(space).get(PACKED)
