"""States in checkpoints of an older version, which kept one-hot vectors in eight bytes a number; now they take one."""

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
    """Return how many times its present bytes a state of this dtype may have in an older checkpoint."""
    return THEN.itemsize if np.dtype(dtype) == NOW else 1


def narrowed(values: Mapping[str, Any], shape: tuple[int, ...], dtype: DTypeLike) -> State:
    """Return what a checkpoint holds, with its states in the present dtype if that changes no number.

    Args:
        values: by name; those that are no states are returned as they are.
        shape: of a state.
        dtype: of a state, at present.
    """
    if np.dtype(dtype) != NOW:
        return dict(values)
    return {name: value.astype(NOW) if is_wide(name, value, shape) else value for name, value in values.items()}


def narrowed_series(series: tuple[Series, ...], state: State, shape: tuple[int, ...], dtype: DTypeLike) -> list[Series]:
    """Return series that take on an older checkpoint's chunks, too.

    Args:
        series: of the replay.
        state: of the checkpoint, as it was read.
        shape: of a state.
        dtype: of a state, at present.

    Raises:
        RunError: the checkpoint has frames of eight bytes a number, which lie packed in its chunks.
    """
    were_wide = np.dtype(dtype) == NOW and is_wide("stream.states", state.get("stream.states"), shape)
    if were_wide and any(own.name == FRAMES for own in series):
        raise RunError(
            "its frames have eight bytes a number, as older versions stored them, so it can't go on; it can still be "
            "loaded, evaluated and watched"
        )
    return [narrowed_one(own, shape, dtype) for own in series]


def narrowed_one(series: Series, shape: tuple[int, ...], dtype: DTypeLike) -> Series:
    """Return a series that takes on chunks with wide states."""

    def put(first: int, last: int, wanted: int, columns: Mapping[str, Array]) -> None:
        series.put(first, last, wanted, narrowed(columns, shape, dtype))

    return replace(series, most_bytes=times_as_wide(dtype) * series.most_bytes, put=put)


def is_wide(name: str, value: Any, shape: tuple[int, ...]) -> bool:
    """True for states of zeros and ones in eight bytes each."""
    if name.rpartition(".")[2] not in STATES or not isinstance(value, np.ndarray) or value.dtype != THEN:
        return False
    are_states = value.ndim > len(shape) and value.shape[value.ndim - len(shape) :] == shape
    return are_states and bool(((value == 0) | (value == 1)).all())
