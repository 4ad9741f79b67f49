"""Uniform sampling (Lin 1992)."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, ones

from nexus.core.state import State, restore_generator
from nexus.core.types import Array
from nexus.data.memory import CPU
from nexus.data.protocols import NOTHING, ArrayOrTensor, Storage, tensor_on

__all__ = ["Uniform"]


class Uniform:
    """Draws rows uniformly with replacement; the methods for priorities do nothing.

    Args:
        seed: seed of the draws, or a generator.
        device: the device on which the storage gathers batches.
    """

    def __init__(self, seed: int | np.random.Generator = 0, device: torch.device = CPU) -> None:
        self.rng = np.random.default_rng(seed)
        self.on_device, self.changes, self.nbytes = True, NOTHING, 0
        self._elsewhere = None if device.type == "cpu" else device

    def draw(self, batch_size: int, size: int) -> Array:
        """Return random rows `[B]` below `size`."""
        return self.rng.integers(size, size=batch_size)

    def pick(self, draws: ArrayOrTensor, storage: Storage) -> tuple[ArrayOrTensor, Tensor, Mapping[str, Tensor]]:
        """Return the rows `[B]` as drawn, and weights of 1."""
        if self._elsewhere is None:
            return draws, ones(len(draws)), NOTHING
        rows = tensor_on(self._elsewhere, draws)
        return rows, ones(len(rows), device=self._elsewhere), NOTHING

    def enter(self, first: int, count: int) -> None:
        """Do nothing: new rows need no priority."""

    def update(self, indices: Tensor, priorities: Tensor) -> None:
        """Do nothing: there are no priorities."""

    def anneal(self, fraction: float) -> None:
        """Do nothing: there is no β."""

    def get_state(self, size: int) -> State:
        """Return the generator."""
        return {"rng": self.rng.bit_generator.state}

    def set_state(self, state: State, size: int) -> None:
        """Restore the generator.

        Raises:
            RunError: it is missing or not a state of such a generator.
        """
        restore_generator(self.rng, state, "rng")
