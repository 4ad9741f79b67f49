"""First states of episodes and the discounted returns that follow, to compare with the values predicted for them."""

from collections import deque

import numpy as np

from nexus.core.state import State, number_from, value_from
from nexus.core.types import Array
from nexus.envs.stream import Step

__all__ = ["EpisodeStarts"]

KEPT = 8  # last episodes: older ones were played by a worse policy


class EpisodeStarts:
    """Follows the discounted return of each episode of the first sub-environment, from its first state and action.

    One of them is enough for a mean, and cheap at every step. What a truncated episode would still have earned is left
    to the value of its last state: leaving such episodes out would leave those that failed early. Only with action
    masks they are left out, since a value may be that of an illegal action.

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
        self.lasts: deque[Array] = deque(maxlen=KEPT)  # [*obs] each, the last state
        self.rests: deque[float] = deque(maxlen=KEPT)  # discount of the value of the last state, 0 if it was terminal
        self._first: Array | None = None  # the first state of the episode in progress; None before one has begun
        self._action, self._gain, self._factor = 0, 0.0, 1.0

    def follow(self, step: Step) -> None:
        """Add a vector step."""
        if step.begins[0]:
            # A state without axes is a NumPy number, which only becomes an array like this.
            self._first, self._action = np.array(step.states[0]), int(step.actions[0])
            self._gain, self._factor = 0.0, 1.0
        self._gain += self._factor * float(step.learned_rewards(self.clip)[0])
        self._factor *= self.gamma
        ended, cut = bool(step.terminated[0]), bool(step.truncated[0])
        if (ended or cut) and self._first is not None:
            if ended or step.next_action_masks is None:
                self.states.append(self._first)
                self.actions.append(self._action)
                self.returns.append(self._gain)
                self.lasts.append(np.array(step.next_states[0]))
                self.rests.append(0.0 if ended else self._factor)
            self._first = None

    def get_state(self) -> State:
        """Return everything, as plain values and arrays."""
        return {
            **({} if not self.states else {"states": np.stack(self.states), "lasts": np.stack(self.lasts)}),
            **({} if self._first is None else {"first": self._first.copy()}),
            "actions": list(self.actions),
            "returns": list(self.returns),
            "rests": list(self.rests),
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
        self.lasts = deque(state.get("lasts", ()), KEPT)
        self.rests = deque(value_from(state, "rests", list), KEPT)
        self._first, self._action = state.get("first"), value_from(state, "action", int)
        self._gain, self._factor = number_from(state, "gain"), number_from(state, "factor")
