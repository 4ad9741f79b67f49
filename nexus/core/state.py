"""State as plain arrays and values by name, so that it can be saved without pickle and validated when restored.

Arrays are NumPy's; everything else is representable in JSON. Nested state is flattened with dots: `replay.rng`.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from nexus.core.errors import RunError, one_line
from nexus.core.types import Array

__all__ = [
    "Series",
    "State",
    "array_from",
    "arrays_of",
    "below",
    "count_from",
    "number_from",
    "part",
    "restore_generator",
    "restore_tensors",
    "restore_torch_generator",
    "value_from",
]

State: TypeAlias = dict[str, Any]

Plain = TypeVar("Plain")
PROCESSOR = len(torch.Generator().get_state())  # bytes of a CPU generator's state
ACCELERATOR = range(8, 65)  # likewise: 16 for CUDA, some more for others


@dataclass(frozen=True)
class Series:
    """Numbered items, added at one end and dropped at the other, in the form that checkpoints save.

    An item never changes after the replay was sealed, so a checkpoint writes only items new since the last one.
    """

    name: str  # name of the kind of items
    first: int  # number of the oldest stored item
    last: int  # one past the number of the newest item
    most: int  # most items stored at the same time
    most_bytes: int  # most bytes a valid item can take
    get: Callable[[int, int], dict[str, Array]]  # copies items number `first` to `last - 1`, as columns
    # `put(first, last, wanted, columns)` restores such columns, except items before number `wanted`. Calls come in
    # order, without a gap. Raises `RunError` unless the columns fit.
    put: Callable[[int, int, int, Mapping[str, Array]], None]


def below(name: str, state: State) -> State:
    """Return a state with `name.` prefixed to each of its names."""
    return {f"{name}.{key}": value for key, value in state.items()}


def part(state: State, name: str) -> State:
    """Return the part of a state that `below` put under a name."""
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}


def arrays_of(tensors: Mapping[str, Tensor]) -> State:
    """Return copies of tensors, which later steps don't change."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()}


def value_from(state: State, name: str, kind: type[Plain]) -> Plain:
    """Return a plain value.

    Raises:
        RunError: it is missing or of another type.
    """
    value = state.get(name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise RunError(f"the state has no {kind.__name__} {name!r}")
    return value


def number_from(state: State, name: str, low: float = -math.inf, high: float = math.inf) -> float:
    """Return a finite number in [low, high].

    Raises:
        RunError: it is missing, not a number, or out of range.
    """
    value = state.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value)):
        raise RunError(f"the state has no finite number {name!r}")
    if not low <= value <= high:
        raise RunError(f"the state has {name} = {value}: needs {low:g} to {high:g}")
    return value


def count_from(state: State, name: str, low: int = 0, high: int = 2**53) -> int:
    """Return a whole number in [low, high].

    Raises:
        RunError: it is missing, not a whole number, or out of range.
    """
    number_from({name: value_from(state, name, int)}, name, low, high)
    return value_from(state, name, int)


def array_from(state: State, name: str, like: Array, finite: bool = True) -> Array:
    """Return an array with the shape and dtype of `like`.

    Raises:
        RunError: it is missing, does not fit, or contains NaN or infinity although `finite` is set.
    """
    array = state.get(name)
    if not isinstance(array, np.ndarray):
        raise RunError(f"the state has no array {name!r}")
    if array.shape != like.shape or array.dtype != like.dtype:
        raise RunError(f"{name} is {array.dtype} of shape {array.shape}: needs {like.dtype} of shape {like.shape}")
    if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
        raise RunError(f"{name} contains NaN or infinity: the run diverged, or the file is damaged")
    return array


def restore_tensors(tensors: Mapping[str, Tensor], state: State) -> None:
    """Fill tensors with what `arrays_of` returned.

    Raises:
        RunError: an array is missing, does not fit, or is not finite.
    """
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(array_from(state, name, tensor.detach().cpu().numpy())))


def restore_generator(rng: np.random.Generator, state: State, name: str) -> None:
    """Set a NumPy generator to a saved state.

    Raises:
        RunError: it is missing or not a state of such a generator.
    """
    saved = value_from(state, name, dict)
    try:
        rng.bit_generator.state = saved
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RunError(f"{name} is not a state of a generator: {one_line(error)}") from None


def is_of_another_kind(saved: tuple[int, ...], own: tuple[int, ...]) -> bool:
    """True if one state is a CPU generator's, some thousand bytes, and the other an accelerator's."""
    return len(saved) == 1 and (saved[0] == PROCESSOR) != (own[0] == PROCESSOR) and min(saved[0], own[0]) in ACCELERATOR


def restore_torch_generator(generator: torch.Generator, state: State, name: str) -> None:
    """Set a torch generator to a saved state; torch itself validates the bytes.

    Device types draw differently: after restoring a state of another type the draws differ, but reproducibly.

    Raises:
        RunError: it is missing or not a state of a generator.
    """
    own, saved = generator.get_state().numpy(), state.get(name)
    if isinstance(saved, np.ndarray) and saved.dtype == own.dtype and is_of_another_kind(saved.shape, own.shape):
        generator.manual_seed(int.from_bytes(hashlib.sha256(saved.tobytes()).digest()[:7], "little"))
        return
    saved = array_from(state, name, own)
    try:
        generator.set_state(torch.from_numpy(saved))
    except RuntimeError as error:
        raise RunError(f"{name} is not a state of a generator: {one_line(error)}") from None
