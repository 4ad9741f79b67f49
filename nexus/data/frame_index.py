"""Numbers for frames, and the stack that ends with each.

Frames are numbered in groups of eight of one environment: number = 8 · group + place. The number of a state's
newest frame determines the frames before it, so a stack of four costs one frame.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from nexus.core.errors import RunError
from nexus.core.state import array_from
from nexus.core.types import Array, Ints

__all__ = ["GROUP", "MOST_STACKED_FRAMES", "FrameIndex"]

GROUP = 8  # frames; they are compressed together
MOST_STACKED_FRAMES = GROUP + 1  # in a stack, which reaches back at most one group


class FrameIndex:
    """Numbers the frames of `E` environments and finds the stack that ends with each.

    Args:
        num_envs: environments `E`.
        stack: frames per state, at most 9.
        groups: initial capacity in groups; it doubles when needed.
    """

    def __init__(self, num_envs: int, stack: int, groups: int) -> None:
        self.stack = stack
        self.opened = 0  # groups ever opened
        self.released = 0  # how many of the oldest were dropped
        self._cursor = np.zeros(num_envs, np.int64)  # each environment's next number; a multiple of 8 opens a new group
        self._last = np.full(num_envs, -1, np.int64)  # each environment's last group
        self._age = np.zeros(num_envs, np.int64)  # frames of the episode before the next one, up to stack - 1
        size = 1 << max(4, math.ceil(math.log2(groups + 1)))
        self._ages = np.zeros((size, GROUP), np.uint8)  # of each frame; row = group modulo size
        self._previous = np.zeros(size, np.int64)  # the previous group of the same environment
        self._back = np.arange(stack - 1, -1, -1)  # distance of each frame of a stack from the newest

    def append(self, envs: Ints, begins: bool = False) -> Ints:
        """Return the numbers `[K]` of one new frame for each of these environments; `begins` starts an episode."""
        new = envs[self._cursor[envs] % GROUP == 0]
        if len(new):
            self._open(new)
        numbers = self._cursor[envs]
        self._cursor[envs] += 1
        ages = np.zeros(len(envs), np.int64) if begins else self._age[envs]
        self._ages[(numbers // GROUP) % len(self._ages), numbers % GROUP] = ages
        self._age[envs] = np.minimum(ages + 1, self.stack - 1)
        return numbers

    def stacks(self, numbers: Ints) -> tuple[Ints, NDArray[np.bool_]]:
        """Return the numbers `[K, S]` of the stacks that end with these, oldest first, and which frames are missing.

        A missing frame would precede the start of its episode; it gets the number of the newest frame.
        """
        groups, places = numbers // GROUP, numbers % GROUP
        rows = groups % len(self._ages)
        missing = self._back > self._ages[rows, places][:, None]
        before = places[:, None] < self._back  # in the previous group
        found = np.where(before, (GROUP * (self._previous[rows] - groups + 1))[:, None], 0)
        found += numbers[:, None] - self._back
        return np.where(missing, numbers[:, None], found), missing

    def first_group(self, numbers: Ints) -> int:
        """Return the earliest group needed by the stacks that end with these numbers."""
        groups = numbers // GROUP
        previous = self._previous[groups % len(self._ages)]
        return int(np.where(previous < 0, groups, previous).min())

    def release(self, before: int) -> tuple[int, int]:
        """Drop all groups before this one; return their range."""
        first, self.released = self.released, max(self.released, before)
        return first, self.released

    def close(self) -> Ints:
        """Close every open group and forget what episodes reach back to; return the groups' next numbers.

        The next frame of each environment must begin an episode. Frames numbered before never change again, and
        later ones depend on them only through `opened` and `released`.
        """
        numbers = self._cursor[self._cursor % GROUP > 0]
        for group, place in zip(*divmod(numbers, GROUP), strict=True):
            self._ages[group % len(self._ages), place:] = 0  # left by an older group in this row
        self._cursor[:], self._last[:], self._age[:] = 0, -1, 0
        return numbers

    def get(self, first: int, last: int) -> dict[str, Array]:
        """Copy the index of groups `first` to `last - 1`, all of them full or closed."""
        rows = np.arange(first, last) % len(self._ages)
        return {"ages": self._ages[rows], "previous": self._previous[rows]}

    def put(self, first: int, last: int, wanted: int, columns: Mapping[str, Array]) -> None:
        """Restore the index of groups, except those before `wanted`.

        Raises:
            RunError: it does not fit, or refers to an impossible group or frame.
        """
        groups = np.arange(first, last)
        ages = array_from(dict(columns), "ages", np.empty((len(groups), GROUP), np.uint8))
        previous = array_from(dict(columns), "previous", groups)
        if not ((ages < self.stack).all() and (previous >= -1).all() and (previous < groups).all()):
            raise RunError("its frames follow impossible ones")
        rows = groups[wanted - first :] % len(self._ages)
        self._ages[rows], self._previous[rows] = ages[wanted - first :], previous[wanted - first :]

    def restart(self, opened: int, released: int) -> None:
        """Make room for groups `released` to `opened - 1`, which `put` must then restore."""
        self.opened, self.released = opened, released
        while self.opened - self.released > len(self._ages):
            self._grow()

    def holds(self, numbers: Ints) -> bool:
        """True if all stacks that end with these numbers lie in groups that were not dropped."""
        low, high = GROUP * self.released, GROUP * self.opened
        if not ((numbers >= low) & (numbers < high)).all():
            return False
        parts = (self.stacks(numbers[start : start + 65_536])[0] for start in range(0, len(numbers), 65_536))
        return all(bool(((shown >= low) & (shown < high)).all()) for shown in parts)

    def _open(self, envs: Ints) -> None:
        groups = self.opened + np.arange(len(envs))
        self.opened += len(envs)
        while self.opened - self.released > len(self._ages):
            self._grow()
        self._previous[groups % len(self._ages)] = self._last[envs]
        self._last[envs] = groups
        self._cursor[envs] = GROUP * groups

    def _grow(self) -> None:
        size = len(self._ages)
        living = np.arange(self.released, self.released + size)
        for name in ("_ages", "_previous"):
            old: Array = getattr(self, name)
            new = np.zeros((2 * size, *old.shape[1:]), old.dtype)
            new[living % (2 * size)] = old[living % size]
            setattr(self, name, new)

    @property
    def nbytes(self) -> int:
        """Bytes used by the index."""
        return self._ages.nbytes + self._previous.nbytes
