"""A replay of frames that is drawn from on a device: a batch never passes through main memory.

The host keeps the books: which frames there are, which rows need them, what a checkpoint saves. Beside the frames the
device holds a record of each row, so that random numbers are all that a draw needs of the host.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from nexus.core.errors import ConfigError
from nexus.core.state import Series, State
from nexus.core.types import Array, Batch, Transitions
from nexus.data.device_priorities import DevicePriorities, Uniform
from nexus.data.frame_replay import FrameReplay
from nexus.data.memory import CPU
from nexus.data.replay_buffer import ReplayBuffer

__all__ = ["DeviceReplay"]


class DeviceReplay:
    """`FrameReplay` of kind `device`, whose rows and priorities are on the device, too.

    It draws the rows that `FrameReplay` would with the same generator, up to the rounding of sums of priorities.
    `draw`, `pick` and `gather` are the three steps of `sample`. The first is numbers of the host; the others, and
    `update_priorities`, are operations on tensors of fixed shapes that wait for nothing, so that a CUDA graph can hold
    them.

    Args:
        capacity: transitions kept; the oldest is overwritten.
        picker: how rows are drawn: uniformly or by priority.
        n_step: steps that a transition may span.
        like: what states `[E, S, *frame]` are like; see `FrameReplay`.
        device: where the network is.

    Raises:
        ConfigError: as `FrameReplay` does.
    """

    def __init__(
        self,
        capacity: int,
        picker: Uniform | DevicePriorities,
        n_step: int = 1,
        like: Array | None = None,
        device: torch.device = CPU,
    ) -> None:
        self.capacity = capacity
        self.device = device
        self._picker = picker
        self._rows = ReplayBuffer(capacity, picker.rng)
        self._books = FrameReplay(self._rows, "device", n_step, like, device)
        self._records = torch.empty(0)  # [capacity, R] int32, from the first rows on
        self._frames = torch.empty(0)  # [K, F], likewise

    def __len__(self) -> int:
        return len(self._rows)

    def remember(
        self, states: Array, next_states: Array, begins: NDArray[np.bool_], valid: NDArray[np.bool_]
    ) -> tuple[Array, Array]:
        """Store the new frames of one vector step; see `FrameReplay.remember`."""
        return self._books.remember(states, next_states, begins, valid)

    def add(self, transitions: Transitions) -> None:
        """Store folded transitions whose states are numbers `[K]`, at the highest priority so far."""
        before = self.added
        self._books.add(transitions)
        self._write(before)
        self._picker.enter(before % self.capacity, len(transitions))

    def seal(self) -> None:
        """End every group of frames under way; see `FrameReplay.seal`."""
        self._books.seal()

    def sample(self, batch_size: int) -> Batch:
        """Draw a batch as the replay of rows would (see `Batch`); all of it is on the device."""
        draws = torch.from_numpy(self.draw(batch_size)).to(self.device, non_blocking=True)
        return self.gather(*self.pick(draws))

    def draw(self, batch_size: int) -> Array:
        """Return the random numbers `[B]` that a batch takes.

        Raises:
            ConfigError: the replay is empty, or the batch.
        """
        if len(self) == 0:
            raise ConfigError("can't sample from an empty replay: push a transition first")
        if batch_size < 1:
            raise ConfigError(f"batch_size = {batch_size}: needs at least 1 transition")
        return self._picker.draw(batch_size, len(self))

    def pick(self, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows `[B]` and their weights `[B]`, by random numbers `[B]` on the device."""
        return self._picker.pick(draws)

    def gather(self, indices: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """Return the transitions in these rows `[B]`, with weights `[B]` that the caller chose."""
        shape, dtype = self._books.state_shape, self._books.state_dtype
        records = self._records.index_select(0, indices)  # [B, R]
        places, records = records[:, : 2 * shape[0]], records[:, 2 * shape[0] :]
        both = places.view(len(indices), 2, shape[0]).transpose(0, 1).reshape(-1)  # of all states, then all next ones
        states = self._frames.index_select(0, both).view(dtype).view(2, len(indices), *shape)
        numbers = records[:, 1:3].contiguous().view(torch.float32)
        batch = {"states": states[0], "actions": records[:, 0].long()}
        batch |= {"rewards": numbers[:, 0], "discounts": numbers[:, 1], "next_states": states[1]}
        if records.shape[1] > 3:
            masks = records[:, 3:].bool().chunk(2, 1)
            batch |= {"action_masks": masks[0], "next_action_masks": masks[1]}
        return {**batch, "weights": weights, "indices": indices}

    def update_priorities(self, indices: Tensor, priorities: Tensor) -> None:
        """Give rows `[B]` new priorities `[B]`, if they have any."""
        self._picker.update(indices, priorities)

    def anneal(self, fraction: float) -> None:
        """Tell how far the training has come, from 0 to 1."""
        self._picker.anneal(fraction)

    @property
    def reads(self) -> dict[str, Tensor]:
        """What a draw reads and never replaces, but for a restored state."""
        return {"frames": self._frames, "records": self._records}

    @property
    def changes(self) -> dict[str, Tensor]:
        """What `update_priorities` changes."""
        return self._picker.tensors

    @property
    def nbytes(self) -> int:
        """Bytes that rows and frames take now, here and on the device."""
        return self._books.nbytes + self._picker.nbytes + self._records.nbytes

    @property
    def added(self) -> int:
        """How many transitions were ever stored, the overwritten ones too."""
        return self._rows.added

    def get_state(self) -> State:
        """Return all but the rows and the frames, as a replay elsewhere would give it."""
        return {**self._books.get_state(), **self._picker.get_state(len(self))}

    def set_state(self, state: State) -> None:
        """Take back what `get_state` gave; the `series` must then bring frames and rows.

        Raises:
            ConfigError: memory is too small.
            RunError: something is missing or impossible.
        """
        self._records, self._frames = torch.empty(0), torch.empty(0)  # the old ones first: both together may not fit
        self._books.set_state(state)
        self._picker.set_state(state, len(self))

    def series(self, state_shape: tuple[int, ...], state_dtype: DTypeLike, action_dim: int) -> tuple[Series, ...]:
        """Return what a checkpoint saves in chunks; see `FrameReplay.series`."""
        frames, rows = self._books.series(state_shape, state_dtype, action_dim)
        return frames, replace(rows, put=self._put_rows(rows))

    def reward_summary(self) -> dict[str, float]:
        """Return the minimum, mean and maximum of the stored (folded) rewards; empty if there are none."""
        return self._rows.reward_summary()

    def _put_rows(self, rows: Series) -> Callable[[int, int, int, Mapping[str, Array]], None]:
        """Return what puts rows back, here and on the device."""

        def put(first: int, last: int, wanted: int, columns: Mapping[str, Array]) -> None:
            rows.put(first, last, wanted, columns)
            self._write(wanted, last)

        return put

    def _write(self, first: int, last: int | None = None) -> None:
        """Write the records of the transitions that were added as number `first` to `last - 1`, the newest if None."""
        last = self.added if last is None else last
        first = max(first, last - self.capacity)
        if first >= last:
            return
        records = self._records_of(self._rows.rows(first, last))
        if not len(self._records):
            self._frames = self._books.device_frames
            self._records = torch.empty((self.capacity, records.shape[1]), dtype=torch.int32, device=self.device)
        for row, part in pieces(first % self.capacity, last - first, self.capacity):
            self._records[row : row + part.stop - part.start].copy_(torch.from_numpy(records[part]), non_blocking=True)

    def _records_of(self, rows: Mapping[str, Array]) -> NDArray[np.int32]:
        """Return what the device is told of rows `[K]`: numbers of 32 bits, floats among them as their bits.

        First where the frames of both stacks lie, then action, reward, discount, and both masks if there are any.
        """
        places = [self._books.places(rows[name]) for name in ("states", "next_states")]  # [K, S] each
        numbers = [rows[name][:, None].view(np.int32) for name in ("rewards", "discounts")]
        masks = [rows[name] for name in ("action_masks", "next_action_masks") if name in rows]  # [K, A] each
        return np.concatenate([*places, rows["actions"][:, None], *numbers, *masks], 1, dtype=np.int32)


def pieces(start: int, count: int, capacity: int) -> list[tuple[int, slice]]:
    """Return where `count` items go in a ring from `start` on, at most all of it: first rows, and which items."""
    until = min(count, capacity - start)
    return [(start, slice(0, until)), *([(0, slice(until, count))] if until < count else [])]
