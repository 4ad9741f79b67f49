"""Proportional prioritized experience replay (Schaul et al. 2016, https://arxiv.org/abs/1511.05952)."""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from nexus.core.errors import ConfigError, RunError
from nexus.core.state import Series, State, array_from, number_from
from nexus.core.types import Array, Batch, Transitions
from nexus.data.memory import require_memory_for_priorities
from nexus.data.replay_buffer import ReplayBuffer, Rows
from nexus.data.sum_tree import SumTree

__all__ = ["PRIORITY_OFFSET", "PrioritizedReplayBuffer"]

PRIORITY_OFFSET = 1e-6  # the paper's ε: a transition without error can still be drawn


class PrioritizedReplayBuffer:
    """The last `capacity` transitions, drawn in proportion to `(priority + PRIORITY_OFFSET) ** priority_exponent`.

    The rows are a `ReplayBuffer`'s, and so is the interface; see there for `push` and `add`. A sum tree beside
    them holds what each row was given by `update_priorities`.

    Args:
        capacity: transitions kept; the oldest is overwritten.
        seed: of the sampling, or the generator itself.
        priority_exponent: α, from 0 (uniform) to 1 (in proportion to the priority).
        importance_exponent: β at the start, from 0 (no correction) to 1 (full correction).

    Raises:
        ConfigError: an exponent is not in [0, 1], the capacity is below 1, or memory is too small.
    """

    def __init__(
        self,
        capacity: int,
        seed: int | np.random.Generator = 0,
        priority_exponent: float = 0.5,
        importance_exponent: float = 0.4,
    ) -> None:
        require_exponents(priority_exponent, importance_exponent)
        self.capacity = capacity
        self.priority_exponent = priority_exponent
        self.importance_exponent = importance_exponent
        self._first_importance_exponent = importance_exponent
        self._rng = np.random.default_rng(seed)
        self._storage = ReplayBuffer(capacity, self._rng)
        require_memory_for_priorities(capacity)
        self._tree = SumTree(capacity)
        self._highest_priority = 1.0  # of all that were ever given
        self._limit = largest_priority(capacity)

    def __len__(self) -> int:
        return len(self._storage)

    def push(
        self,
        state: Any,
        action: int,
        reward: float,
        next_state: Any,
        done: bool,
        *,
        action_masks: Any = None,
        next_action_masks: Any = None,
    ) -> None:
        """Store one transition as it comes from `env.step`, at the highest priority so far."""
        rows = self._storage.next_rows(1)
        self._storage.push(
            state,
            action,
            reward,
            next_state,
            done,
            action_masks=action_masks,
            next_action_masks=next_action_masks,
        )
        self._enter(rows)

    def remember(
        self, states: Array, next_states: Array, begins: NDArray[np.bool_], valid: NDArray[np.bool_]
    ) -> tuple[Array, Array]:
        """Return what goes through the accumulator in place of the states, as the storage says."""
        return self._storage.remember(states, next_states, begins, valid)

    def add(self, transitions: Transitions) -> None:
        """Store folded transitions, `K` rows at once, at the highest priority so far."""
        rows = self._storage.next_rows(len(transitions))
        self._storage.add(transitions)
        self._enter(rows)

    def seal(self) -> None:
        """Do nothing, as the storage does."""

    def sample(self, batch_size: int) -> Batch:
        """Return one transition from each of `batch_size` equal segments of the total priority (see `Batch`).

        `weights` are the importance weights `(N · P(i)) ** -β` over the highest of the batch: there N and the
        total cancel, and `(lowest p of the batch / p) ** β` is left.

        Raises:
            ConfigError: the replay is empty, or the batch.
        """
        if len(self._storage) == 0:
            raise ConfigError("can't sample from an empty replay: push a transition first")
        if batch_size < 1:
            raise ConfigError(f"batch_size = {batch_size}: needs at least 1 transition")
        masses = self._rng.random(batch_size)
        masses += np.arange(batch_size, dtype=np.float64)
        masses *= self._tree.total / batch_size
        indices = self._tree.find(masses)
        scaled = self._tree.get(indices)
        weights = (np.minimum.reduce(scaled) / scaled) ** self.importance_exponent
        return self._storage.gather(indices, torch.from_numpy(weights.astype(np.float32)))

    def update_priorities(self, indices: torch.Tensor, priorities: torch.Tensor) -> None:
        """Give rows `[B]` of the replay new priorities `[B]`; where a row comes twice, its last one stays.

        Raises:
            ConfigError: a priority is negative, not finite or too large to sum up, a row is not in the replay, or
                the shapes differ. Then nothing is changed.
        """
        if indices.shape != priorities.shape or indices.ndim != 1:
            raise ConfigError(f"needs one priority a row, got {tuple(priorities.shape)} for {tuple(indices.shape)}")
        if len(indices) == 0:
            return
        if priorities.dtype is torch.bfloat16:  # which NumPy lacks
            priorities = priorities.float()
        rows, given = indices.long().numpy(force=True), priorities.numpy(force=True)
        highest = float(np.maximum.reduce(given))
        if not (np.minimum.reduce(given) >= 0 and highest <= self._limit):  # false for NaN too
            at = int(np.flatnonzero(~((given >= 0) & (given <= self._limit)))[0])
            raise ConfigError(
                f"a priority must be a finite number from 0 to {self._limit:.0e}, got {given[at]} for row {rows[at]}"
            )
        if np.maximum.reduce(rows.view(np.uint64)) >= len(self._storage):  # unsigned, a negative row is huge
            raise ConfigError(
                f"rows {rows.min()} to {rows.max()} were given priorities, the replay holds 0 to {len(self) - 1}"
            )
        self._tree.set(rows, self._scaled(given))
        self._highest_priority = max(self._highest_priority, highest)

    def anneal(self, fraction: float) -> None:
        """Move β in a straight line from its first value to 1, by the fraction of the training that is over."""
        self.importance_exponent = annealed(self._first_importance_exponent, fraction)

    @property
    def buffer(self) -> Rows:
        """The stored transitions, oldest first, as `(state, action, reward, next_state, done)` rows."""
        return self._storage.buffer

    @property
    def nbytes(self) -> int:
        """Bytes that the arrays take, with the priorities; the latter alone before the first transition."""
        return self._storage.nbytes + self._tree.nbytes

    def reward_summary(self) -> dict[str, float]:
        """Return the minimum, mean and maximum of the stored (folded) rewards; empty if there are none."""
        return self._storage.reward_summary()

    @property
    def added(self) -> int:
        """How many transitions were ever stored, the overwritten ones too."""
        return self._storage.added

    @property
    def columns(self) -> dict[str, Array]:
        """The arrays `[capacity, ...]` by the names of `Transitions`; none before the first transition."""
        return self._storage.columns

    def rows(self, first: int, last: int) -> dict[str, Array]:
        """Copy the columns of the transitions that were added as number `first` to `last - 1`, which it still holds."""
        return self._storage.rows(first, last)

    def get_state(self) -> State:
        """Return all but the rows: the numbers in the leaves of the tree, whose sums follow from them, and the rest."""
        return {
            **self._storage.get_state(),
            "leaves": self._tree.get(np.arange(len(self))),  # float64, (priority + ε)^α
            "highest_priority": self._highest_priority,
            "importance_exponent": self.importance_exponent,
        }

    def set_state(self, state: State) -> None:
        """Take back what `get_state` gave; `set_rows` must then bring the rows.

        Raises:
            RunError: something is missing or impossible.
        """
        self._storage.set_state(state)
        leaves, self._highest_priority, self.importance_exponent = priorities_from(state, len(self), self._limit)
        self._tree = SumTree(self.capacity)
        self._tree.set(np.arange(len(self)), leaves)

    def set_rows(self, first: int, rows: Mapping[str, Array]) -> None:
        """Put back rows that were added as number `first` and after it.

        Raises:
            RunError: a column is unknown or missing, or does not fit the others.
        """
        self._storage.set_rows(first, rows)

    def series(self, state_shape: tuple[int, ...], state_dtype: DTypeLike, action_dim: int) -> tuple[Series, ...]:
        """Return what a checkpoint saves in chunks (see `ReplayBuffer.series`); priorities are a part of the state."""
        return self._storage.series(state_shape, state_dtype, action_dim)

    def _enter(self, rows: NDArray[np.int64]) -> None:
        self._tree.set(rows, self._scaled(np.full(len(rows), self._highest_priority)))

    def _scaled(self, priorities: Array) -> NDArray[np.float64]:
        scaled: NDArray[np.float64] = np.add(priorities, PRIORITY_OFFSET, dtype=np.float64) ** self.priority_exponent
        return scaled


def require_exponents(priority_exponent: float, importance_exponent: float) -> None:
    """Raise `ConfigError` unless α and β are in [0, 1]."""
    for name, value in (("priority_exponent", priority_exponent), ("importance_exponent", importance_exponent)):
        if not 0 <= value <= 1:
            raise ConfigError(f"{name} = {value}: needs a number from 0 to 1")


def largest_priority(capacity: int) -> float:
    """Return the largest priority of so many of which no sum can overflow."""
    return sys.float_info.max / (2 * capacity)


def annealed(first: float, fraction: float) -> float:
    """Return β after a fraction of the training: in a straight line from its first value to 1."""
    return first + (1.0 - first) * min(max(fraction, 0.0), 1.0)


def priorities_from(state: State, rows: int, limit: float) -> tuple[Array, float, float]:
    """Return what a saved state says of so many rows: (priority + ε)^α of each, the highest priority ever given, and β.

    Raises:
        RunError: something is missing or impossible.
    """
    leaves = array_from(state, "leaves", np.empty(rows))
    if not ((leaves >= 0) & (leaves <= limit)).all():
        raise RunError(f"the replay has a priority below 0 or above {limit:.0e}")
    return leaves, number_from(state, "highest_priority", 0, limit), number_from(state, "importance_exponent", 0, 1)
