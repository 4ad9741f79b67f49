"""Folding steps into n-step transitions, batched over environments."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nexus.core.errors import RunError
from nexus.core.state import State, array_from, count_from
from nexus.core.types import Array, Transitions

__all__ = ["NStepAccumulator"]


class NStepAccumulator:
    """Folds single steps into n-step transitions (Sutton 1988; Mnih et al. 2016).

    Each environment has a separate window. A step opens a slot; every later step of the same episode adds
    γ^i r to it; the slot is emitted after `n` steps, or earlier when its episode ends. Its discount is then
    γ^k for its actual length k, or 0 after a termination; a truncation keeps γ^k. No transition ever spans
    two episodes, and none of the last n - 1 of an episode is lost.

    Args:
        num_envs: environments `E`.
        n: number of rewards to fold, at least 1.
        gamma: the discount γ. It is used here and in no loss.
    """

    def __init__(self, num_envs: int, n: int, gamma: float) -> None:
        self.num_envs = num_envs
        self.n = n
        self.gamma = gamma
        self._cursor = 0
        self._open = np.zeros((n, num_envs), bool)
        self._actions = np.zeros((n, num_envs), np.int64)
        self._rewards = np.zeros((n, num_envs), np.float32)
        self._discounts = np.zeros((n, num_envs), np.float32)
        self._states: Array | None = None  # [n, E, *obs], allocated when the first state gives its dtype
        self._action_masks: Array | None = None  # [n, E, A], only with masks

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
        """Add one vector step and return the transitions it completed, oldest first.

        Args:
            states: `[E, *obs]`, the states that were acted on.
            actions: `[E]`.
            rewards: `[E]`, as the agent learns from them (clipped if clipping is on).
            next_states: `[E, *obs]`, the true next states, also at the end of an episode.
            terminated: `[E]`, the episode ended in a terminal state.
            truncated: `[E]`, the episode was truncated and keeps its bootstrap.
            valid: `[E]`, False where the environment only reset and no action was taken.
            action_masks: `[E, A]`, the legal actions in `states`, if the environment reports them.
            next_action_masks: `[E, A]`, the legal actions in `next_states`.
        """
        if self._states is None:
            self._states = np.zeros((self.n, *states.shape), states.dtype)
        slot = self._cursor
        self._states[slot] = states
        if action_masks is not None:
            if self._action_masks is None:
                self._action_masks = np.zeros((self.n, *action_masks.shape), bool)
            self._action_masks[slot] = action_masks
        self._actions[slot] = actions
        self._rewards[slot] = 0.0
        self._discounts[slot] = 1.0
        self._open[slot] = valid

        self._rewards += self._open * self._discounts * rewards.astype(np.float32)
        self._discounts *= np.float32(self.gamma)
        self._discounts[:, terminated] = 0.0

        self._cursor = (slot + 1) % self.n
        leaving = self._open & (terminated | truncated)  # [n, E]
        leaving[self._cursor] |= self._open[self._cursor]  # its n steps are complete
        self._open &= ~leaving
        return self._collect(leaving, next_states, next_action_masks)

    def flush(
        self, which: NDArray[np.bool_], next_states: Array, next_action_masks: Array | None = None
    ) -> Transitions:
        """Close every open window of some environments as a truncation and return its transition, oldest first.

        Args:
            which: `[E]`, True for the environments to flush.
            next_states: `[E, *obs]`, the true next states of the last step.
            next_action_masks: `[E, A]`, the legal actions there; None without masks.
        """
        leaving = self._open & which
        self._open &= ~which
        return self._collect(leaving, next_states, next_action_masks)

    def get_state(self) -> State:
        """Return the open windows; the states in them have been pushed before."""
        optional = {"states": self._states, "action_masks": self._action_masks}
        return {
            "cursor": self._cursor,
            **{name: values.copy() for name, values in self._columns.items()},
            **{name: values.copy() for name, values in optional.items() if values is not None},
        }

    def set_state(self, state: State) -> None:
        """Restore what `get_state` returned.

        Raises:
            RunError: something is missing or does not fit.
        """
        self._cursor = count_from(state, "cursor", 0, self.n - 1)
        for name, values in self._columns.items():
            values[:] = array_from(state, name, values)
        self._states, self._action_masks = (self._windows_from(state, name) for name in ("states", "action_masks"))

    @property
    def _columns(self) -> dict[str, Array]:
        """The columns of every window, `[n, E]` each."""
        return {"open": self._open, "actions": self._actions, "rewards": self._rewards, "discounts": self._discounts}

    def _windows_from(self, state: State, name: str) -> Array | None:
        """Return an array `[n, E, ...]` of a state, or None if it has none."""
        values = state.get(name)
        if values is not None and np.shape(values)[:2] != self._open.shape:
            raise RunError(f"the open windows do not fit: their {name} have the shape {np.shape(values)}")
        return None if values is None else np.array(values)

    def _collect(self, leaving: NDArray[np.bool_], next_states: Array, next_action_masks: Array | None) -> Transitions:
        """Copy the marked slots out, oldest first."""
        assert self._states is not None
        oldest_first = (self._cursor + np.arange(self.n)) % self.n
        order, envs = np.nonzero(leaving[oldest_first])
        slots = oldest_first[order]
        picked: Any = (slots, envs)
        return Transitions(
            states=self._states[picked],
            actions=self._actions[picked],
            rewards=self._rewards[picked],
            discounts=self._discounts[picked],
            next_states=next_states[envs],
            action_masks=None if self._action_masks is None else self._action_masks[picked],
            next_action_masks=None if next_action_masks is None else next_action_masks[envs],
        )
