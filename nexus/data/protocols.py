"""The two parts of a replay: a storage keeps transitions, a sampler chooses which of them are drawn; and what fills it.

Any storage works with any sampler. To add one, write a class in a new file that implements the protocol here, and add a
line in `training/replays.py`.
"""

from collections.abc import Mapping
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from nexus.core.state import Series, State
from nexus.core.types import Array, Transitions

__all__ = ["NOTHING", "Accumulator", "ArrayOrTensor", "Sampler", "Storage", "host_array", "tensor_on"]

ArrayOrTensor: TypeAlias = Array | Tensor
"""`[B]`, an array on the host or a tensor on a device; functions that need one of the two accept both."""

NOTHING: Mapping[str, Tensor] = {}


class Accumulator(Protocol):
    """Turns vector steps into the transitions that are stored; see `NStepAccumulator` for the arguments."""

    @property
    def num_envs(self) -> int:
        """Environments `E`."""

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
        """Add one vector step and return the transitions it completed, oldest first."""

    def flush(
        self, which: NDArray[np.bool_], next_states: Array, next_action_masks: Array | None = None
    ) -> Transitions:
        """Close what is open of some environments `[E]` as a truncation and return its transitions."""

    def get_state(self) -> State:
        """Return what is open."""

    def set_state(self, state: State) -> None:
        """Restore what `get_state` returned.

        Raises:
            RunError: something is missing or does not fit.
        """


class Storage(Protocol):
    """Keeps the last `capacity` transitions: transition number `i` is in row `i` modulo the capacity."""

    @property
    def capacity(self) -> int:
        """Number of rows."""

    @property
    def device(self) -> torch.device:
        """The device of batches from `gather`."""

    @property
    def on_device(self) -> bool:
        """True if `gather` is asynchronous operations on tensors of fixed shapes, as a CUDA graph requires."""

    @property
    def added(self) -> int:
        """Number of transitions ever written, including overwritten ones."""

    @property
    def columns(self) -> Mapping[str, Array]:
        """The columns of the rows, `[capacity, ...]` by name, in main memory; empty before the first row.

        Names are those of `Transitions` and of its extras. If states are stored elsewhere, numbers refer to them.
        """

    @property
    def reads(self) -> Mapping[str, Tensor]:
        """Tensors on a device that `gather` reads; only a restored state replaces them."""

    @property
    def nbytes(self) -> int:
        """Bytes currently used, on the host and on a device."""

    def remember(self, states: Array, next_states: Array, begins: Array, valid: Array) -> tuple[Array, Array]:
        """Return the states and next states `[E, *obs]` of a vector step, or numbers `[E]` that refer to them."""

    def write(self, transitions: Transitions) -> None:
        """Store `K` transitions, at least one; of more than `capacity` only the last ones are kept."""

    def gather(self, indices: ArrayOrTensor, weights: Tensor) -> dict[str, Tensor]:
        """Return the transitions in these rows `[B]` as a batch, with weights `[B]` from the sampler."""

    def seal(self) -> None:
        """Make sure that what is stored now never changes again and can be saved."""

    def get_state(self) -> State:
        """Return everything but what `series` saves in chunks; call `seal` first."""

    def set_state(self, state: State) -> None:
        """Restore what `get_state` returned; the `series` must then restore the rest.

        Raises:
            ConfigError: memory is too small.
            RunError: something is missing or invalid.
        """

    def series(self, state_shape: tuple[int, ...], state_dtype: DTypeLike, action_dim: int) -> tuple[Series, ...]:
        """Return what a checkpoint saves in chunks, in the order in which it is restored.

        Args:
            state_shape: shape of a state, required of restored rows.
            state_dtype: dtype of states.
            action_dim: number of actions `A`, for masks.
        """


class Sampler(Protocol):
    """Chooses which rows are drawn, their weights, and which columns of the batch replace the stored ones."""

    @property
    def on_device(self) -> bool:
        """True if `pick` and `update` are asynchronous operations on tensors of fixed shapes.

        A CUDA graph can then record them; `pick` must replace no columns.
        """

    @property
    def changes(self) -> Mapping[str, Tensor]:
        """Tensors on a device that `update` changes in place."""

    @property
    def nbytes(self) -> int:
        """Bytes used, on the host and on a device."""

    def draw(self, batch_size: int, size: int) -> Array:
        """Return the random numbers `[B]` with which `pick` chooses a batch from rows 0 to `size - 1`."""

    def pick(self, draws: ArrayOrTensor, storage: Storage) -> tuple[ArrayOrTensor, Tensor, Mapping[str, Tensor]]:
        """Return rows `[B]`, weights `[B]`, and columns that replace those of the batch, by name."""

    def enter(self, first: int, count: int) -> None:
        """Record `count` new rows from `first` on, wrapping around to 0."""

    def update(self, indices: Tensor, priorities: Tensor) -> None:
        """Record new priorities `[B]` of rows `[B]`."""

    def anneal(self, fraction: float) -> None:
        """Record the fraction of the training completed, from 0 to 1."""

    def get_state(self, size: int) -> State:
        """Return its state for `size` rows, including its generator as `rng`."""

    def set_state(self, state: State, size: int) -> None:
        """Restore what `get_state` returned, for `size` rows.

        Raises:
            RunError: something is missing or invalid.
        """


def host_array(numbers: ArrayOrTensor) -> Array:
    """Return numbers on the host."""
    return numbers if isinstance(numbers, np.ndarray) else numbers.numpy(force=True)


def tensor_on(device: torch.device, numbers: ArrayOrTensor) -> Tensor:
    """Return numbers on a device."""
    tensor = torch.from_numpy(numbers) if isinstance(numbers, np.ndarray) else numbers
    return tensor if tensor.device == device else tensor.to(device, non_blocking=True)
