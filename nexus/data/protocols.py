"""The two parts of a replay: a storage keeps transitions, a sampler says which of them are drawn.

Any storage goes with any sampler. A new one is a class in a file of its own that does what is written here, and a line
in `training/replays.py`.
"""

from collections.abc import Mapping
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from nexus.core.state import Series, State
from nexus.core.types import Array, Transitions

__all__ = ["NOTHING", "Numbers", "Sampler", "Storage", "array_of", "tensor_on"]

Numbers: TypeAlias = Array | Tensor
"""`[B]`, an array on the host or a tensor on a device; whoever needs one of the two takes both."""

NOTHING: Mapping[str, Tensor] = {}


class Storage(Protocol):
    """Keeps the last `capacity` transitions: the one that was added as number `i` is in row `i` modulo the capacity."""

    @property
    def capacity(self) -> int:
        """How many rows there are."""

    @property
    def device(self) -> torch.device:
        """Where `gather` leaves a batch."""

    @property
    def on_device(self) -> bool:
        """True if `gather` is operations on tensors of fixed shapes that wait for nothing, as a CUDA graph needs."""

    @property
    def added(self) -> int:
        """How many transitions were ever written, the overwritten ones too."""

    @property
    def columns(self) -> Mapping[str, Array]:
        """What each row has, `[capacity, ...]` by name, in main memory; none before the first row.

        Names are those of `Transitions` and of its extras. Where states are kept elsewhere, numbers stand for them.
        """

    @property
    def reads(self) -> Mapping[str, Tensor]:
        """Tensors on a device that `gather` reads; only a restored state replaces them."""

    @property
    def nbytes(self) -> int:
        """Bytes that all of it takes now, here and on a device."""

    def remember(self, states: Array, next_states: Array, begins: Array, valid: Array) -> tuple[Array, Array]:
        """Return the states and next states `[E, *obs]` of a vector step, or numbers `[E]` that stand for them."""

    def write(self, transitions: Transitions) -> None:
        """Keep transitions, `K` of them, at least one; of more than `capacity` the last ones stay."""

    def gather(self, indices: Numbers, weights: Tensor) -> dict[str, Tensor]:
        """Return the transitions in these rows `[B]` as a batch, with weights `[B]` that somebody else chose."""

    def seal(self) -> None:
        """Take care that what is stored now never changes again and can be saved."""

    def get_state(self) -> State:
        """Return all but what `series` saves in chunks; to be called after `seal`."""

    def set_state(self, state: State) -> None:
        """Take back what `get_state` gave; the `series` must then bring the rest.

        Raises:
            ConfigError: memory is too small.
            RunError: something is missing or impossible.
        """

    def series(self, state_shape: tuple[int, ...], state_dtype: DTypeLike, action_dim: int) -> tuple[Series, ...]:
        """Return what a checkpoint saves in chunks, in the order in which it is put back.

        Args:
            state_shape: shape of a state, which what is put back must have.
            state_dtype: what states are made of.
            action_dim: actions `A`, which masks may tell of.
        """


class Sampler(Protocol):
    """Says which rows are drawn, with which weights, and what the batch has in place of what is stored."""

    @property
    def on_device(self) -> bool:
        """True if `pick` and `update` are operations on tensors of fixed shapes that wait for nothing.

        A CUDA graph may then hold them, and `pick` puts nothing in the place of columns.
        """

    @property
    def changes(self) -> Mapping[str, Tensor]:
        """Tensors on a device that `update` changes in place."""

    @property
    def nbytes(self) -> int:
        """Bytes that it takes, here and on a device."""

    def draw(self, batch_size: int, size: int) -> Array:
        """Return the random numbers `[B]` that a batch takes out of `size` rows, 0 to `size - 1`."""

    def pick(self, draws: Numbers, storage: Storage) -> tuple[Numbers, Tensor, Mapping[str, Tensor]]:
        """Return rows `[B]`, weights `[B]`, and what takes the place of columns of the batch, by name."""

    def enter(self, first: int, count: int) -> None:
        """Take note of `count` new rows from `first` on, and from 0 on behind the last one."""

    def update(self, indices: Tensor, priorities: Tensor) -> None:
        """Take note of the new priorities `[B]` of rows `[B]`."""

    def anneal(self, fraction: float) -> None:
        """Take note of how far the training has come, from 0 to 1."""

    def get_state(self, size: int) -> State:
        """Return all that is to be saved of it, its generator as `rng`, for so many rows."""

    def set_state(self, state: State, size: int) -> None:
        """Take back what `get_state` gave, for so many rows.

        Raises:
            RunError: something is missing or impossible.
        """


def array_of(numbers: Numbers) -> Array:
    """Return numbers on the host."""
    return numbers if isinstance(numbers, np.ndarray) else numbers.numpy(force=True)


def tensor_on(device: torch.device, numbers: Numbers) -> Tensor:
    """Return numbers on a device."""
    tensor = torch.from_numpy(numbers) if isinstance(numbers, np.ndarray) else numbers
    return tensor if tensor.device == device else tensor.to(device, non_blocking=True)
