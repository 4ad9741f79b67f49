"""The frames of stacks, each stored once (Mnih et al. 2015): their numbers and where they are stored.

A state is identified by the number of its newest frame; the others follow from it (`frame_index.py`).
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nexus.core.errors import ConfigError, RunError
from nexus.core.state import Series, State
from nexus.core.types import Array, Ints
from nexus.data.frame_index import GROUP, MOST_STACKED_FRAMES, FrameIndex
from nexus.data.frame_memory import SPARE, require_memory_for_frames
from nexus.data.frame_store import Kind, frame_store
from nexus.data.memory import CPU

__all__ = ["Film"]


class Film:
    """The frames of `E` environments, kept while a transition or an open n-step window needs them.

    States have the shape `[S, *frame]`, the newest frame last, and each is the previous state's stack shifted by one
    frame. At the start of an episode leading frames of zeros (the paper's padding) are not stored.

    Args:
        like: example states `[E, S, *frame]`, for their shape and dtype.
        kind: how frames are stored; see `frame_store`.
        capacity: most transitions that need frames at the same time.
        n_step: most steps that a transition spans.
        device: the network's device; used only by the kind `device`.

    Raises:
        ConfigError: states are not stacks of frames, or memory is too small.
    """

    def __init__(self, like: Array, kind: Kind, capacity: int, n_step: int = 1, device: torch.device = CPU) -> None:
        num_envs, stack, *frame = like.shape
        if not 2 <= stack <= MOST_STACKED_FRAMES or not frame:
            raise ConfigError(
                f"replay_store = {kind!r}: needs states that are stacks of 2 to {MOST_STACKED_FRAMES} frames, got "
                f"shape {like.shape[1:]}; set frame_stack, or use replay_store full"
            )
        require_memory_for_frames(capacity, like.shape[1:], like.dtype, kind, device)
        self.kind = kind
        self.state_shape, self.state_dtype = like.shape[1:], torch.from_numpy(np.empty(0, like.dtype)).dtype
        # A window reaches n_step steps back and the stack of its first state further. A group stays open for eight
        # frames; a step adds one frame, or a whole stack at the start of an episode.
        self._reserve = num_envs * ((n_step + stack + 2 * GROUP) * (stack + 1) // GROUP + 2)
        # A row opens one group after a seal closed the last, and two when an episode begins with a whole stack.
        self._most_groups = 3 * (capacity + self._reserve)
        groups = capacity // GROUP + self._reserve
        self._newest = np.zeros(num_envs, np.int64)  # [E], number of the newest frame
        self._sealed = np.ones(num_envs, bool)  # [E], whether the environment's last group was closed by `seal`
        self._lag = 0  # most groups opened since the first one that a transition needs
        self.store = frame_store(kind, like[0, 0].nbytes, int(SPARE * groups) + self._reserve, device)
        self.index = FrameIndex(num_envs, stack, groups)

    def append(
        self, states: Array, next_states: Array, begins: NDArray[np.bool_], valid: NDArray[np.bool_]
    ) -> tuple[Ints, Ints]:
        """Store the new frames of one vector step and return numbers `[E]` that identify its states.

        Args:
            states: `[E, S, *frame]`, the states that were acted on.
            next_states: `[E, S, *frame]`, the true next states.
            begins: `[E]`, True where an episode begins: `states` are not the last call's `next_states`.
            valid: `[E]`, False where no action was taken; the numbers of such a row are meaningless.

        Raises:
            ConfigError: a next stack is not the previous stack shifted by one frame.
        """
        frames, next_frames = as_bytes(states), as_bytes(next_states)
        if not np.array_equal(frames[valid, 1:], next_frames[valid, :-1]):
            raise ConfigError(
                f"replay_store = {self.kind!r}: needs states that are stacks of frames, each the previous one "
                "shifted by one frame; use replay_store full"
            )
        if (starting := (begins | self._sealed) & valid).any():
            self._begin(np.flatnonzero(starting), frames)
            self._sealed &= ~valid
        numbers = self._newest.copy()
        going = np.flatnonzero(valid)
        self._newest[going] = self.index.append(going)
        self.store.write(self._newest[going], next_frames[going, -1])
        return numbers, self._newest.copy()

    def needed(self, numbers: Ints) -> None:
        """Record that transitions were stored, given the numbers `[K]` of their states."""
        self._lag = max(self._lag, self.index.opened - self.index.first_group(numbers))

    def forget(self, oldest: int) -> None:
        """Drop the frames that are no longer needed; `oldest` is the number at which the oldest transition ends.

        Transitions are stored in the order of their last frame, so none needs frames further back than the largest
        distance seen so far.
        """
        needed = min(oldest // GROUP + 1 - self._lag, self.index.opened - self._reserve)
        self.store.release(*self.index.release(needed))

    def states(self, numbers: Ints) -> Tensor:
        """Return the states `[K, S, *frame]` that end with these numbers `[K]`, on the store's device."""
        stacks, missing = self.index.stacks(numbers)
        frames = self.store.read(stacks.reshape(-1))  # [K · S, F]
        if len(gaps := np.flatnonzero(missing)):
            frames.index_fill_(0, torch.from_numpy(gaps).to(frames.device), 0)
        return frames.view(self.state_dtype).view(len(numbers), *self.state_shape)

    def seal(self) -> None:
        """Close every open group; each environment's next stack is then stored whole, as at the start of an episode."""
        self.store.close(self.index.close())
        self._sealed[:] = True

    @property
    def nbytes(self) -> int:
        """Bytes currently used by frames and their index."""
        return self.index.nbytes + self.store.nbytes

    def get_state(self) -> State:
        """Return everything but the groups of frames, which are a series; call `seal` first."""
        return {"opened": self.index.opened, "released": self.index.released, "lag": self._lag}

    def restart(self, opened: int, released: int, lag: int) -> None:
        """Continue from a saved state; the series must then restore the groups.

        Raises:
            RunError: the number of groups is impossible.
        """
        if opened - released > self._most_groups:
            raise RunError(f"the replay has {opened - released} groups of frames: needs at most {self._most_groups}")
        self.index.restart(opened, released)
        self._lag = lag

    def series(self) -> Series:
        """Return the groups of frames as a series that a checkpoint saves in chunks."""
        index, store = self.index, self.store

        def get(first: int, last: int) -> dict[str, Array]:
            return {**index.get(first, last), **store.get(first, last)}

        def put(first: int, last: int, wanted: int, columns: Mapping[str, Array]) -> None:
            index.put(first, last, wanted, columns)
            store.put(first, last, wanted, columns)

        group_bytes = store.most_bytes + 3 * GROUP  # ages, the previous group, and a size
        return Series("frames", index.released, index.opened, self._most_groups, group_bytes, get, put)

    def _begin(self, envs: NDArray[np.int64], frames: Array) -> None:
        """Store the stacks `[E, S, F]` with which episodes begin, except for leading frames of zeros."""
        for env in envs:
            shown = frames[env].any(-1)
            first = int(shown.argmax()) if shown.any() else self.index.stack - 1
            for place in range(first, self.index.stack):
                number = self.index.append(envs[envs == env], begins=place == first)
                self.store.write(number, frames[env, place][None])
                self._newest[env] = number[0]


def as_bytes(states: Array) -> Array:
    """Return stacks `[E, S, *frame]` as bytes `[E, S, F]`."""
    return np.ascontiguousarray(states).reshape(*states.shape[:2], -1).view(np.uint8)
