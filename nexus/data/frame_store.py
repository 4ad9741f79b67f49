"""Stores for the bytes of frames, addressed by number (see `frame_index`)."""

import importlib
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from nexus.core.errors import ConfigError, RunError
from nexus.core.installation import not_installed
from nexus.core.state import array_from
from nexus.core.types import Array, Ints
from nexus.data.frame_index import GROUP

__all__ = [
    "CompressedFrames",
    "DeviceFrames",
    "FrameStore",
    "Kind",
    "RawFrames",
    "frame_store",
    "load_zstandard",
]

Kind = Literal["raw", "compressed", "device"]
"""Uncompressed frames, compressed to about a hundredth, or uncompressed on the network's device."""


class FrameStore(Protocol):
    """Stores the bytes of frames by number."""

    def write(self, numbers: Ints, frames: Array) -> None:
        """Store frames `[K, F]` as bytes; each group is filled from its first slot on."""

    def read(self, numbers: Ints) -> Tensor:
        """Return a copy of frames `[K, F]`, on the store's device."""

    def release(self, first: int, last: int) -> None:
        """Drop the groups from `first` to `last - 1`."""

    def close(self, numbers: Ints) -> None:
        """Close the groups whose next numbers are these `[K]`, filling the remaining slots with zeros."""

    def get(self, first: int, last: int) -> dict[str, Array]:
        """Copy the groups from `first` to `last - 1`, all of them full or closed, as columns."""

    def put(self, first: int, last: int, wanted: int, columns: Mapping[str, Array]) -> None:
        """Restore such groups, except those before `wanted`.

        Raises:
            RunError: the columns do not describe such groups.
        """

    @property
    def most_bytes(self) -> int:
        """Most bytes that a group can take in columns."""

    @property
    def nbytes(self) -> int:
        """Bytes currently used by the frames."""


class Places:
    """Assigns each group its slot in a block of fixed size.

    Args:
        groups: most groups stored at the same time.
    """

    def __init__(self, groups: int) -> None:
        self.touched = 0  # rows of the block (one per frame) ever used; the first ones are used first
        self._most = groups * GROUP
        self._free: list[int] = []  # rows of dropped groups, reused before new memory is touched
        self._rows = np.zeros(1 << math.ceil(math.log2(groups + 1)), np.int64)  # by group modulo its length

    def open(self, numbers: Ints) -> None:
        """Assign a slot to each group whose first number is among these.

        Raises:
            ConfigError: no slot is free: episodes are so short that their first frames fill the block.
        """
        for group in (numbers[numbers % GROUP == 0] // GROUP).tolist():
            self._rows[group % len(self._rows)] = self._take()

    def at(self, numbers: Ints) -> Ints:
        """Return the rows `[K]` of these numbers."""
        return self._rows[(numbers // GROUP) % len(self._rows)] + numbers % GROUP

    def release(self, first: int, last: int) -> None:
        """Free the slots of groups `first` to `last - 1`."""
        self._free += self._rows[np.arange(first, last) % len(self._rows)].tolist()

    def rest(self, numbers: Ints) -> list[tuple[int, int]]:
        """Return the ranges of unused rows in the groups whose next numbers are these."""
        return [(row, row + GROUP - int(number % GROUP)) for number, row in zip(numbers, self.at(numbers), strict=True)]

    def _take(self) -> int:
        if self._free:
            return self._free.pop()
        if self.touched == self._most:
            raise ConfigError(
                "replay_store: no room for raw frames, since episodes have fewer than 4 steps on average, or "
                "there are few steps between checkpoints; use compressed"
            )
        self.touched += GROUP
        return self.touched - GROUP


class RawFrames:
    """Uncompressed frames in one preallocated array.

    Args:
        frame_bytes: `F`.
        groups: most groups stored at the same time.

    Raises:
        ConfigError: (from `write`) the array is full.
    """

    def __init__(self, frame_bytes: int, groups: int) -> None:
        self._frames = np.empty((groups * GROUP, frame_bytes), np.uint8)
        self._places = Places(groups)

    def write(self, numbers: Ints, frames: Array) -> None:
        """Store frames `[K, F]`."""
        self._places.open(numbers)
        self._frames[self._places.at(numbers)] = frames

    def read(self, numbers: Ints) -> Tensor:
        """Return a copy of frames `[K, F]`."""
        return torch.from_numpy(self._frames.take(self._places.at(numbers), axis=0))

    def release(self, first: int, last: int) -> None:
        """Drop groups."""
        self._places.release(first, last)

    def close(self, numbers: Ints) -> None:
        """Close groups that are not full."""
        for first, last in self._places.rest(numbers):
            self._frames[first:last] = 0

    def get(self, first: int, last: int) -> dict[str, Array]:
        """Copy groups as `frames` `[G, 8, F]`."""
        rows = self._places.at(np.arange(GROUP * first, GROUP * last))
        return {"frames": self._frames.take(rows, axis=0).reshape(-1, GROUP, self._frames.shape[1])}

    def put(self, first: int, last: int, wanted: int, columns: Mapping[str, Array]) -> None:
        """Restore groups, except those before `wanted`.

        Raises:
            ConfigError: the store is full.
            RunError: the columns don't fit.
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
        """Bytes that have been written to."""
        return self._places.touched * self._frames.shape[1]


class DeviceFrames:
    """Uncompressed frames in one preallocated tensor on the network's device; checkpoints store them compressed.

    Args:
        frame_bytes: `F`.
        groups: most groups stored at the same time.
        device: the tensor's device.

    Raises:
        ConfigError: the package zstandard is missing; (from `write`) the tensor is full.
    """

    def __init__(self, frame_bytes: int, groups: int, device: torch.device) -> None:
        self.blank = groups * GROUP  # row of a frame of zeros, after all others
        self.frames = torch.empty((groups * GROUP + 1, frame_bytes), dtype=torch.uint8, device=device)
        self.frames[self.blank].zero_()
        self._places = Places(groups)
        self._packer = Packer(frame_bytes)

    def write(self, numbers: Ints, frames: Array) -> None:
        """Store frames `[K, F]`."""
        self._places.open(numbers)
        given = torch.from_numpy(np.array(frames))  # torch requires writable memory
        self.frames.index_copy_(0, self._rows(numbers), given.to(self.frames.device, non_blocking=True))

    def read(self, numbers: Ints) -> Tensor:
        """Return a copy of frames `[K, F]`, on the device."""
        return self.frames.index_select(0, self._rows(numbers))

    def at(self, numbers: Ints) -> Ints:
        """Return the rows of `frames` that hold these numbers."""
        return self._places.at(numbers)

    def release(self, first: int, last: int) -> None:
        """Drop groups."""
        self._places.release(first, last)

    def close(self, numbers: Ints) -> None:
        """Close groups that are not full."""
        for first, last in self._places.rest(numbers):
            self.frames[first:last].zero_()

    def get(self, first: int, last: int) -> dict[str, Array]:
        """Return groups in the format of `CompressedFrames`."""
        frames = self.read(np.arange(GROUP * first, GROUP * last)).view(last - first, -1).numpy(force=True)
        return self._packer.columns([self._packer.pack(group) for group in frames])

    def put(self, first: int, last: int, wanted: int, columns: Mapping[str, Array]) -> None:
        """Restore groups, except those before `wanted`.

        Raises:
            ConfigError: the store is full.
            RunError: the columns don't fit.
        """
        for number, packed in enumerate(self._packer.groups(columns, last - first), first):
            if number >= wanted:
                frames = self._packer.sound(packed).reshape(GROUP, -1)
                self.write(np.arange(GROUP * number, GROUP * number + GROUP), frames)

    @property
    def most_bytes(self) -> int:
        """Most bytes that a group can take in a checkpoint."""
        return self._packer.most_bytes

    @property
    def nbytes(self) -> int:
        """Bytes that have been written to."""
        return self._places.touched * self.frames.shape[1]

    def _rows(self, numbers: Ints) -> Tensor:
        return torch.from_numpy(self.at(numbers)).to(self.frames.device, non_blocking=True)


class Packer:
    """Compresses groups of eight frames with Zstandard, singly and as columns of a checkpoint.

    Its window spans a group, so it finds what the frames share: an exclusive or with the previous frame beforehand
    makes the groups of all five Atari games measured larger, and slower to open (`docs/atari.md`).

    Args:
        frame_bytes: `F`.

    Raises:
        ConfigError: the package zstandard is missing.
    """

    def __init__(self, frame_bytes: int) -> None:
        zstandard = load_zstandard()
        self.unpack = zstandard.ZstdDecompressor().decompress
        self._compress = zstandard.ZstdCompressor(level=3).compress
        self._size_of = zstandard.frame_content_size
        self._error: type[Exception] = zstandard.ZstdError
        self._raw = GROUP * frame_bytes

    def pack(self, group: Array) -> bytes:
        """Compress a group of `8 F` bytes.

        The result is copied: the compressor returns part of a block allocated for the worst case, whose remainder is
        too small to reuse. Kept without a copy, it would take as much memory as raw frames.
        """
        return bytes(memoryview(self._compress(group)))

    def sound(self, packed: bytes) -> Array:
        """Decompress and validate a group `[8 F]` read from a file.

        Raises:
            RunError: it does not decompress to eight frames, or takes more memory than that.
        """
        try:
            if self._size_of(packed) == self._raw:
                opened = np.frombuffer(self.unpack(packed, allow_extra_data=False), np.uint8)
                if len(opened) == self._raw:
                    return opened
        except (self._error, ValueError):
            pass
        raise RunError("its compressed frames can't be opened")

    def columns(self, groups: Sequence[bytes]) -> dict[str, Array]:
        """Return packed groups as `packed`, concatenated, and `sizes` `[G]` in bytes."""
        sizes = np.array([len(packed) for packed in groups], np.int64)
        return {"packed": np.frombuffer(b"".join(groups), np.uint8), "sizes": sizes}

    def groups(self, columns: Mapping[str, Array], count: int) -> list[bytes]:
        """Return the packed groups in such columns, without checking that they decompress.

        Raises:
            RunError: the number of groups differs from `count`, or sizes are impossible.
        """
        sizes = array_from(dict(columns), "sizes", np.empty(count, np.int64))
        if not ((sizes > 0) & (sizes <= self.most_bytes)).all():
            raise RunError("its compressed frames have impossible sizes")
        packed = array_from(dict(columns), "packed", np.broadcast_to(np.uint8(0), (int(sizes.sum()),))).tobytes()
        ends = np.cumsum(sizes)
        return [packed[start:end] for start, end in zip((ends - sizes).tolist(), ends.tolist(), strict=True)]

    @property
    def most_bytes(self) -> int:
        """Most bytes that a group can take: incompressible data grows a little, up to Zstandard's bound."""
        return self._raw + self._raw // 128 + 512


class CompressedFrames:
    """Groups of eight frames, each packed as soon as it is full.

    Args:
        frame_bytes: `F`.

    Raises:
        ConfigError: the package zstandard is missing.
    """

    def __init__(self, frame_bytes: int) -> None:
        self._packer = Packer(frame_bytes)
        self._frame_bytes = frame_bytes
        self._packed: dict[int, bytes] = {}
        self._open: dict[int, Array] = {}  # groups that are not full yet, [8, F] each
        self._bytes = 0

    def write(self, numbers: Ints, frames: Array) -> None:
        """Store frames `[K, F]`; a full group is compressed."""
        for number, frame in zip(numbers.tolist(), frames, strict=True):
            group, place = divmod(number, GROUP)
            if place == 0:
                self._open[group] = np.zeros((GROUP, self._frame_bytes), np.uint8)
            self._open[group][place] = frame
            if place == GROUP - 1:
                self._keep(group, self._packer.pack(self._open.pop(group)))

    def read(self, numbers: Ints) -> Tensor:
        """Return a copy of frames `[K, F]`."""
        wanted, which = np.unique(numbers // GROUP, return_inverse=True)
        groups = np.frombuffer(b"".join(map(self._group, wanted.tolist())), np.uint8)
        return torch.from_numpy(groups.reshape(-1, self._frame_bytes).take(which * GROUP + numbers % GROUP, axis=0))

    def release(self, first: int, last: int) -> None:
        """Drop groups."""
        for group in range(first, last):
            packed = self._packed.pop(group, b"")
            self._bytes -= sys.getsizeof(packed) if packed else 0

    def close(self, numbers: Ints) -> None:
        """Close groups that are not full."""
        for group in (numbers // GROUP).tolist():
            self._keep(group, self._packer.pack(self._open.pop(group)))

    def get(self, first: int, last: int) -> dict[str, Array]:
        """Return groups as stored: `packed`, concatenated, and `sizes` `[G]` in bytes."""
        return self._packer.columns([self._packed[group] for group in range(first, last)])

    def put(self, first: int, last: int, wanted: int, columns: Mapping[str, Array]) -> None:
        """Restore groups, except those before `wanted`. Each is decompressed once to validate it.

        Raises:
            RunError: the columns don't fit.
        """
        for group, packed in enumerate(self._packer.groups(columns, last - first), first):
            if group >= wanted:
                self._packer.sound(packed)
                self._keep(group, packed)

    @property
    def most_bytes(self) -> int:
        """Most bytes that a group can take."""
        return self._packer.most_bytes

    @property
    def nbytes(self) -> int:
        """Bytes currently used by frames, packed or not yet packed."""
        return self._bytes + len(self._open) * GROUP * self._frame_bytes

    def _keep(self, group: int, packed: bytes) -> None:
        self._packed[group] = packed
        self._bytes += sys.getsizeof(packed)

    def _group(self, group: int) -> bytes:
        packed = self._packed.get(group)
        whole: bytes = self._open[group].tobytes() if packed is None else self._packer.unpack(packed)
        return whole


def frame_store(kind: Kind, frame_bytes: int, groups: int, device: torch.device) -> FrameStore:
    """Return an empty store of one kind; see the stores for the arguments.

    Raises:
        ConfigError: a package that it needs is missing.
    """
    if kind == "compressed":
        return CompressedFrames(frame_bytes)
    return RawFrames(frame_bytes, groups) if kind == "raw" else DeviceFrames(frame_bytes, groups, device)


def load_zstandard() -> Any:
    """Import zstandard.

    Raises:
        ConfigError: it isn't installed; the message names the command that installs it.
    """
    try:
        return importlib.import_module("zstandard")
    except ImportError:
        raise ConfigError(not_installed("zstandard", "atari")) from None
