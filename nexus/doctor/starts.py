"""First states of episodes and the discounted returns that follow, to compare with the values predicted for them."""

from collections import deque

import numpy as np

from nexus.core.state import State, number_from, value_from
from nexus.core.types import Array
from nexus.envs.stream import Step

__all__ = ["EpisodeStarts"]

KEPT = 8  # last episodes that ended by themselves: older ones were played by a worse policy


class EpisodeStarts:
    """Follows the discounted return of each episode of the first sub-environment, from its first state and action.

    One of them is enough for a mean, and cheap at every step. An episode counts if it ended by itself: the rest of a
    truncated one is unknown.

    Args:
        gamma: γ.
        clip: the size that rewards are clipped to; None for no clipping.
    """

    def __init__(self, gamma: float, clip: float | None = None) -> None:
        self.gamma = gamma
        self.clip = clip
        self.states: deque[Array] = deque(maxlen=KEPT)  # [*obs] each
        self.actions: deque[int] = deque(maxlen=KEPT)
        self.returns: deque[float] = deque(maxlen=KEPT)
        self._first: Array | None = None  # the first state of the episode in progress; None before one has begun
        self._action, self._gain, self._factor = 0, 0.0, 1.0

    def follow(self, step: Step) -> None:
        """Add a vector step."""
        if step.begins[0]:
            # A state without axes is a NumPy number, which only becomes an array like this.
            self._first, self._action = np.array(step.states[0]), int(step.actions[0])
            self._gain, self._factor = 0.0, 1.0
        reward = float(step.rewards[0])
        if self.clip is not None:
            reward = min(max(reward, -self.clip), self.clip)
        self._gain += self._factor * reward
        self._factor *= self.gamma
        if step.terminated[0] and self._first is not None:
            self.states.append(self._first)
            self.actions.append(self._action)
            self.returns.append(self._gain)
            self._first = None

    def get_state(self) -> State:
        """Return everything, as plain values and arrays."""
        return {
            **({} if not self.states else {"states": np.stack(self.states)}),
            **({} if self._first is None else {"first": self._first.copy()}),
            "actions": list(self.actions),
            "returns": list(self.returns),
            "action": self._action,
            "gain": self._gain,
            "factor": self._factor,
        }

    def set_state(self, state: State) -> None:
        """Restore what `get_state` returned.

        Raises:
            RunError: something is missing.
        """
        self.states = deque(state.get("states", ()), KEPT)
        self.actions = deque(value_from(state, "actions", list), KEPT)
        self.returns = deque(value_from(state, "returns", list), KEPT)
        self._first, self._action = state.get("first"), value_from(state, "action", int)
        self._gain, self._factor = number_from(state, "gain"), number_from(state, "factor")
