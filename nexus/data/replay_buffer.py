"""Uniform experience replay (Lin 1992; Mnih et al. 2015) in preallocated arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from nexus.core.errors import ConfigError, RunError
from nexus.core.state import Series, State, number_from, restore_generator, value_from
from nexus.core.types import Array, Batch, Transitions
from nexus.data.memory import replay_bytes, require_memory

__all__ = ["ReplayBuffer"]

COLUMNS = tuple(field.name for field in fields(Transitions))
REQUIRED = frozenset({"states", "actions", "rewards", "discounts", "next_states"})
DTYPES = {
    "actions": np.int64,
    "rewards": np.float32,
    "discounts": np.float32,
    "action_masks": np.bool_,
    "next_action_masks": np.bool_,
}  # states keep their own

Row = tuple[Array, int, float, Array, bool]


class ReplayBuffer:
    """The last `capacity` transitions, sampled uniformly with replacement.

    Filled either by `push`, one seed-style transition at a time with its `done` flag, or by `add`, many
    folded transitions with their discounts; never by both.

    Args:
        capacity: transitions kept; the oldest is overwritten.
        seed: of the sampling, or the generator itself.

    Raises:
        ConfigError: the capacity is below 1, or (at the first transition, when the shape of a state is
            known) the arrays would not fit into memory.
    """

    def __init__(self, capacity: int, seed: int | np.random.Generator = 0) -> None:
        if capacity < 1:
            raise ConfigError(f"replay capacity = {capacity}: needs at least 1 transition")
        self.capacity = capacity
        self.columns: dict[str, Array] = {}  # [capacity, ...] by the names of `Transitions`, from the first write on
        self._rng = np.random.default_rng(seed)
        self._size = 0
        self._added = 0  # ever, the overwritten ones too
        self._cursor = 0
        self._holds_dones: bool | None = None  # known from the first write on

    def __len__(self) -> int:
        return self._size

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
        """Store one transition as it comes from `env.step`.

        `done` means terminated: what follows is worth nothing. A truncated episode still has a future, so
        pass False there. The batch then holds `dones`, and the agent brings its own γ.
        The masks `[A]` tell the legal actions in either state; give both, each time or never.
        """
        row = Transitions(
            states=np.asarray(state)[None],
            actions=np.asarray([action], np.int64),
            rewards=np.asarray([reward], np.float32),
            discounts=np.asarray([0.0 if done else 1.0], np.float32),
            next_states=np.asarray(next_state)[None],
            action_masks=None if action_masks is None else np.asarray(action_masks, bool)[None],
            next_action_masks=None if next_action_masks is None else np.asarray(next_action_masks, bool)[None],
        )
        self._write(row, holds_dones=True)

    def remember(
        self, states: Array, next_states: Array, begins: NDArray[np.bool_], valid: NDArray[np.bool_]
    ) -> tuple[Array, Array]:
        """Return the states: here they go through the accumulator as they are (see `FrameReplay.remember`)."""
        return states, next_states

    def add(self, transitions: Transitions) -> None:
        """Store folded transitions, `K` rows at once; of more than `capacity` rows the last ones stay."""
        if len(transitions):
            self._write(transitions, holds_dones=False)

    def seal(self) -> None:
        """Do nothing: a row that is stored never changes (see `FrameReplay.seal`)."""

    def sample(self, batch_size: int) -> Batch:
        """Return `batch_size` transitions as tensors, drawn uniformly with replacement (see `Batch`).

        Raises:
            ConfigError: the replay is empty.
        """
        if self._size == 0:
            raise ConfigError("can't sample from an empty replay: push a transition first")
        return self.gather(self._rng.integers(self._size, size=batch_size), torch.ones(batch_size))

    def gather(self, indices: NDArray[np.int64], weights: torch.Tensor) -> Batch:
        """Return the transitions in these rows `[B]` as tensors, with weights `[B]` that the caller chose."""
        batch = {name: torch.from_numpy(values.take(indices, axis=0)) for name, values in self.columns.items()}
        if self._holds_dones:
            batch["dones"] = 1.0 - batch.pop("discounts")
        return {**batch, "weights": weights, "indices": torch.from_numpy(indices)}

    def next_rows(self, count: int) -> NDArray[np.int64]:
        """Return the rows that the next `count` transitions will take; of more than `capacity`, the last ones'."""
        first = max(count - self.capacity, 0)
        return (self._cursor + np.arange(first, count)) % self.capacity

    def update_priorities(self, indices: torch.Tensor, priorities: torch.Tensor) -> None:
        """Do nothing: a uniform replay has no priorities. The method is here so that the loop need not ask."""

    def anneal(self, fraction: float) -> None:
        """Do nothing: a uniform replay has no importance exponent. Here for the same reason."""

    @property
    def buffer(self) -> "Rows":
        """The stored transitions, oldest first, as `(state, action, reward, next_state, done)` rows."""
        return Rows(self)

    @property
    def nbytes(self) -> int:
        """Bytes that the arrays take, 0 before the first transition."""
        return sum(values.nbytes for values in self.columns.values())

    def reward_summary(self) -> dict[str, float]:
        """Return the minimum, mean and maximum of the stored (folded) rewards; empty if there are none."""
        if self._size == 0:
            return {}
        rewards = self.columns["rewards"][: self._size]
        return {"min": float(rewards.min()), "mean": float(rewards.mean()), "max": float(rewards.max())}

    @property
    def added(self) -> int:
        """How many transitions were ever stored, the overwritten ones too."""
        return self._added

    def rows(self, first: int, last: int) -> dict[str, Array]:
        """Copy the columns of the transitions that were added as number `first` to `last - 1`, which it still holds."""
        at = np.arange(first, last) % self.capacity
        return {name: values.take(at, axis=0) for name, values in self.columns.items()}

    def get_state(self) -> State:
        """Return all but the rows, which `rows` gives."""
        return {"added": self._added, "holds_dones": self._holds_dones, "rng": self._rng.bit_generator.state}

    def set_state(self, state: State) -> None:
        """Take back what `get_state` gave; `set_rows` must then bring the rows.

        Raises:
            RunError: something is missing or impossible.
        """
        self._added = value_from(state, "added", int)
        number_from(state, "added", low=0)
        self._holds_dones = None if self._added == 0 else value_from(state, "holds_dones", bool)
        self._cursor, self._size = self._added % self.capacity, min(self._added, self.capacity)
        self.columns = {}
        restore_generator(self._rng, state, "rng")

    def set_rows(self, first: int, rows: Mapping[str, Array]) -> None:
        """Put back rows that were added as number `first` and after it.

        Raises:
            RunError: a column is unknown or missing, or does not fit the others.
        """
        known = self.columns or {name: np.empty((self.capacity, *v.shape[1:]), v.dtype) for name, v in rows.items()}
        count = len(next(iter(rows.values()), ()))
        if not REQUIRED <= rows.keys() <= set(COLUMNS) or rows.keys() != known.keys() or count > self.capacity:
            raise RunError(f"the replay's columns {', '.join(rows)} do not fit: needs {', '.join(known or COLUMNS)}")
        at = np.arange(first, first + count) % self.capacity
        for name, values in rows.items():
            if values.shape != (count, *known[name].shape[1:]) or values.dtype != known[name].dtype:
                raise RunError(f"the replay's column {name} does not fit: {values.dtype} of shape {values.shape}")
            known[name][at] = values
        self.columns = known

    def series(self, state_shape: tuple[int, ...], state_dtype: DTypeLike, action_dim: int) -> tuple[Series, ...]:
        """Return what a checkpoint saves in chunks, in the order in which it is put back: here the rows.

        Args:
            state_shape: shape of a state, which rows that are put back must have.
            state_dtype: what states are made of.
            action_dim: actions `A`, which masks may tell of.
        """

        def put(first: int, last: int, wanted: int, columns: Mapping[str, Array]) -> None:
            if "states" not in columns or columns["states"].shape != (last - first, *state_shape):
                raise RunError(f"it does not hold states of shape {state_shape}")
            self.set_rows(wanted, {name: values[wanted - first :] for name, values in columns.items()})

        row_bytes = replay_bytes(1, state_shape, state_dtype) + 2 * action_dim
        return (Series("rows", self._added - self._size, self._added, self.capacity, 2 * row_bytes, self.rows, put),)

    def _write(self, rows: Transitions, *, holds_dones: bool) -> None:
        self._require(rows, holds_dones)
        given = {name: values for name in COLUMNS if (values := getattr(rows, name)) is not None}
        if not self.columns:
            self._allocate(given)
            self._holds_dones = holds_dones
        count = len(rows)
        at = self.next_rows(count)
        for name, values in self.columns.items():
            values[at] = given[name][count - len(at) :]
        self._cursor = (self._cursor + count) % self.capacity
        self._size = min(self._size + count, self.capacity)
        self._added += count

    def _require(self, rows: Transitions, holds_dones: bool) -> None:
        """Raise `ConfigError` unless rows fit what is stored, or each other where nothing is yet."""
        if rows.next_states.shape != rows.states.shape:
            raise ConfigError(
                f"a next_state has the shape of its state, {rows.states.shape[1:]}, got {rows.next_states.shape[1:]}"
            )
        if holds_dones is not (self._holds_dones if self.columns else holds_dones):
            raise ConfigError("a replay is filled either by push or by add, not by both: their discounts differ")
        stored = self.columns.get("states", rows.states)
        if rows.states.shape[1:] != stored.shape[1:]:
            raise ConfigError(f"this replay holds states of shape {stored.shape[1:]}, got {rows.states.shape[1:]}")
        for states in (rows.states, rows.next_states):
            if not np.can_cast(states.dtype, stored.dtype, "same_kind"):
                raise ConfigError(f"this replay holds states of dtype {stored.dtype}, got {states.dtype}")
        require_masks(rows, self.columns.get("action_masks") if self.columns else rows.action_masks)

    def _allocate(self, given: Mapping[str, Array]) -> None:
        states = given["states"]
        require_memory(self.capacity, states.shape[1:], states.dtype)
        self.columns = {
            name: np.empty((self.capacity, *values.shape[1:]), DTYPES.get(name, states.dtype))
            for name, values in given.items()
        }


def require_masks(rows: Transitions, stored: Array | None) -> None:
    """Raise `ConfigError` unless rows have both masks, as long as those stored `[capacity, A]`, or neither."""
    if stored is None and rows.action_masks is None and rows.next_action_masks is None:
        return
    shape = None if stored is None else stored.shape[1:]
    for masks in (rows.action_masks, rows.next_action_masks):
        if masks is None or masks.shape[1:] != shape:
            got = "none" if masks is None else f"one of shape {masks.shape[1:]}"
            needs = "none, as before" if shape is None else f"shape {shape} for both states"
            raise ConfigError(f"action_masks: got {got}, this replay needs {needs}")


class Rows(Sequence[Row]):
    """A view of a replay as rows, so that `zip(*replay_buffer.buffer)` gives five columns. It copies nothing."""

    def __init__(self, replay: ReplayBuffer) -> None:
        self._replay = replay

    def __len__(self) -> int:
        return len(self._replay)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        positions: NDArray[Any] = np.arange(len(self))[index]
        if isinstance(index, slice):
            return [self._row(int(position)) for position in positions]
        return self._row(int(positions))

    def _row(self, position: int) -> Row:
        replay, columns = self._replay, self._replay.columns
        oldest = replay._cursor if len(replay) == replay.capacity else 0
        at = (oldest + position) % replay.capacity
        return (
            columns["states"][at],
            int(columns["actions"][at]),
            float(columns["rewards"][at]),
            columns["next_states"][at],
            bool(columns["discounts"][at] == 0.0),
        )
