"""The replay of the original interface: `push` stores one transition at a time, with its `done` flag."""

from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from nexus.core.types import Array, Transitions
from nexus.data.protocols import Sampler
from nexus.data.replay import Replay
from nexus.data.rows import Rows
from nexus.data.uniform import Uniform

__all__ = ["ReplayBuffer"]

Row = tuple[Array, int, float, Array, bool]


class ReplayBuffer(Replay):
    """A replay of plain rows with the original interface, sampled uniformly with replacement by default.

    Fill it either with `push`, one transition at a time with its `done` flag, or with `add`, many folded transitions
    with their discounts; never with both. It only adds to `Replay` and overrides nothing.

    Args:
        capacity: transitions kept; the oldest is overwritten.
        seed: seed of the draws, or a generator.
        sampler: replaces the uniform sampler, and has a separate generator.

    Raises:
        ConfigError: the capacity is below 1, or (at the first transition, when the shape of a state is
            known) the arrays would not fit into memory.
    """

    def __init__(self, capacity: int, seed: int | np.random.Generator = 0, sampler: Sampler | None = None) -> None:
        self._rows = Rows(capacity)
        super().__init__(self._rows, Uniform(seed) if sampler is None else sampler)

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
        """Store one transition as returned by `env.step`.

        `done` means terminated: the next state has no value. A truncated episode still has a future, so
        pass False there. Batches then contain `dones`, and the agent applies its γ.
        The masks `[A]` are the legal actions in the two states; pass both, always or never.
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
        first = self.added % self.capacity
        self._rows.write(row, holds_dones=True)
        self.sampler.enter(first, 1)

    @property
    def buffer(self) -> "BufferView":
        """The stored transitions, oldest first, as `(state, action, reward, next_state, done)` rows."""
        return BufferView(self._rows)

    @property
    def columns(self) -> Mapping[str, Array]:
        """The arrays `[capacity, ...]` by name; empty before the first transition."""
        return self._rows.columns

    def rows(self, first: int, last: int) -> dict[str, Array]:
        """Copy the columns of transitions number `first` to `last - 1`, which must still be stored."""
        return self._rows.copied(first, last)

    def set_rows(self, first: int, columns: Mapping[str, Array]) -> None:
        """Restore rows from number `first` on; see `Rows.put_back`."""
        self._rows.put_back(first, columns)


class BufferView(Sequence[Row]):
    """Rows as tuples, as in the original interface: `zip(*replay_buffer.buffer)` gives five columns. No copies.

    Args:
        rows: the rows to view.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return min(self._rows.added, self._rows.capacity)

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
        columns, oldest = self._rows.columns, self._rows.added - len(self)
        at = (oldest + position) % self._rows.capacity
        return (
            columns["states"][at],
            int(columns["actions"][at]),
            float(columns["rewards"][at]),
            columns["next_states"][at],
            bool(columns["discounts"][at] == 0.0),
        )
