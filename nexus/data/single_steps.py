"""Steps that are folded only when they are drawn: stored one by one, each with the number of its episode."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nexus.core.state import State, array_from, below, count_from, part
from nexus.core.types import Array, Transitions
from nexus.data.n_step import NStepAccumulator

__all__ = ["EPISODE", "SingleSteps"]

EPISODE = "episodes"
"""The extra column with the number of a row's episode."""


class SingleSteps:
    """Passes each step on as a transition of its own, in the place of an `NStepAccumulator`.

    Rows get an extra column, `episodes`: rows of the same number are steps of the same episode, in order.

    Args:
        num_envs: environments `E`.
        gamma: the discount γ.
    """

    def __init__(self, num_envs: int, gamma: float) -> None:
        self.num_envs = num_envs
        self._steps = NStepAccumulator(num_envs, 1, gamma)
        self._episodes = np.arange(num_envs)  # the number of each environment's present episode
        self._begun = num_envs

    def push(
        self,
        states: Array,
        actions: Array,
        rewards: Array,
        next_states: Array,
        terminated: Array,
        truncated: Array,
        valid: NDArray[np.bool_],
        action_masks: NDArray[np.bool_] | None = None,
        next_action_masks: NDArray[np.bool_] | None = None,
    ) -> Transitions:
        """Add one vector step and return its transitions; see `NStepAccumulator.push` for the arguments."""
        ended = terminated | truncated
        found = self._steps.push(
            states, actions, rewards, next_states, terminated, truncated, valid, action_masks, next_action_masks
        )
        numbered = replace(found, extras={EPISODE: self._episodes[valid]})
        self._end(valid & ended)
        return numbered

    def flush(
        self, which: NDArray[np.bool_], next_states: Array, next_action_masks: Array | None = None
    ) -> Transitions:
        """End the episodes of some environments `[E]` as truncations; no transition is open, so none is returned."""
        self._end(which)
        empty = self._steps.flush(which, next_states, next_action_masks)
        return replace(empty, extras={EPISODE: self._episodes[:0]})

    def get_state(self) -> State:
        """Return the numbers of the present episodes, and what `NStepAccumulator.get_state` returns."""
        return {"episodes": self._episodes.copy(), "begun": self._begun, **below("steps", self._steps.get_state())}

    def set_state(self, state: State) -> None:
        """Restore what `get_state` returned.

        Raises:
            RunError: something is missing or does not fit.
        """
        self._steps.set_state(part(state, "steps"))
        self._begun = count_from(state, "begun", self.num_envs)
        self._episodes = array_from(state, "episodes", self._episodes).copy()

    def _end(self, which: NDArray[np.bool_]) -> None:
        count = int(which.sum())
        self._episodes[which] = self._begun + np.arange(count)
        self._begun += count
