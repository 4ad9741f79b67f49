"""Frames, each kept once: which follows on which, and where their bytes are.

Frames are numbered in groups of eight of one environment: number = 8 · group + place. Whoever holds the number of a
state's newest frame can find those before it, so a stack of four costs one frame.
"""

import importlib
import math
import sys
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nexus.core.errors import ConfigError, RunError
from nexus.core.state import array_from
from nexus.core.types import Array

__all__ = ["GROUP", "MOST_FRAMES", "CompressedFrames", "FrameIndex", "FrameStore", "RawFrames", "load_zstandard"]

GROUP = 8  # frames; they are compressed together
MOST_FRAMES = GROUP + 1  # of a stack: it reaches back one group at most
SPARE = 1.25  # address space for raw frames over one per transition; what is never written takes no memory

Numbers = NDArray[np.int64]


class FrameStore(Protocol):
    """Where the bytes of frames are, by number."""

    def write(self, numbers: Numbers, frames: Array) -> None:
        """Keep frames `[K, F]` as bytes; each group is filled from its first place on."""

    def read(self, numbers: Numbers) -> Array:
        """Return a copy of frames `[K, F]`."""

    def release(self, first: int, last: int) -> None:
        """Forget the groups from `first` to `last - 1`."""

    def close(self, numbers: Numbers) -> None:
        """End the groups of which these numbers `[K]` would be next; zeros stand in for what is left of them."""

    def get(self, first: int, last: int) -> dict[str, Array]:
        """Copy the groups from `first` to `last - 1`, all of them full or closed, as columns."""

    def put(self, first: int, last: int, wanted: int, columns: Mapping[str, Array]) -> None:
        """Put back such groups, but for those before `wanted`.

        Raises:
            RunError: the columns are not what such groups are.
        """

    @property
    def most_bytes(self) -> int:
        """Bytes that a group can take in columns."""

    @property
    def nbytes(self) -> int:
        """Bytes that the frames take now."""


class FrameIndex:
    """Numbers the frames of `E` environments and knows the stack that ends with each.

    Args:
        num_envs: environments `E`.
        stack: frames of a state, at most 9.
        groups: room for so many at once at first; it doubles when needed.
    """

    def __init__(self, num_envs: int, stack: int, groups: int) -> None:
        self.stack = stack
        self.opened = 0  # groups ever
        self.released = 0  # of them, the oldest so many are forgotten
        self._cursor = np.zeros(num_envs, np.int64)  # each environment's next number; at a multiple of 8 a new group
        self._last = np.full(num_envs, -1, np.int64)  # its last group
        self._age = np.zeros(num_envs, np.int64)  # frames of the episode before the next one, up to stack - 1
        size = 1 << max(4, math.ceil(math.log2(groups + 1)))
        self._ages = np.zeros((size, GROUP), np.uint8)  # of each frame; row = group modulo size
        self._previous = np.zeros(size, np.int64)  # the group before, of the same environment
        self._back = np.arange(stack - 1, -1, -1)  # how far each frame of a stack lies behind the newest

    def append(self, envs: Numbers, begins: bool = False) -> Numbers:
        """Return the numbers `[K]` of one more frame of each of these environments, the first of an episode or not."""
        new = envs[self._cursor[envs] % GROUP == 0]
        if len(new):
            self._open(new)
        numbers = self._cursor[envs]
        self._cursor[envs] += 1
        ages = np.zeros(len(envs), np.int64) if begins else self._age[envs]
        self._ages[(numbers // GROUP) % len(self._ages), numbers % GROUP] = ages
        self._age[envs] = np.minimum(ages + 1, self.stack - 1)
        return numbers

    def stacks(self, numbers: Numbers) -> tuple[Numbers, NDArray[np.bool_]]:
        """Return the numbers `[K, S]` of the stacks that end with these, oldest first, and which frames are missing.

        A missing frame lies before the start of its episode; its number is that of the newest.
        """
        groups, places = numbers // GROUP, numbers % GROUP
        rows = groups % len(self._ages)
        missing = self._back > self._ages[rows, places][:, None]
        before = places[:, None] < self._back  # in the group before
        found = np.where(before, (GROUP * (self._previous[rows] - groups + 1))[:, None], 0)
        found += numbers[:, None] - self._back
        return np.where(missing, numbers[:, None], found), missing

    def first_group(self, numbers: Numbers) -> int:
        """Return a group that no frame of the stacks that end with these numbers lies before."""
        groups = numbers // GROUP
        previous = self._previous[groups % len(self._ages)]
        return int(np.where(previous < 0, groups, previous).min())

    def release(self, before: int) -> tuple[int, int]:
        """Forget all groups before this one; return which those were."""
        first, self.released = self.released, max(self.released, before)
        return first, self.released

    def close(self) -> Numbers:
        """End every group that is under way, and what episodes go back to; return their next numbers.

        The next frame of each environment must begin an episode. What was numbered before never changes again, and
        what comes after does not depend on it but for `opened` and `released`.
        """
        numbers = self._cursor[self._cursor % GROUP > 0]
        for group, place in zip(*divmod(numbers, GROUP), strict=True):
            self._ages[group % len(self._ages), place:] = 0  # of an older group in this row
        self._cursor[:], self._last[:], self._age[:] = 0, -1, 0
        return numbers

    def get(self, first: int, last: int) -> dict[str, Array]:
        """Copy what is known of groups `first` to `last - 1`, all of them full or closed."""
        rows = np.arange(first, last) % len(self._ages)
        return {"ages": self._ages[rows], "previous": self._previous[rows]}

    def put(self, first: int, last: int, wanted: int, columns: Mapping[str, Array]) -> None:
        """Put back what is known of groups, but for those before `wanted`.

        Raises:
            RunError: it does not fit, or names a group or a frame that can't be meant.
        """
        groups = np.arange(first, last)
        ages = array_from(dict(columns), "ages", np.empty((len(groups), GROUP), np.uint8))
        previous = array_from(dict(columns), "previous", groups)
        if not ((ages < self.stack).all() and (previous >= -1).all() and (previous < groups).all()):
            raise RunError("its frames follow on frames that can't be")
        rows = groups[wanted - first :] % len(self._ages)
        self._ages[rows], self._previous[rows] = ages[wanted - first :], previous[wanted - first :]

    def restart(self, opened: int, released: int) -> None:
        """Make room for groups `released` to `opened - 1`, which `put` must then bring."""
        self.opened, self.released = opened, released
        while self.opened - self.released > len(self._ages):
            self._grow()

    def holds(self, numbers: Numbers) -> bool:
        """True if all stacks that end with these numbers lie in groups that are not forgotten."""
        low, high = GROUP * self.released, GROUP * self.opened
        if not ((numbers >= low) & (numbers < high)).all():
            return False
        parts = (self.stacks(numbers[start : start + 65_536])[0] for start in range(0, len(numbers), 65_536))
        return all(bool(((shown >= low) & (shown < high)).all()) for shown in parts)

    def _open(self, envs: Numbers) -> None:
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
        """Bytes that the index takes."""
        return self._ages.nbytes + self._previous.nbytes


class RawFrames:
    """Frames as they are, in one preallocated array.

    Args:
        frame_bytes: `F`.
        groups: how many there are at once at most.
    """

    def __init__(self, frame_bytes: int, groups: int) -> None:
        self._frames = np.empty((groups * GROUP, frame_bytes), np.uint8)
        self._free: list[int] = []  # rows of forgotten groups: they come first, so that no more memory is touched
        self._touched = 0
        self._rows = np.zeros(1 << math.ceil(math.log2(groups + 1)), np.int64)  # by group modulo its length

    def write(self, numbers: Numbers, frames: Array) -> None:
        """Keep frames `[K, F]`.

        Raises:
            ConfigError: there is no room: episodes are so short that their first frames fill it.
        """
        for group in (numbers[numbers % GROUP == 0] // GROUP).tolist():
            self._rows[group % len(self._rows)] = self._take()
        self._frames[self._at(numbers)] = frames

    def read(self, numbers: Numbers) -> Array:
        """Return a copy of frames `[K, F]`."""
        return self._frames.take(self._at(numbers), axis=0)

    def release(self, first: int, last: int) -> None:
        """Forget groups."""
        self._free += self._rows[np.arange(first, last) % len(self._rows)].tolist()

    def close(self, numbers: Numbers) -> None:
        """End groups early."""
        for number, row in zip(numbers.tolist(), self._at(numbers).tolist(), strict=True):
            self._frames[row : row + GROUP - number % GROUP] = 0

    def get(self, first: int, last: int) -> dict[str, Array]:
        """Copy groups as `frames` `[G, 8, F]`."""
        numbers = np.arange(GROUP * first, GROUP * last)
        return {"frames": self.read(numbers).reshape(-1, GROUP, self._frames.shape[1])}

    def put(self, first: int, last: int, wanted: int, columns: Mapping[str, Array]) -> None:
        """Put back groups, but for those before `wanted`.

        Raises:
            ConfigError: there is no room.
            RunError: they don't fit.
        """
        like = np.broadcast_to(np.uint8(0), (last - first, GROUP, self._frames.shape[1]))
        frames = array_from(dict(columns), "frames", like)[wanted - first :]
        self.write(np.arange(GROUP * wanted, GROUP * last), frames.reshape(-1, self._frames.shape[1]))

    @property
    def most_bytes(self) -> int:
        """Bytes of a group."""
        return GROUP * self._frames.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes that frames have been written to."""
        return self._touched * self._frames.shape[1]

    def _at(self, numbers: Numbers) -> Numbers:
        return self._rows[(numbers // GROUP) % len(self._rows)] + numbers % GROUP

    def _take(self) -> int:
        if self._free:
            return self._free.pop()
        if self._touched == len(self._frames):
            raise ConfigError(
                "replay_store = 'raw': no room, since episodes have fewer than 4 steps on average, or environments few "
                "steps between checkpoints; use compressed"
            )
        self._touched += GROUP
        return self._touched - GROUP


class CompressedFrames:
    """Groups of eight frames, compressed together with Zstandard.

    Its window spans a group, so it finds for itself what frames share: taking the exclusive or with the frame before
    first makes every one of five Atari games larger, and slower to open (`docs/atari.md`).

    Args:
        frame_bytes: `F`.

    Raises:
        ConfigError: the package zstandard is missing.
    """

    def __init__(self, frame_bytes: int) -> None:
        zstandard = load_zstandard()
        self._compress = zstandard.ZstdCompressor(level=3).compress
        self._decompress = zstandard.ZstdDecompressor().decompress
        self._size_of = zstandard.frame_content_size
        self._error: type[Exception] = zstandard.ZstdError
        self._frame_bytes = frame_bytes
        self._packed: dict[int, bytes] = {}
        self._open: dict[int, Array] = {}  # groups that are not full yet, [8, F] each
        self._bytes = 0

    def write(self, numbers: Numbers, frames: Array) -> None:
        """Keep frames `[K, F]`; a group that is full is compressed."""
        for number, frame in zip(numbers.tolist(), frames, strict=True):
            group, place = divmod(number, GROUP)
            if place == 0:
                self._open[group] = np.zeros((GROUP, self._frame_bytes), np.uint8)
            self._open[group][place] = frame
            if place == GROUP - 1:
                # Copied: what the compressor returns was cut from a block for the worst case, and the rest of a block
                # is too small for the next one. Kept as it is, it takes as much memory as raw frames.
                self._keep(group, bytes(memoryview(self._compress(self._open.pop(group)))))

    def read(self, numbers: Numbers) -> Array:
        """Return a copy of frames `[K, F]`."""
        wanted, which = np.unique(numbers // GROUP, return_inverse=True)
        groups = np.frombuffer(b"".join(map(self._group, wanted.tolist())), np.uint8)
        return groups.reshape(-1, self._frame_bytes).take(which * GROUP + numbers % GROUP, axis=0)

    def release(self, first: int, last: int) -> None:
        """Forget groups."""
        for group in range(first, last):
            packed = self._packed.pop(group, b"")
            self._bytes -= sys.getsizeof(packed) if packed else 0

    def close(self, numbers: Numbers) -> None:
        """End groups early."""
        for group in (numbers // GROUP).tolist():
            self._keep(group, bytes(memoryview(self._compress(self._open.pop(group)))))

    def get(self, first: int, last: int) -> dict[str, Array]:
        """Return groups as they are kept: `packed`, all one after another, and `sizes` `[G]` in bytes."""
        groups = [self._packed[group] for group in range(first, last)]
        sizes = np.array([len(packed) for packed in groups], np.int64)
        return {"packed": np.frombuffer(b"".join(groups), np.uint8), "sizes": sizes}

    def put(self, first: int, last: int, wanted: int, columns: Mapping[str, Array]) -> None:
        """Put back groups, but for those before `wanted`. Each is opened once, to know that it can be.

        Raises:
            RunError: they don't fit.
        """
        sizes = array_from(dict(columns), "sizes", np.empty(last - first, np.int64))
        if not ((sizes > 0) & (sizes <= self.most_bytes)).all():
            raise RunError("its compressed frames have sizes that can't be")
        packed = array_from(dict(columns), "packed", np.broadcast_to(np.uint8(0), (int(sizes.sum()),))).tobytes()
        ends = np.cumsum(sizes)
        for group, start, end in zip(range(first, last), (ends - sizes).tolist(), ends.tolist(), strict=True):
            if group >= wanted:
                self._keep(group, self._sound(packed[start:end]))

    @property
    def most_bytes(self) -> int:
        """Bytes that a group can take: what does not compress becomes a little larger, by Zstandard's own bound."""
        raw = GROUP * self._frame_bytes
        return raw + raw // 128 + 512

    @property
    def nbytes(self) -> int:
        """Bytes that the frames take now, packed or waiting to be."""
        return self._bytes + len(self._open) * GROUP * self._frame_bytes

    def _keep(self, group: int, packed: bytes) -> None:
        self._packed[group] = packed
        self._bytes += sys.getsizeof(packed)

    def _sound(self, packed: bytes) -> bytes:
        """Return a compressed group, of which it is certain that it opens to eight frames, and takes no more memory."""
        raw = GROUP * self._frame_bytes
        try:
            if self._size_of(packed) == raw and len(self._decompress(packed, allow_extra_data=False)) == raw:
                return packed
        except (self._error, ValueError):
            pass
        raise RunError("its compressed frames can't be opened")

    def _group(self, group: int) -> bytes:
        packed = self._packed.get(group)
        whole: bytes = self._open[group].tobytes() if packed is None else self._decompress(packed)
        return whole


def load_zstandard() -> Any:
    """Import the package that compresses.

    Raises:
        ConfigError: it isn't installed; says which command installs it.
    """
    try:
        return importlib.import_module("zstandard")
    except ImportError:
        raise ConfigError('zstandard is not installed; get it with: pip install "nexus[atari]"') from None
