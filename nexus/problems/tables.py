"""The form in which an environment states its transitions, and a wrapper that shows its states as numbers.

`nexus.tabular` reads both, so that Q* of these environments is known.
"""

from typing import Any, Protocol, TypeAlias

import gymnasium as gym
from gymnasium import spaces

from nexus.core.errors import ConfigError

__all__ = ["Numbered", "Table", "ending"]

Table: TypeAlias = dict[int, dict[int, list[tuple[float, int, float, bool]]]]
"""State -> action -> [(probability, next state, reward, terminated)], as Gymnasium's FrozenLake has in `P`.

The last state is the end of an episode, from which nothing follows. Noise of a reward is left out: it has the mean 0.
"""


class Tabled(Protocol):
    """An environment that states its transitions."""

    @property
    def P(self) -> Table:
        """The transitions."""

    @property
    def state_number(self) -> int:
        """The number of the current state."""


class Numbered(gym.ObservationWrapper[Any, Any, Any]):
    """Shows the number of the state instead of an observation, for `nexus.tabular` and for tabular Q-learning.

    Args:
        env: an environment of `nexus.problems`.

    Raises:
        ConfigError: it does not number its states, or has too many of them.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        if not hasattr(env.unwrapped, "state_number"):
            raise ConfigError(f"{type(env.unwrapped).__name__} does not number its states: needs P and state_number")
        self.problem: Tabled = env.unwrapped  # type: ignore[assignment]
        self.observation_space = spaces.Discrete(len(self.problem.P))

    def observation(self, observation: Any) -> int:
        """Return the number of the state."""
        return self.problem.state_number


def ending(actions: int, end: int) -> dict[int, list[tuple[float, int, float, bool]]]:
    """Return the row of the state after the end of an episode."""
    return {action: [(1.0, end, 0.0, True)] for action in range(actions)}
