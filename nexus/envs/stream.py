"""The one place that knows autoreset: vector environments in, true transitions out."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from nexus.core.types import Array

__all__ = ["Step", "TransitionStream"]


@dataclass(frozen=True, slots=True)
class Step:
    """One vector step as it truly happened."""

    states: Array  # [E, *obs], what was acted on
    actions: Array  # [E]
    rewards: Array  # [E]
    next_states: Array  # [E, *obs], the last observation of an episode where it ended, never a reset one
    terminated: Array  # [E] bool
    truncated: Array  # [E] bool
    valid: NDArray[np.bool_]  # [E], False where an environment only reset itself: nothing was decided there


class TransitionStream:
    """Step a Gymnasium vector environment and get its true transitions, whatever its autoreset mode.

    - next-step: the step after an end ignores its action and returns the reset state; that row is not valid.
    - same-step: the last observation is in `info["final_obs"]` and the reset one in its place.
    - disabled: nothing resets by itself, so it is done here, at once.

    Args:
        env: the vector environment; its `metadata["autoreset_mode"]` says how it resets.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        self.env = env
        self.num_envs = env.num_envs
        self.mode = AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self.states: Array = np.empty(0)
        self._resetting = np.zeros(self.num_envs, bool)

    def reset(self, seed: int | None = None) -> Array:
        """Start every environment anew and return the first states `[E, *obs]`."""
        self.states, _ = self.env.reset(seed=seed)
        self._resetting = np.zeros(self.num_envs, bool)
        return self.states

    def step(self, actions: Array) -> Step:
        """Take one action `[E]` in each environment."""
        states, valid = self.states, ~self._resetting
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        done = terminated | truncated
        next_states = observations
        if self.mode is AutoresetMode.NEXT_STEP:
            self._resetting = done
        elif done.any():
            if self.mode is AutoresetMode.SAME_STEP:
                next_states = observations.copy()
                next_states[done] = np.stack(list(info["final_obs"][done]))
            else:
                next_states = observations.copy()
                observations, _ = self.env.reset(options={"reset_mask": done})
        self.states = observations
        return Step(states, actions, rewards, next_states, terminated, truncated, valid)
