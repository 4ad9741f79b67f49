"""What nexus sees of an environment before a step is taken, and the settings that it would train with."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from nexus.core.types import Array
from nexus.envs.answers import said_in
from nexus.envs.factory import scale_of
from nexus.training.config import TrainConfig

__all__ = ["Sight"]


@dataclass(frozen=True)
class Sight:
    """An environment as an agent would see it."""

    name: str
    preset: str | None
    config: TrainConfig
    space: spaces.Space[Any]  # of a state, after all wrappers
    action_dim: int
    own: spaces.Space[Any] | None = None  # of the environment's observations; None if unknown
    limit: int | None = None  # steps after which a time limit ends an episode

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a state."""
        return self.space.shape or ()

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of a state."""
        return np.dtype(self.space.dtype)

    @property
    def is_vector(self) -> bool:
        """True if a state is a row of numbers with a meaning of its own each, not an image, a stack or one-hot."""
        one_hot = self.own is not None and not isinstance(self.own, spaces.Box | spaces.Dict)
        return len(self.shape) == 1 and not one_hot and not self.counts_something

    @property
    def is_image(self) -> bool:
        """True if a state has the axes of an image."""
        return len(self.shape) in (3, 4)

    @property
    def counts_something(self) -> bool:
        """True if a state is a one-hot vector made from a number."""
        return "discrete_start" in said_in(self.space)

    @property
    def span(self) -> list[float] | None:
        """What is mapped to [0, 1]: the bounds of whole numbers, 0 to 255 for bytes; None if numbers are not scaled."""
        if self.config.scale_observations:
            return None
        span = scale_of(self.space)
        return [0.0, 255.0] if span is None and self.dtype == np.uint8 else span

    def bounds(self) -> tuple[Array, Array]:
        """Return the lowest and highest value `[*obs]` of each number, infinite if unknown."""
        if isinstance(self.space, spaces.Box):
            return self.space.low, self.space.high
        return np.full(self.shape, -np.inf), np.full(self.shape, np.inf)
