"""Several arrays in one row of bytes: the form in which a structured observation is stored and reaches the network.

Bytes, because a row of float32 would make an image four times as large, and one of float64 eight times. A part takes
one byte per number if its dtype is that small, else as float32, in which networks compute anyway.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from math import prod
from typing import Any, TypeAlias

import numpy as np

from nexus.core.errors import nearest
from nexus.core.types import Array

__all__ = ["PART_DTYPES", "Layout", "Part", "Path", "find", "nested", "place"]

Path: TypeAlias = tuple[str | int, ...]
"""The keys of Dicts and the indices of Tuples that lead to a part of an observation."""

PART_DTYPES = ("float32", "int8", "bool", "uint8")  # in their order within a row


@dataclass(frozen=True)
class Part:
    """One array of an observation, as passed to a network.

    Args:
        path: its path in an observation.
        shape: `[*part]`; a discrete number is a one-hot vector.
        dtype: one of `PART_DTYPES`.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: str

    @property
    def count(self) -> int:
        """The count of its numbers."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The size in bytes."""
        return self.count * np.dtype(self.dtype).itemsize

    def __str__(self) -> str:
        return f"{place(self.path)} {self.dtype}{list(self.shape)}"


@dataclass(frozen=True)
class Layout:
    """The parts of an observation, in their order within a row."""

    parts: tuple[Part, ...]

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """The bytes of each part."""
        ends = accumulate((part.nbytes for part in self.parts), initial=0)
        return tuple(slice(start, end) for start, end in pairwise(ends))

    @property
    def nbytes(self) -> int:
        """Length `N` of a row."""
        return sum(part.nbytes for part in self.parts)

    def pack(self, values: Sequence[Array]) -> Array:
        """Return `[..., N]` uint8 from an array `[..., *part]` for each part, in its dtype or one convertible to it."""
        rows = []
        for part, value in zip(self.parts, values, strict=True):
            batch = value.shape[: value.ndim - len(part.shape)]
            rows.append(np.ascontiguousarray(value, part.dtype).reshape(*batch, part.count).view(np.uint8))
        packed: Array = np.concatenate(rows, -1)
        return packed

    def unpack(self, states: Array) -> list[Array]:
        """Return the array `[..., *part]` of each part from `[..., N]` uint8."""
        return [
            np.ascontiguousarray(states[..., where]).view(part.dtype).reshape((*states.shape[:-1], *part.shape))
            for part, where in zip(self.parts, self.slices, strict=True)
        ]

    def observation(self, state: Array) -> Any:
        """Return a state `[N]` as the environment's observation has it: its parts in mappings and tuples."""
        return nested(dict(zip([part.path for part in self.parts], self.unpack(state), strict=True)))

    def __str__(self) -> str:
        return ", ".join(map(str, self.parts))


def place(path: Path) -> str:
    """Return the text for a part:  `observation['camera']`, or `observation[0]` in a Tuple."""
    return "observation" + "".join(f"[{step!r}]" for step in path)


def find(observation: Any, path: Path) -> Any:
    """Return the value at a path of an observation.

    Raises:
        LookupError: there is none; the message says what there is.
    """
    found = observation
    for depth, step in enumerate(path):
        here = place(path[:depth])
        if isinstance(step, str):
            if not isinstance(found, Mapping):
                raise LookupError(f"{here} is of type {type(found).__name__}: needs a mapping with {step!r}")
            if step not in found:
                there = list(map(str, found))
                said = f"only {', '.join(map(repr, there))}" if there else "it is empty"
                raise LookupError(f"{here} has no {step!r}, {said}{nearest(step, there, 1)}")
        elif not isinstance(found, tuple | list):
            raise LookupError(f"{here} is of type {type(found).__name__}: needs a tuple")
        elif len(found) <= step:
            raise LookupError(f"{here} has {len(found)} entries: needs at least {step + 1}")
        found = found[step]
    return found


def nested(values: Mapping[Path, Any]) -> Any:
    """Return values in mappings and tuples, each at its path."""
    if () in values:
        return values[()]
    steps = dict.fromkeys(path[0] for path in values)
    found = {step: nested({path[1:]: value for path, value in values.items() if path[0] == step}) for step in steps}
    return found if any(isinstance(step, str) for step in steps) else tuple(found[step] for step in sorted(found))
