"""First states of episodes and the discounted returns that follow, to compare with the values predicted for them."""

from collections import deque

import numpy as np

from nexus.core.state import State, count_from, value_from
from nexus.core.types import Array
from nexus.envs.stream import Step

__all__ = ["EpisodeStarts"]

KEPT = 20  # last episodes that ended by themselves
RESETS = 2  # vector steps after an end within which its environment begins again, in every autoreset mode


class EpisodeStarts:
    """Follows the discounted return of each episode from its first state and action.

    An episode counts if it ended by itself: the rest of a truncated one is unknown.

    Args:
        gamma: γ.
    """

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma
        self.states: deque[Array] = deque(maxlen=KEPT)  # [*obs] each
        self.actions: deque[int] = deque(maxlen=KEPT)
        self.returns: deque[float] = deque(maxlen=KEPT)
        self._open: dict[str, Array] = {}  # of the episodes in progress: first states, first actions, gains, factors
        self._look = RESETS

    def follow(self, step: Step, rewards: Array, ended: bool) -> None:
        """Add a vector step.

        Args:
            step: the step.
            rewards: `[E]`, as they are learned from.
            ended: whether any episode ended with it.
        """
        if not self._open:
            count = len(step.actions)
            self._open = {
                "states": np.zeros_like(step.states),
                "actions": np.zeros(count, np.int64),
                "gains": np.zeros(count),
                "factors": np.zeros(count),
            }
        begun = self._open
        if self._look and step.begins.any():
            which = step.begins
            begun["states"][which], begun["actions"][which] = step.states[which], step.actions[which]
            begun["gains"][which], begun["factors"][which] = 0.0, 1.0
        self._look -= self._look > 0
        begun["gains"] += begun["factors"] * rewards
        begun["factors"] *= self.gamma
        if not ended:
            return
        self._look = RESETS
        for place in np.flatnonzero(step.terminated & (begun["factors"] > 0)):
            self.states.append(begun["states"][place].copy())
            self.actions.append(int(begun["actions"][place]))
            self.returns.append(float(begun["gains"][place]))

    def get_state(self) -> State:
        """Return everything, as arrays."""
        kept = {} if not self.states else {"kept_states": np.stack(self.states)}
        return {
            **kept,
            **{f"open_{name}": values.copy() for name, values in self._open.items()},
            "actions": list(self.actions),
            "returns": list(self.returns),
            "look": self._look,
        }

    def set_state(self, state: State) -> None:
        """Restore what `get_state` returned; an empty state leaves everything as it is.

        Raises:
            RunError: something is missing.
        """
        if not state:
            return
        self.actions.extend(value_from(state, "actions", list))
        self.returns.extend(value_from(state, "returns", list))
        self.states.extend(state.get("kept_states", ()))
        self._look = count_from(state, "look")
        names = ("states", "actions", "gains", "factors")
        self._open = {name: state[f"open_{name}"].copy() for name in names if f"open_{name}" in state}
