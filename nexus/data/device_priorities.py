"""Rows are drawn by priorities that are on a device."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from nexus.core.errors import ConfigError
from nexus.core.state import State, restore_generator
from nexus.core.types import Array
from nexus.data.memory import CPU
from nexus.data.prioritized_replay_buffer import (
    PRIORITY_OFFSET,
    annealed,
    largest_priority,
    one_of_each_segment,
    priorities_from,
    require_exponents,
)
from nexus.data.protocols import NOTHING, Numbers, Storage, tensor_on

__all__ = ["DevicePriorities"]


class DevicePriorities:
    """Draws rows in proportion to `(priority + PRIORITY_OFFSET) ** priority_exponent` (Schaul et al. 2016).

    As `Priorities` does, from https://arxiv.org/abs/1511.05952, but that no number comes back to the host.
    So priorities are not checked: one that is no number spoils all draws, and shows in the loss. A running sum
    over all of them, made anew for each draw, takes the place of the sum tree: on a device it is one pass over some
    megabytes.

    Args:
        capacity: rows.
        seed: of the draws, or the generator itself.
        priority_exponent: α, from 0 (uniform) to 1 (in proportion to the priority).
        importance_exponent: β at the start, from 0 (no correction) to 1 (full correction).
        device: where the priorities are.

    Raises:
        ConfigError: an exponent is not in [0, 1], or the device has no float64, which the sums need.
    """

    def __init__(
        self,
        capacity: int,
        seed: int | np.random.Generator = 0,
        priority_exponent: float = 0.5,
        importance_exponent: float = 0.4,
        device: torch.device = CPU,
    ) -> None:
        require_exponents(priority_exponent, importance_exponent)
        if device.type == "mps":
            raise ConfigError("prioritized: replay_store device needs float64, which mps lacks; use compressed")
        self.rng = np.random.default_rng(seed)
        self.on_device = True
        self.capacity = capacity
        self.priority_exponent = priority_exponent
        self.importance_exponent = importance_exponent
        self._first_importance_exponent = importance_exponent
        self._scaled = torch.zeros(capacity, dtype=torch.float64, device=device)  # 0 where no row is yet
        self._highest = torch.ones((), dtype=torch.float64, device=device)  # of all priorities ever given
        self._beta = torch.full((), importance_exponent, dtype=torch.float64, device=device)

    @property
    def changes(self) -> dict[str, Tensor]:
        """What `update` changes."""
        return {"scaled_priorities": self._scaled, "highest_priority": self._highest}

    @property
    def nbytes(self) -> int:
        """Bytes that the priorities take on the device."""
        return self._scaled.nbytes

    def draw(self, batch_size: int, size: int) -> Array:
        """Return one number from each of the segments [0, 1), [1, 2), ... `[B]`."""
        return one_of_each_segment(self.rng, batch_size)

    def pick(self, draws: Numbers, storage: Storage) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """Return one row from each of B equal segments of the total priority, and importance weights `[B]`.

        The weights are `(N · P(i)) ** -β` over the highest of the batch: there N and the total cancel.
        """
        running = self._scaled.cumsum(0)
        total = running[-1]
        masses = tensor_on(total.device, draws) * (total / len(draws))
        # Below the total, whatever rounding did: there the sum rose at a row, which is then not of priority 0.
        masses = torch.minimum(masses, torch.nextafter(total, torch.zeros_like(total)))
        # Where a priority is NaN nothing passes, and row 0 is drawn, which is there: no device may read out of range.
        indices = torch.searchsorted(running, masses, right=True).remainder_(self.capacity)
        scaled = self._scaled.index_select(0, indices)
        weights = (scaled.amin() / scaled) ** self._beta
        return indices, weights.float(), NOTHING

    def enter(self, first: int, count: int) -> None:
        """Give `count` new rows from `first` on, and from 0 on behind the last one, the highest priority so far."""
        entry = self._power(self._highest)
        until = min(first + count, self.capacity)
        self._scaled[first:until].copy_(entry)
        self._scaled[: min(first + count - until, self.capacity)].copy_(entry)

    def update(self, indices: Tensor, priorities: Tensor) -> None:
        """Give rows `[B]` new priorities `[B]`; where a row comes twice, one of the two stays."""
        rows, given = (tensor_on(self._scaled.device, numbers) for numbers in (indices, priorities.double()))
        self._scaled.index_put_((rows,), self._power(given))
        self._highest.copy_(torch.maximum(self._highest, given.amax()))

    def anneal(self, fraction: float) -> None:
        """Move β in a straight line from its first value to 1, by the fraction of the training that is over."""
        self.importance_exponent = annealed(self._first_importance_exponent, fraction)
        self._beta.fill_(self.importance_exponent)

    def get_state(self, size: int) -> State:
        """Return what `Priorities` does."""
        return {
            "rng": self.rng.bit_generator.state,
            "leaves": self._scaled[:size].numpy(force=True).copy(),
            "highest_priority": float(self._highest),
            "importance_exponent": self.importance_exponent,
        }

    def set_state(self, state: State, size: int) -> None:
        """Take back what `get_state` gave, for so many rows.

        Raises:
            RunError: something is missing or impossible.
        """
        restore_generator(self.rng, state, "rng")
        leaves, highest, exponent = priorities_from(state, size, largest_priority(self.capacity))
        self._scaled.zero_()
        self._scaled[:size].copy_(torch.from_numpy(leaves))
        self._highest.fill_(highest)
        self.importance_exponent = exponent
        self._beta.fill_(exponent)

    def _power(self, priorities: Tensor) -> Tensor:
        return (priorities + PRIORITY_OFFSET) ** self.priority_exponent
