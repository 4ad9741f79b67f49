"""States in older checkpoints, which stored one-hot vectors in eight bytes per number; now one byte is used."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from nexus.core.errors import RunError
from nexus.core.state import Series, State
from nexus.core.types import Array
from nexus.training.checkpoint import FRAMES

__all__ = ["narrowed", "narrowed_series", "times_as_wide"]

THEN, NOW = np.dtype(np.int64), np.dtype(np.int8)
STATES = ("states", "next_states")  # the last parts of their names


def times_as_wide(dtype: DTypeLike) -> int:
    """Return how many times larger a state of this dtype can be in an older checkpoint."""
    return THEN.itemsize if np.dtype(dtype) == NOW else 1


def narrowed(values: Mapping[str, Any], shape: tuple[int, ...], dtype: DTypeLike) -> State:
    """Return a checkpoint's values, with its states cast to the current dtype if that changes no number.

    Args:
        values: by name; other values than states are returned unchanged.
        shape: shape of a state.
        dtype: current dtype of a state.
    """
    if np.dtype(dtype) != NOW:
        return dict(values)
    return {name: value.astype(NOW) if is_wide(name, value, shape) else value for name, value in values.items()}


def narrowed_series(series: tuple[Series, ...], state: State, shape: tuple[int, ...], dtype: DTypeLike) -> list[Series]:
    """Return series that also accept an older checkpoint's chunks.

    Args:
        series: the replay's series.
        state: the checkpoint's state as read.
        shape: shape of a state.
        dtype: current dtype of a state.

    Raises:
        RunError: the checkpoint's chunks have packed frames of eight bytes per number.
    """
    were_wide = np.dtype(dtype) == NOW and is_wide("stream.states", state.get("stream.states"), shape)
    if were_wide and any(own.name == FRAMES for own in series):
        raise RunError(
            "its frames have eight bytes per number, as older versions stored them, so it can't be resumed; it can "
            "still be loaded, evaluated and watched"
        )
    return [narrowed_one(own, shape, dtype) for own in series]


def narrowed_one(series: Series, shape: tuple[int, ...], dtype: DTypeLike) -> Series:
    """Return a series that accepts chunks with wide states."""

    def put(first: int, last: int, wanted: int, columns: Mapping[str, Array]) -> None:
        series.put(first, last, wanted, narrowed(columns, shape, dtype))

    return replace(series, most_bytes=times_as_wide(dtype) * series.most_bytes, put=put)


def is_wide(name: str, value: Any, shape: tuple[int, ...]) -> bool:
    """True for states of zeros and ones in eight bytes each."""
    if name.rpartition(".")[2] not in STATES or not isinstance(value, np.ndarray) or value.dtype != THEN:
        return False
    are_states = value.ndim > len(shape) and value.shape[value.ndim - len(shape) :] == shape
    return are_states and bool(((value == 0) | (value == 1)).all())
