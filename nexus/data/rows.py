"""Transitions as rows of preallocated arrays: the plain storage, and the row store of those with separate frames."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import DTypeLike, NDArray
from torch import Tensor, from_numpy

from nexus.core.errors import ConfigError, RunError
from nexus.core.state import Series, State, number_from, value_from
from nexus.core.types import Array, Transitions
from nexus.data.memory import CPU, replay_bytes, require_memory
from nexus.data.protocols import NOTHING, ArrayOrTensor, host_array
from nexus.data.row_checks import (
    COLUMN_DTYPES,
    columns_of,
    extras_from,
    extras_of,
    require_capacity,
    require_columns,
    require_fitting_rows,
    state_of_extras,
)

__all__ = ["Rows", "pieces"]


class Rows:
    """The last `capacity` transitions, with a ring buffer for each column.

    Args:
        capacity: transitions kept; the oldest is overwritten.

    Raises:
        ConfigError: the capacity is below 1, or (at the first transition, when the shape of a state is
            known) the arrays would not fit into memory.
    """

    def __init__(self, capacity: int) -> None:
        require_capacity(capacity)
        self.capacity = capacity
        self.device, self.on_device, self.reads = CPU, False, NOTHING
        self.added = 0  # ever, including overwritten ones
        self.columns: dict[str, Array] = {}  # [capacity, ...] by name, from the first write on
        self.extras: dict[str, Array] = {}  # [0, ...] by name, the extra columns
        self._holds_dones: bool | None = None  # known from the first write on

    def remember(
        self, states: Array, next_states: Array, begins: NDArray[np.bool_], valid: NDArray[np.bool_]
    ) -> tuple[Array, Array]:
        """Return the states unchanged: here the accumulator handles them directly (see `Frames.remember`)."""
        return states, next_states

    def write(self, transitions: Transitions, holds_dones: bool = False) -> None:
        """Write transitions, `K` rows at once; of more than `capacity` rows only the last ones are kept.

        Args:
            transitions: `K` of them.
            holds_dones: whether their discounts are 1 - done; the same for all rows of a replay.
        """
        if transitions.next_states.shape != transitions.states.shape:
            state, next_state = transitions.states.shape[1:], transitions.next_states.shape[1:]
            raise ConfigError(f"a next_state needs the shape of its state, {state}, got {next_state}")
        if self.columns and holds_dones is not self._holds_dones:
            raise ConfigError("a replay is filled either by push or by add, not by both: their discounts differ")
        require_fitting_rows(transitions, self.columns, self.extras)
        given, count = columns_of(transitions), len(transitions)
        for name, values in given.items():
            if len(values) != count:
                raise ConfigError(f"{name}: got {len(values)} for {count} transitions")
        if not self.columns:
            extras = extras_of(transitions)
            self.columns = self._allocated(given, extras)
            self.extras, self._holds_dones = extras, holds_dones
        skipped = max(count - self.capacity, 0)
        for rows, part in pieces(self.added + skipped, count - skipped, self.capacity, skipped):
            for name, values in self.columns.items():
                values[rows] = given[name][part]
        self.added += count

    def gather(self, indices: ArrayOrTensor, weights: Tensor) -> dict[str, Tensor]:
        """Return the transitions in these rows `[B]` as tensors, with weights `[B]` chosen by the caller."""
        at, batch = host_array(indices), {}
        for name, values in self.columns.items():  # a comprehension would cost one more call per batch
            batch[name] = from_numpy(values.take(at, 0))
        if self._holds_dones:
            batch["dones"] = 1.0 - batch.pop("discounts")
        batch["weights"], batch["indices"] = weights, from_numpy(at)
        return batch

    @property
    def nbytes(self) -> int:
        """Bytes used by the arrays, 0 before the first transition."""
        return sum(values.nbytes for values in self.columns.values())

    def seal(self) -> None:
        """Do nothing: a stored row never changes (see `Frames.seal`)."""

    def copied(self, first: int, last: int) -> dict[str, Array]:
        """Copy the columns of transitions number `first` to `last - 1`, which must still be stored."""
        at = np.arange(first, last) % self.capacity
        return {name: values.take(at, axis=0) for name, values in self.columns.items()}

    def put_back(self, first: int, columns: Mapping[str, Array]) -> None:
        """Restore rows from number `first` on.

        Raises:
            ConfigError: memory is too small.
            RunError: a column is unknown or missing, or does not fit the others.
        """
        require_columns(columns, self.columns, self.extras, self.capacity)
        if not self.columns:
            self.columns = self._allocated(columns, self.extras)
        at = np.arange(first, first + len(columns["actions"])) % self.capacity
        for name, values in columns.items():
            self.columns[name][at] = values

    def get_state(self) -> State:
        """Return everything but the rows, which `copied` returns."""
        return {"added": self.added, "holds_dones": self._holds_dones, **state_of_extras(self.extras)}

    def set_state(self, state: State) -> None:
        """Restore what `get_state` returned; `put_back` must then restore the rows.

        Raises:
            RunError: something is missing or invalid.
        """
        self.added = value_from(state, "added", int)
        number_from(state, "added", low=0)
        self._holds_dones = None if self.added == 0 else value_from(state, "holds_dones", bool)
        self.extras, self.columns = extras_from(state), {}

    def series(self, state_shape: tuple[int, ...], state_dtype: DTypeLike, action_dim: int) -> tuple[Series, ...]:
        """Return the rows as a series that a checkpoint saves in chunks."""

        def put(first: int, last: int, wanted: int, columns: Mapping[str, Array]) -> None:
            if "states" not in columns or columns["states"].shape != (last - first, *state_shape):
                raise RunError(f"it does not hold states of shape {state_shape}")
            self.put_back(wanted, {name: values[wanted - first :] for name, values in columns.items()})

        row_bytes = replay_bytes(1, state_shape, state_dtype) + 2 * action_dim + bytes_beside(self.extras)
        first = max(self.added - self.capacity, 0)
        return (Series("rows", first, self.added, self.capacity, 2 * row_bytes, self.copied, put),)

    def _allocated(self, given: Mapping[str, Array], extras: Mapping[str, Array]) -> dict[str, Array]:
        """Return empty columns for rows like the given ones."""
        states = given["states"]
        require_memory(self.capacity, states.shape[1:], states.dtype, bytes_beside(extras))
        dtypes = {**COLUMN_DTYPES, **{name: like.dtype for name, like in extras.items()}}
        return {
            name: np.empty((self.capacity, *values.shape[1:]), dtypes.get(name, states.dtype))
            for name, values in given.items()
        }


def bytes_beside(extras: Mapping[str, Array]) -> int:
    """Return the bytes that extra columns `[0, ...]` take per row."""
    return sum(math.prod(like.shape[1:]) * like.itemsize for like in extras.values())


def pieces(first: int, count: int, capacity: int, skipped: int = 0) -> list[tuple[slice, slice]]:
    """Return the row and item slices at which `count` items from number `first` on go into a ring buffer.

    Items are counted from `skipped` on; there are at most `capacity` of them.
    """
    start = first % capacity
    until = min(count, capacity - start)
    found = [(slice(start, start + until), slice(skipped, skipped + until))]
    return found if until == count else [*found, (slice(0, count - until), slice(skipped + until, skipped + count))]
