"""Several simultaneous discrete actions as a single one: each combination gets a number."""

from math import prod
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from nexus.core.errors import ConfigError
from nexus.core.types import Array

__all__ = ["MOST_ACTIONS", "FlatActions", "sizes_of", "way_for_actions"]

MOST_ACTIONS = 1_024  # the network needs an output for each, and each must be explored

DISCRETE_NEEDED = "DQN needs one Discrete action space"


class FlatActions(gym.ActionWrapper[Any, Any, Any]):
    """Number the combinations of MultiDiscrete or MultiBinary actions, so that the action is one of `Discrete(n)`.

    The last entry changes fastest, as in `itertools.product`: of `MultiDiscrete([2, 3])` the actions 0 to 5 are
    [0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]. `action` decodes a number.

    Args:
        env: the environment.
        name: its name in errors; None takes its class.

    Raises:
        ConfigError: its actions are of another kind, or have more than 1,024 combinations.
    """

    def __init__(self, env: gym.Env[Any, Any], name: str | None = None) -> None:
        super().__init__(env)
        actions, name = env.action_space, type(env.unwrapped).__name__ if name is None else name
        sizes = sizes_of(actions)
        if sizes is None:
            raise ConfigError(f"{name} has actions {actions}: needs MultiDiscrete or MultiBinary ones to flatten")
        count = prod(sizes)
        if count > MOST_ACTIONS:
            raise ConfigError(f"{name} has actions {actions}: {way_for_actions(actions)}")
        start = np.asarray(getattr(actions, "start", 0), np.int64)
        places = np.stack(np.unravel_index(np.arange(count), sizes), -1).reshape(count, *(actions.shape or ()))
        self._actions: Array = (places + start).astype(actions.dtype)  # [n, *action]
        self.action_space = spaces.Discrete(count)

    def action(self, action: Any) -> Array:
        """Return the environment's action for a number, as a new array."""
        taken: Array = self._actions[int(action)].copy()
        return taken


def sizes_of(actions: spaces.Space[Any]) -> tuple[int, ...] | None:
    """Return the number of values of each discrete action; None for other spaces."""
    match actions:
        case spaces.MultiDiscrete():
            return tuple(map(int, actions.nvec.ravel()))
        case spaces.MultiBinary():
            return (2,) * prod(actions.shape)
    return None


def way_for_actions(actions: spaces.Space[Any]) -> str:
    """Return a message on how to make non-Discrete actions fit."""
    sizes = sizes_of(actions)
    if sizes is None:
        return f"{DISCRETE_NEEDED}; for continuous actions use SAC, TD3 or PPO"
    count = prod(sizes)
    if count > MOST_ACTIONS:
        many = f"{count:,}" if count < 1e9 else "more than a billion"
        return f"{DISCRETE_NEEDED}, and {many} combinations are too many to number: at most {MOST_ACTIONS:,}"
    return f"{DISCRETE_NEEDED}; --flatten-actions (flatten_actions=True) numbers their {count:,} combinations"
