"""The frames that stacks are made of, each stored once (Mnih et al. 2015): which there are, and where they lie.

A state is known by the number of its newest frame; those before it follow from that (`frame_index.py`).
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nexus.core.errors import ConfigError, RunError
from nexus.core.state import Series, State
from nexus.core.types import Array
from nexus.data.frame_index import GROUP, MOST_FRAMES, FrameIndex, Numbers
from nexus.data.frame_memory import SPARE, require_memory_for_frames
from nexus.data.frame_store import Kind, frame_store
from nexus.data.memory import CPU

__all__ = ["Film"]


class Film:
    """The frames of `E` environments, as long as a transition or an open n-step window needs them.

    States have the shape `[S, *frame]`, the newest frame last, and each shows the frames of the state before it
    moved on by one. At the start of an episode leading frames of zeros (the paper's padding) are not stored.

    Args:
        like: what states `[E, S, *frame]` are like, by shape and dtype.
        kind: where the bytes of frames are; see `frame_store`.
        capacity: transitions that need frames at once.
        n_step: steps that a transition may span.
        device: where the network is; it matters to `device` alone.

    Raises:
        ConfigError: states are no stacks of frames, or memory is too small.
    """

    def __init__(self, like: Array, kind: Kind, capacity: int, n_step: int = 1, device: torch.device = CPU) -> None:
        num_envs, stack, *frame = like.shape
        if not 2 <= stack <= MOST_FRAMES or not frame:
            raise ConfigError(
                f"replay_store = {kind!r}: needs states that are stacks of 2 to {MOST_FRAMES} frames, got shape "
                f"{like.shape[1:]}; set frame_stack, or use replay_store full"
            )
        require_memory_for_frames(capacity, like.shape[1:], like.dtype, kind, device)
        self.kind = kind
        self.state_shape, self.state_dtype = like.shape[1:], torch.from_numpy(np.empty(0, like.dtype)).dtype
        # A window reaches n_step steps back, the stack of its first state further, and a group is open for eight
        # frames, of which a step brings one, or a whole stack where an episode begins.
        self._reserve = num_envs * ((n_step + stack + 2 * GROUP) * (stack + 1) // GROUP + 2)
        # A row brings a group where a seal ended the one before, and two where an episode begins with a whole stack.
        self._most_groups = 3 * (capacity + self._reserve)
        groups = capacity // GROUP + self._reserve
        self._newest = np.zeros(num_envs, np.int64)  # [E], number of the newest frame
        self._sealed = np.ones(num_envs, bool)  # [E], where the groups of frames before were ended
        self._lag = 0  # groups opened since the first one that a transition needs, at most so far
        self.store = frame_store(kind, like[0, 0].nbytes, int(SPARE * groups) + self._reserve, device)
        self.index = FrameIndex(num_envs, stack, groups)

    def append(
        self, states: Array, next_states: Array, begins: NDArray[np.bool_], valid: NDArray[np.bool_]
    ) -> tuple[Numbers, Numbers]:
        """Store the new frames of one vector step and return numbers `[E]` that stand for its states.

        Args:
            states: `[E, S, *frame]`, what was acted on.
            next_states: `[E, S, *frame]`, the true ones.
            begins: `[E]`, True where `states` is no `next_states` of the call before: an episode begins.
            valid: `[E]`, False where nothing was decided; such a row's numbers mean nothing.

        Raises:
            ConfigError: the next stack is not the stack before, moved on by one frame.
        """
        frames, next_frames = as_bytes(states), as_bytes(next_states)
        if not np.array_equal(frames[valid, 1:], next_frames[valid, :-1]):
            raise ConfigError(
                f"replay_store = {self.kind!r}: needs states that are stacks of frames, each the one before moved on "
                "by one frame; use replay_store full"
            )
        if (starting := (begins | self._sealed) & valid).any():
            self._begin(np.flatnonzero(starting), frames)
            self._sealed &= ~valid
        numbers = self._newest.copy()
        going = np.flatnonzero(valid)
        self._newest[going] = self.index.append(going)
        self.store.write(self._newest[going], next_frames[going, -1])
        return numbers, self._newest.copy()

    def needed(self, numbers: Numbers) -> None:
        """Take note of transitions that are stored, by the numbers `[K]` of their states."""
        self._lag = max(self._lag, self.index.opened - self.index.first_group(numbers))

    def forget(self, oldest: int) -> None:
        """Forget the frames that nothing needs any more, where the oldest transition ends with this number.

        Transitions are stored in the order of their last frame: no later one needs what lies further back than any
        ever did.
        """
        needed = min(oldest // GROUP + 1 - self._lag, self.index.opened - self._reserve)
        self.store.release(*self.index.release(needed))

    def states(self, numbers: Numbers) -> Tensor:
        """Return the states `[K, S, *frame]` that end with these numbers `[K]`, where the frames are."""
        stacks, missing = self.index.stacks(numbers)
        frames = self.store.read(stacks.reshape(-1))  # [K · S, F]
        if len(gaps := np.flatnonzero(missing)):
            frames.index_fill_(0, torch.from_numpy(gaps).to(frames.device), 0)
        return frames.view(self.state_dtype).view(len(numbers), *self.state_shape)

    def seal(self) -> None:
        """End every group under way; each environment's next stack is then stored whole, as where an episode begins."""
        self.store.close(self.index.close())
        self._sealed[:] = True

    @property
    def nbytes(self) -> int:
        """Bytes that frames and their index take now."""
        return self.index.nbytes + self.store.nbytes

    def get_state(self) -> State:
        """Return all but the groups of frames, which are a series; to be called after `seal`."""
        return {"opened": self.index.opened, "released": self.index.released, "lag": self._lag}

    def restart(self, opened: int, released: int, lag: int) -> None:
        """Go on from such a state; the series must then bring the groups.

        Raises:
            RunError: there can't be so many.
        """
        if opened - released > self._most_groups:
            raise RunError(f"the replay has {opened - released} groups of frames: needs at most {self._most_groups}")
        self.index.restart(opened, released)
        self._lag = lag

    def series(self) -> Series:
        """Return the groups of frames as what a checkpoint saves in chunks."""
        index, store = self.index, self.store

        def get(first: int, last: int) -> dict[str, Array]:
            return {**index.get(first, last), **store.get(first, last)}

        def put(first: int, last: int, wanted: int, columns: Mapping[str, Array]) -> None:
            index.put(first, last, wanted, columns)
            store.put(first, last, wanted, columns)

        group_bytes = store.most_bytes + 3 * GROUP  # ages, the group before, and a size
        return Series("frames", index.released, index.opened, self._most_groups, group_bytes, get, put)

    def _begin(self, envs: NDArray[np.int64], frames: Array) -> None:
        """Store the stacks `[E, S, F]` with which episodes begin, but for leading frames of zeros."""
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
