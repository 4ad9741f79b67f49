"""Prioritized sampling with priorities stored on a device."""

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
from nexus.data.protocols import NOTHING, ArrayOrTensor, Storage, tensor_on

__all__ = ["DevicePriorities"]


class DevicePriorities:
    """Draws rows in proportion to `(priority + PRIORITY_OFFSET) ** priority_exponent` (Schaul et al. 2016).

    Like `Priorities`, from https://arxiv.org/abs/1511.05952, except that no number is copied back to the host.
    Priorities are therefore not validated: a NaN invalidates all draws, and shows in the loss. A running sum over all
    priorities, recomputed for each draw, replaces the sum tree: on a device that is one pass over some megabytes.

    Args:
        capacity: rows.
        seed: seed of the draws, or a generator.
        priority_exponent: α, from 0 (uniform) to 1 (proportional to the priority).
        importance_exponent: β at the start, from 0 (no correction) to 1 (full correction).
        device: device of the priorities.

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
        self._scaled = torch.zeros(capacity, dtype=torch.float64, device=device)  # 0 for rows not yet written
        self._highest = torch.ones((), dtype=torch.float64, device=device)  # of all priorities ever given
        self._beta = torch.full((), importance_exponent, dtype=torch.float64, device=device)

    @property
    def changes(self) -> dict[str, Tensor]:
        """The tensors that `update` changes."""
        return {"scaled_priorities": self._scaled, "highest_priority": self._highest}

    @property
    def nbytes(self) -> int:
        """Bytes that the priorities take on the device."""
        return self._scaled.nbytes

    def draw(self, batch_size: int, size: int) -> Array:
        """Return one number from each of the segments [0, 1), [1, 2), ... `[B]`."""
        return one_of_each_segment(self.rng, batch_size)

    def pick(self, draws: ArrayOrTensor, storage: Storage) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """Return one row from each of B equal segments of the total priority, and importance weights `[B]`.

        The weights are `(N · P(i)) ** -β` divided by the highest of the batch, where N and the total cancel.
        """
        running = self._scaled.cumsum(0)
        total = running[-1]
        masses = tensor_on(total.device, draws) * (total / len(draws))
        # Clamped below the total against rounding: there the sum rose at a row, whose priority is then not 0.
        masses = torch.minimum(masses, torch.nextafter(total, torch.zeros_like(total)))
        # With a NaN priority nothing passes and row 0 is drawn, which exists: a device must not read out of range.
        indices = torch.searchsorted(running, masses, right=True).remainder_(self.capacity)
        scaled = self._scaled.index_select(0, indices)
        weights = (scaled.amin() / scaled) ** self._beta
        return indices, weights.float(), NOTHING

    def enter(self, first: int, count: int) -> None:
        """Give `count` new rows from `first` on, wrapping around to 0, the highest priority so far."""
        entry = self._power(self._highest)
        until = min(first + count, self.capacity)
        self._scaled[first:until].copy_(entry)
        self._scaled[: min(first + count - until, self.capacity)].copy_(entry)

    def update(self, indices: Tensor, priorities: Tensor) -> None:
        """Give rows `[B]` new priorities `[B]`; if a row occurs twice, either priority may stay."""
        rows, given = (tensor_on(self._scaled.device, numbers) for numbers in (indices, priorities.double()))
        self._scaled.index_put_((rows,), self._power(given))
        self._highest.copy_(torch.maximum(self._highest, given.amax()))

    def anneal(self, fraction: float) -> None:
        """Set β, which grows linearly from its first value to 1, for a fraction of the training."""
        self.importance_exponent = annealed(self._first_importance_exponent, fraction)
        self._beta.fill_(self.importance_exponent)

    def get_state(self, size: int) -> State:
        """Return the same state as `Priorities`."""
        return {
            "rng": self.rng.bit_generator.state,
            "leaves": self._scaled[:size].numpy(force=True).copy(),
            "highest_priority": float(self._highest),
            "importance_exponent": self.importance_exponent,
        }

    def set_state(self, state: State, size: int) -> None:
        """Restore what `get_state` returned, for `size` rows.

        Raises:
            RunError: something is missing or invalid.
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
