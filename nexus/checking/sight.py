"""How nexus sees an environment before the first step, and the settings it would train with."""

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from gymnasium import spaces

from nexus.core.errors import ConfigError
from nexus.core.packing import place
from nexus.core.types import Array
from nexus.envs.answers import said_in
from nexus.envs.factory import can_be_normalized, observation_bounds, scale_of
from nexus.envs.packing import packed_in
from nexus.training.config import TrainConfig

__all__ = ["Facet", "Sight"]


@dataclass(frozen=True)
class Facet:
    """One array of an observation: all of it, or a part of a Dict or a Tuple."""

    label: str  # such as `observation` or `observation['camera']`
    space: spaces.Space[Any]
    begin: int  # index of its first number among all numbers of a state

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.space.shape or ()

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its dtype."""
        return np.dtype(self.space.dtype)

    @property
    def end(self) -> int:
        """One past the index of its last number."""
        return self.begin + prod(self.shape)

    @property
    def is_vector(self) -> bool:
        """True if each number has a separate meaning: a vector that is neither a stack nor one-hot."""
        return len(self.shape) == 1 and "discrete_start" not in said_in(self.space)

    @property
    def is_image(self) -> bool:
        """True if it has the axes of an image."""
        return len(self.shape) in (3, 4)

    @property
    def has_bounds(self) -> bool:
        """True if `scale_observations` has bounds to scale it by."""
        try:
            observation_bounds(self.space, self.label)
        except ConfigError:
            return False
        return not self.is_image

    def is_normalized(self, config: TrainConfig) -> bool:
        """True if running statistics bring each number of it to mean 0 and deviation 1."""
        return config.normalize_observations and can_be_normalized(self.space)

    def span(self, config: TrainConfig) -> list[float] | None:
        """Return the range mapped to [0, 1]: the bounds of whole numbers, 0 to 255 for bytes; else None."""
        if config.scale_observations and self.has_bounds:
            return None
        span = scale_of(self.space)
        return [0.0, 255.0] if span is None and self.dtype == np.uint8 else span

    def name_of(self, number: int) -> str:
        """Return the text for one of its numbers, given the index among all numbers of a state."""
        where = np.unravel_index(number - self.begin, self.shape) if self.shape else ()
        return f"{self.label}{list(map(int, where)) or ''}"


@dataclass(frozen=True)
class Sight:
    """An environment as an agent would see it."""

    name: str
    preset: str | None
    config: TrainConfig
    space: spaces.Space[Any]  # space of a state, after all wrappers
    action_dim: int
    own: spaces.Space[Any] | None = None  # space of the environment's observations; None if unknown
    limit: int | None = None  # steps after which a time limit ends an episode

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a state."""
        return self.space.shape or ()

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of a state."""
        return np.dtype(self.space.dtype)

    @cached_property
    def facets(self) -> tuple[Facet, ...]:
        """The arrays that an observation consists of."""
        packed = packed_in(self.space)
        if packed is None:
            return (Facet("observation", self.space, 0),)
        found, begin = [], 0
        for part, space in zip(packed.layout.parts, packed.spaces, strict=True):
            found.append(Facet(place(part.path), space, begin))
            begin = found[-1].end
        return tuple(found)

    @cached_property
    def singles(self) -> Array:
        """The indices of all floats with a separate meaning."""
        ranges = [range(facet.begin, facet.end) for facet in self.facets if facet.is_vector and facet.dtype.kind == "f"]
        return np.array([number for span in ranges for number in span], np.int64)

    def numbers(self, states: Array) -> Array:
        """Return the numbers `[E, n]` of states `[E, *obs]`, those of one part after those of another."""
        packed = packed_in(self.space)
        if packed is None:
            return states.reshape(len(states), -1)
        return np.concatenate(
            [part.reshape(len(states), -1).astype(np.float64) for part in packed.layout.unpack(states)], 1
        )

    def bounds(self) -> tuple[Array, Array]:
        """Return the lowest and highest value `[n]` of each number, infinite if unknown."""
        boxes = [facet.space for facet in self.facets if isinstance(facet.space, spaces.Box)]
        low, high = ([getattr(box, name).reshape(-1).astype(np.float64) for box in boxes] for name in ("low", "high"))
        return np.concatenate(low), np.concatenate(high)

    def name_of(self, number: int) -> str:
        """Return the text for a number of a state, such as `observation[3]`."""
        return next(facet.name_of(number) for facet in self.facets if facet.begin <= number < facet.end)
