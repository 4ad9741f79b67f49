"""Proportional prioritized experience replay (Schaul et al. 2016, https://arxiv.org/abs/1511.05952)."""

import sys
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nexus.core.errors import ConfigError, RunError
from nexus.core.state import State, array_from, number_from, restore_generator
from nexus.core.types import Array
from nexus.data.memory import require_memory_for_priorities
from nexus.data.protocols import NOTHING, ArrayOrTensor, Storage, host_array
from nexus.data.replay_buffer import ReplayBuffer
from nexus.data.row_checks import require_capacity
from nexus.data.sum_tree import SumTree

__all__ = ["PRIORITY_OFFSET", "Priorities", "PrioritizedReplayBuffer"]

PRIORITY_OFFSET = 1e-6  # the paper's ε: a transition with zero error can still be drawn


class Priorities:
    """Draws rows in proportion to `(priority + PRIORITY_OFFSET) ** priority_exponent`, from a sum tree in main memory.

    New rows enter at the highest priority so far.

    Args:
        capacity: number of rows.
        seed: seed of the draws, or a generator.
        priority_exponent: α, from 0 (uniform) to 1 (proportional to the priority).
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
        require_capacity(capacity)
        require_memory_for_priorities(capacity)
        self.rng = np.random.default_rng(seed)
        self.on_device, self.changes = False, NOTHING
        self.priority_exponent = priority_exponent
        self.importance_exponent = importance_exponent
        self._first_importance_exponent = importance_exponent
        self._tree = SumTree(capacity)
        self._capacity = capacity
        self._size = 0  # rows that have a priority
        self._highest_priority = 1.0  # of all priorities ever given
        self._limit = largest_priority(capacity)

    @property
    def nbytes(self) -> int:
        """Bytes used by the priorities."""
        return self._tree.nbytes

    def draw(self, batch_size: int, size: int) -> Array:
        """Return one number from each of the segments [0, 1), [1, 2), ... `[B]`."""
        return one_of_each_segment(self.rng, batch_size)

    def pick(self, draws: ArrayOrTensor, storage: Storage) -> tuple[ArrayOrTensor, Tensor, Mapping[str, Tensor]]:
        """Return one row from each of B equal segments of the total priority, and importance weights `[B]`.

        The weights are `(N · P(i)) ** -β` divided by the highest of the batch; N and the total cancel, which leaves
        `(lowest p of the batch / p) ** β`.
        """
        numbers = host_array(draws)
        indices = self._tree.find(numbers * (self._tree.total / len(numbers)))
        scaled = self._tree.get(indices)
        weights = (np.minimum.reduce(scaled) / scaled) ** self.importance_exponent
        return indices, torch.from_numpy(weights.astype(np.float32)), NOTHING

    def enter(self, first: int, count: int) -> None:
        """Give `count` new rows from `first` on, wrapping around to 0, the highest priority so far."""
        rows = (first + np.arange(min(count, self._capacity))) % self._capacity
        self._tree.set(rows, self._scaled(np.full(len(rows), self._highest_priority)))
        self._size = min(self._size + count, self._capacity)

    def update(self, indices: Tensor, priorities: Tensor) -> None:
        """Give rows `[B]` new priorities `[B]`; if a row occurs twice, the last priority wins.

        Raises:
            ConfigError: a priority is negative, not finite or too large to sum up, a row is not in the replay, or
                the shapes differ. Nothing is changed then.
        """
        if indices.shape != priorities.shape or indices.ndim != 1:
            raise ConfigError(f"needs one priority per row, got {tuple(priorities.shape)} for {tuple(indices.shape)}")
        if len(indices) == 0:
            return
        if priorities.dtype is torch.bfloat16:  # NumPy has no bfloat16
            priorities = priorities.float()
        rows, given = indices.long().numpy(force=True), priorities.numpy(force=True)
        highest = float(np.maximum.reduce(given))
        if not (np.minimum.reduce(given) >= 0 and highest <= self._limit):  # false for NaN too
            wide = given.astype(np.float64)  # in float32 the limit would be infinite
            at = int(np.flatnonzero(~((wide >= 0) & (wide <= self._limit)))[0])
            raise ConfigError(
                f"a priority must be a finite number from 0 to {self._limit:.0e}, got {given[at]} for row {rows[at]}"
            )
        if np.maximum.reduce(rows.view(np.uint64)) >= self._size:  # as unsigned, a negative row is huge
            raise ConfigError(
                f"rows {rows.min()} to {rows.max()} were given priorities, the replay holds 0 to {self._size - 1}"
            )
        self._tree.set(rows, self._scaled(given))
        self._highest_priority = max(self._highest_priority, highest)

    def anneal(self, fraction: float) -> None:
        """Set β, which grows linearly from its first value to 1, for a fraction of the training."""
        self.importance_exponent = annealed(self._first_importance_exponent, fraction)

    def get_state(self, size: int) -> State:
        """Return the generator, the tree's leaves (its sums follow from them), the highest priority and β."""
        return {
            "rng": self.rng.bit_generator.state,
            "leaves": self._tree.get(np.arange(size)),  # float64, (priority + ε)^α
            "highest_priority": self._highest_priority,
            "importance_exponent": self.importance_exponent,
        }

    def set_state(self, state: State, size: int) -> None:
        """Restore what `get_state` returned, for `size` rows.

        Raises:
            RunError: something is missing or invalid.
        """
        restore_generator(self.rng, state, "rng")
        leaves, self._highest_priority, self.importance_exponent = priorities_from(state, size, self._limit)
        self._tree, self._size = SumTree(self._capacity), size
        self._tree.set(np.arange(size), leaves)

    def _scaled(self, priorities: Array) -> NDArray[np.float64]:
        scaled: NDArray[np.float64] = np.add(priorities, PRIORITY_OFFSET, dtype=np.float64) ** self.priority_exponent
        return scaled


class PrioritizedReplayBuffer(ReplayBuffer):
    """A `ReplayBuffer` sampled by `Priorities`; see there for the arguments."""

    def __init__(
        self,
        capacity: int,
        seed: int | np.random.Generator = 0,
        priority_exponent: float = 0.5,
        importance_exponent: float = 0.4,
    ) -> None:
        self.priorities = Priorities(capacity, seed, priority_exponent, importance_exponent)
        super().__init__(capacity, sampler=self.priorities)


def one_of_each_segment(rng: np.random.Generator, batch_size: int) -> NDArray[np.float64]:
    """Return one number from each of the segments [0, 1), [1, 2), ... `[B]`."""
    draws: NDArray[np.float64] = rng.random(batch_size)
    draws += np.arange(batch_size, dtype=np.float64)
    return draws


def require_exponents(priority_exponent: float, importance_exponent: float) -> None:
    """Raise `ConfigError` unless α and β are in [0, 1]."""
    for name, value in (("priority_exponent", priority_exponent), ("importance_exponent", importance_exponent)):
        if not 0 <= value <= 1:
            raise ConfigError(f"{name} = {value}: needs a number from 0 to 1")


def largest_priority(capacity: int) -> float:
    """Return the largest priority with which the sum of `capacity` priorities can't overflow."""
    return sys.float_info.max / (2 * capacity)


def annealed(first: float, fraction: float) -> float:
    """Return β after a fraction of the training: linear from its first value to 1."""
    return first + (1.0 - first) * min(max(fraction, 0.0), 1.0)


def priorities_from(state: State, rows: int, limit: float) -> tuple[Array, float, float]:
    """Return from a saved state (priority + ε)^α of each of `rows` rows, the highest priority ever given, and β.

    Raises:
        RunError: something is missing or invalid.
    """
    leaves = array_from(state, "leaves", np.empty(rows))
    if not ((leaves >= 0) & (leaves <= limit)).all():
        raise RunError(f"the replay has a priority below 0 or above {limit:.0e}")
    if rows and not leaves.any():
        raise RunError("every priority of the replay is 0, so none of its rows could be drawn")
    return leaves, number_from(state, "highest_priority", 0, limit), number_from(state, "importance_exponent", 0, 1)
