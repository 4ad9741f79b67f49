"""Replay of stacked frames in which each frame is stored once (Mnih et al. 2015).

What flows through the accumulator and into the rows of an ordinary replay are the numbers of frames, one for each
state; a sample turns them back into stacks. So folding, priorities and overwriting know nothing of frames.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from nexus.core.errors import ConfigError, RunError
from nexus.core.state import Series, State, below, count_from, part
from nexus.core.types import Array, Batch, Transitions
from nexus.data.frame_index import GROUP, MOST_FRAMES, FrameIndex
from nexus.data.frame_store import CompressedFrames, DeviceFrames, FrameStore, RawFrames, load_zstandard
from nexus.data.memory import CPU, memory_on, replay_bytes
from nexus.data.prioritized_replay_buffer import PrioritizedReplayBuffer
from nexus.data.replay_buffer import ReplayBuffer

__all__ = ["FrameReplay", "frame_replay_bytes", "require_memory_for_frames"]

Kind = Literal["raw", "compressed", "device"]
SPARE = 1.25  # room for raw frames over one per transition; in main memory what is never written takes none
COMPRESSED = 0.03  # of raw: what is said in advance; measured on Atari it is 0.01 to 0.04


class FrameReplay:
    """The last `capacity` transitions between stacks of frames; each frame is stored once, whatever the stacks share.

    States have the shape `[S, *frame]`, the newest frame last, and each shows the frames of the state before it
    moved on by one. At the start of an episode leading frames of zeros (the paper's padding) are not stored.
    Frames stay exactly as long as a transition or an open n-step window needs them.

    Args:
        rows: an empty replay, uniform or prioritized, for everything but the frames.
        kind: `raw`, `compressed` to about a hundredth, or raw on the `device`; `DeviceReplay` draws from it there.
        n_step: steps that a transition may span.
        like: what states `[E, S, *frame]` are like, by shape and dtype; None takes it from the first. Needed to
            take back a state.
        device: where the network is; it matters to `device` alone.

    Raises:
        ConfigError: the package that compresses is missing; (`remember`) states are no such stacks, or memory is
            too small.
    """

    def __init__(
        self,
        rows: ReplayBuffer | PrioritizedReplayBuffer,
        kind: Kind = "compressed",
        n_step: int = 1,
        like: Array | None = None,
        device: torch.device = CPU,
    ) -> None:
        if kind != "raw":
            load_zstandard()
        self.kind = kind
        self.device = device
        self.capacity = rows.capacity
        self._rows = rows
        self._n_step = n_step
        self._like = like
        self._index: FrameIndex | None = None  # known from the first states on, like all below
        self._store: FrameStore
        self._newest: NDArray[np.int64]  # [E], number of the newest frame
        self._sealed: NDArray[np.bool_]  # [E], where the groups of frames before were ended
        self._shape: tuple[int, ...] = ()
        self._torch_dtype = torch.uint8
        self._reserve = 0  # groups that open windows may need
        self._lag = 0  # groups opened since the first one that a transition needs, at most so far

    def __len__(self) -> int:
        return len(self._rows)

    def remember(
        self, states: Array, next_states: Array, begins: NDArray[np.bool_], valid: NDArray[np.bool_]
    ) -> tuple[Array, Array]:
        """Store the new frames of one vector step and return numbers `[E]` that stand for its states.

        Args:
            states: `[E, S, *frame]`, what was acted on.
            next_states: `[E, S, *frame]`, the true ones.
            begins: `[E]`, True where `states` is no `next_states` of the call before: an episode begins.
            valid: `[E]`, False where nothing was decided; such a row's numbers mean nothing.

        Raises:
            ConfigError: the next stack is not the stack before, moved on by one frame.
        """
        index = self._index if self._index is not None else self._allocate(states)
        frames, next_frames = as_bytes(states), as_bytes(next_states)
        if not np.array_equal(frames[valid, 1:], next_frames[valid, :-1]):
            raise ConfigError(
                f"replay_store = {self.kind!r}: needs states that are stacks of frames, each the one before moved on "
                "by one frame; use replay_store full"
            )
        if (starting := (begins | self._sealed) & valid).any():
            self._begin(index, np.flatnonzero(starting), frames)
            self._sealed &= ~valid
        numbers = self._newest.copy()
        going = np.flatnonzero(valid)
        self._newest[going] = index.append(going)
        self._store.write(self._newest[going], next_frames[going, -1])
        return numbers, self._newest.copy()

    def add(self, transitions: Transitions) -> None:
        """Store folded transitions whose states are numbers `[K]`; forget the frames that nothing needs any more."""
        if not len(transitions):
            return
        index = self._index
        assert index is not None
        self._rows.add(transitions)
        self._lag = max(self._lag, index.opened - index.first_group(transitions.states))
        if len(self) == self.capacity:
            # Rows enter in the order of their last frame: no later row needs what lies further back than any ever did.
            oldest = int(self._rows.columns["next_states"][self._rows.added % self.capacity])
            needed = min(oldest // GROUP + 1 - self._lag, index.opened - self._reserve)
            self._store.release(*index.release(needed))

    def seal(self) -> None:
        """End every group under way, so that what is stored now never changes again and can be saved.

        Each environment's next stack is then stored whole, as at the start of an episode.
        """
        if self._index is not None:
            self._store.close(self._index.close())
            self._sealed[:] = True

    def sample(self, batch_size: int) -> Batch:
        """Draw transitions as the replay of rows does, and put the stacks in place of their numbers."""
        batch = dict(self._rows.sample(batch_size))
        index = self._index
        assert index is not None
        numbers, missing = index.stacks(np.concatenate([batch["states"].numpy(), batch["next_states"].numpy()]))
        frames = self._store.read(numbers.reshape(-1))  # [B · S, F]
        if len(gaps := np.flatnonzero(missing)):
            frames.index_fill_(0, torch.from_numpy(gaps).to(frames.device), 0)
        states = frames.view(self._torch_dtype).view(len(numbers), *self._shape)
        batch["states"], batch["next_states"] = states[:batch_size], states[batch_size:]
        return batch

    def update_priorities(self, indices: torch.Tensor, priorities: torch.Tensor) -> None:
        """Give rows new priorities, if they have any."""
        self._rows.update_priorities(indices, priorities)

    def anneal(self, fraction: float) -> None:
        """Tell how far the training has come, from 0 to 1."""
        self._rows.anneal(fraction)

    @property
    def state_shape(self) -> tuple[int, ...]:
        """`(S, *frame)`, known from the first states on."""
        return self._shape

    @property
    def state_dtype(self) -> torch.dtype:
        """What states are made of, known from the first ones on."""
        return self._torch_dtype

    @property
    def device_frames(self) -> torch.Tensor:
        """All frames `[K, F]` that lie on a device, as bytes."""
        assert isinstance(self._store, DeviceFrames)
        return self._store.frames

    def places(self, numbers: Array) -> NDArray[np.int64]:
        """Return which of `device_frames` make the stacks `[K, S]` that end with these numbers `[K]`.

        What lies before the start of an episode is a frame of zeros. Good as long as a transition needs the frames.
        """
        assert self._index is not None
        assert isinstance(self._store, DeviceFrames)
        stacks, missing = self._index.stacks(numbers)
        return np.where(missing, self._store.blank, self._store.at(stacks))

    @property
    def nbytes(self) -> int:
        """Bytes that rows and frames take now."""
        return self._rows.nbytes + (0 if self._index is None else self._index.nbytes + self._store.nbytes)

    @property
    def added(self) -> int:
        """How many transitions were ever stored, the overwritten ones too."""
        return self._rows.added

    def get_state(self) -> State:
        """Return all but the rows and the frames, which are `series`; to be called after `seal`."""
        index = self._index
        counts = {"opened": 0, "released": 0} if index is None else {"opened": index.opened, "released": index.released}
        return {**self._rows.get_state(), **below("frames", {**counts, "lag": self._lag})}

    def set_state(self, state: State) -> None:
        """Take back what `get_state` gave; the `series` must then bring frames and rows.

        Raises:
            ConfigError: memory is too small.
            RunError: something is missing or impossible.
        """
        self._rows.set_state(state)
        frames = part(state, "frames")
        opened = count_from(frames, "opened")
        released = count_from(frames, "released", 0, opened)
        self._lag = count_from(frames, "lag", 0, opened)
        if self._index is not None:
            self._index = None
            del self._store  # the old one first: both together may not fit
        if opened:
            if self._like is None:
                raise ConfigError("a replay of frames takes a state back only if it knows what states are like")
            index = self._allocate(self._like)
            if opened - released > self._most_groups:
                raise RunError(
                    f"the replay has {opened - released} groups of frames: needs at most {self._most_groups}"
                )
            index.restart(opened, released)

    def series(self, state_shape: tuple[int, ...], state_dtype: DTypeLike, action_dim: int) -> tuple[Series, ...]:
        """Return what a checkpoint saves in chunks: groups of frames, then the rows, whose states are numbers."""
        (rows,) = self._rows.series((), np.int64, action_dim)
        return self._frame_series(), replace(rows, put=self._put_rows(rows))

    def reward_summary(self) -> dict[str, float]:
        """Return the minimum, mean and maximum of the stored (folded) rewards; empty if there are none."""
        return self._rows.reward_summary()

    def _begin(self, index: FrameIndex, envs: NDArray[np.int64], frames: Array) -> None:
        """Store the stacks `[E, S, F]` with which episodes begin, but for leading frames of zeros."""
        for env in envs:
            shown = frames[env].any(-1)
            first = int(shown.argmax()) if shown.any() else index.stack - 1
            for place in range(first, index.stack):
                number = index.append(envs[envs == env], begins=place == first)
                self._store.write(number, frames[env, place][None])
                self._newest[env] = number[0]

    def _frame_series(self) -> Series:
        index = self._index
        if index is None:
            return Series("frames", 0, 0, 0, 1, lambda first, last: {}, lambda *given: None)
        store = self._store

        def get(first: int, last: int) -> dict[str, Array]:
            return {**index.get(first, last), **store.get(first, last)}

        def put(first: int, last: int, wanted: int, columns: Mapping[str, Array]) -> None:
            index.put(first, last, wanted, columns)
            store.put(first, last, wanted, columns)

        group_bytes = store.most_bytes + 3 * GROUP  # ages, the group before, and a size
        return Series("frames", index.released, index.opened, self._most_groups, group_bytes, get, put)

    def _put_rows(self, rows: Series) -> Callable[[int, int, int, Mapping[str, Array]], None]:
        """Return what puts rows back once all their frames are there."""

        def put(first: int, last: int, wanted: int, columns: Mapping[str, Array]) -> None:
            for name in ("states", "next_states"):
                numbers = columns.get(name, np.empty(0))
                fits = numbers.shape == (last - first,) and numbers.dtype == np.int64
                if not fits or self._index is None or not self._index.holds(numbers[wanted - first :]):
                    raise RunError(f"its {name} are no numbers of frames that are there")
            rows.put(first, last, wanted, columns)

        return put

    @property
    def _most_groups(self) -> int:
        """Groups that can be needed at once.

        A row brings a group where a seal ended the one before, and two where an episode begins with a whole stack.
        """
        return 3 * (self.capacity + self._reserve)

    def _allocate(self, states: Array) -> FrameIndex:
        num_envs, stack, *frame = states.shape
        if not 2 <= stack <= MOST_FRAMES or not frame:
            raise ConfigError(
                f"replay_store = {self.kind!r}: needs states that are stacks of 2 to {MOST_FRAMES} frames, got shape "
                f"{states.shape[1:]}; set frame_stack, or use replay_store full"
            )
        require_memory_for_frames(self.capacity, states.shape[1:], states.dtype, self.kind, self.device)
        self._shape, self._torch_dtype = states.shape[1:], torch.from_numpy(np.empty(0, states.dtype)).dtype
        # A window reaches n_step steps back, the stack of its first state further, and a group is open for eight
        # frames, of which a step brings one, or a whole stack where an episode begins.
        self._reserve = num_envs * ((self._n_step + stack + 2 * GROUP) * (stack + 1) // GROUP + 2)
        groups = self.capacity // GROUP + self._reserve
        self._newest, self._sealed = np.zeros(num_envs, np.int64), np.ones(num_envs, bool)
        frame_bytes = states[0, 0].nbytes
        room = int(SPARE * groups) + self._reserve
        if self.kind == "compressed":
            self._store = CompressedFrames(frame_bytes)
        elif self.kind == "raw":
            self._store = RawFrames(frame_bytes, room)
        else:
            self._store = DeviceFrames(frame_bytes, room, self.device)
        self._index = FrameIndex(num_envs, stack, groups)
        return self._index


def as_bytes(states: Array) -> Array:
    """Return stacks `[E, S, *frame]` as bytes `[E, S, F]`."""
    return np.ascontiguousarray(states).reshape(*states.shape[:2], -1).view(np.uint8)


def frame_replay_bytes(capacity: int, state_shape: tuple[int, ...], state_dtype: DTypeLike, kind: Kind) -> int:
    """Return about what a full replay of frames takes, in bytes; what compression leaves is a guess from Atari."""
    frame = int(np.prod(state_shape[1:], dtype=np.int64)) * np.dtype(state_dtype).itemsize
    kept = int(COMPRESSED * frame) + 16 if kind == "compressed" else frame
    return replay_bytes(capacity, (), np.int64) + int(1.01 * capacity) * (kept + 3)


def require_memory_for_frames(
    capacity: int,
    state_shape: tuple[int, ...],
    state_dtype: DTypeLike,
    kind: Kind = "raw",
    device: torch.device = CPU,
) -> None:
    """Raise `ConfigError` if a replay of this size can't fit, and say what would."""
    where = device if kind == "device" else CPU
    needed, free = room_for_frames(capacity, state_shape, state_dtype, kind), memory_on(where)
    if free is not None and needed > free:
        fits = free * capacity // needed
        other = "" if kind == "compressed" else ", or replay_store compressed"
        what = f"frames on {where}" if kind == "device" else f"{kind} frames"
        raise ConfigError(
            f"replay_capacity = {capacity} needs {needed / 1e6:,.0f} MB for {what} of shape {state_shape[1:]}, "
            f"{free / 1e6:,.0f} MB are free: at most {fits} transitions fit{other}"
        )


def room_for_frames(capacity: int, state_shape: tuple[int, ...], state_dtype: DTypeLike, kind: Kind) -> int:
    """Return the bytes that must be free: on a device all of what is set aside counts, used or not."""
    spare = SPARE if kind == "device" else 1.0
    return int(spare * frame_replay_bytes(capacity, state_shape, state_dtype, kind))
