"""Memory needed by replays and memory available, checked before anything is allocated."""

import os

import numpy as np
import torch
from numpy.typing import DTypeLike

from nexus.core.errors import ConfigError

__all__ = ["CPU", "available_memory", "memory_on", "replay_bytes", "require_memory", "require_memory_for_priorities"]

CPU = torch.device("cpu")


def replay_bytes(capacity: int, state_shape: tuple[int, ...], state_dtype: DTypeLike) -> int:
    """Return the bytes of a full replay: two states, an action, a reward and a discount per row."""
    state = int(np.prod(state_shape, dtype=np.int64)) * np.dtype(state_dtype).itemsize
    return capacity * (2 * state + 8 + 4 + 4)


def available_memory() -> int | None:
    """Return the bytes of available memory, or None if the system does not report them."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def memory_on(device: torch.device) -> int | None:
    """Return the bytes available on a device, or None if unknown."""
    if device.type == "cpu":
        return available_memory()
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def require_memory(
    capacity: int, state_shape: tuple[int, ...], state_dtype: DTypeLike, beside: int = 0, name: str = "replay_capacity"
) -> None:
    """Raise `ConfigError` if a replay of this size, with `beside` more bytes per row, can't fit.

    Args:
        capacity: rows.
        state_shape: shape of one state.
        state_dtype: dtype of its numbers.
        beside: bytes of a row apart from its two states, action, reward and discount.
        name: name of the setting for the capacity.
    """
    row, free = replay_bytes(1, state_shape, state_dtype) + beside, available_memory()
    needed = capacity * row
    if free is not None and needed > free:
        raise ConfigError(
            f"{name} = {capacity} needs {needed / 1e6:,.0f} MB for states of shape {state_shape}, "
            f"{free / 1e6:,.0f} MB are free: at most {free // row} transitions fit"
        )


def require_memory_for_priorities(capacity: int) -> None:
    """Raise `ConfigError` if the priorities alone can't fit; the rows are checked when their shape is known."""
    needed, free = 8 * capacity, available_memory()
    if free is not None and needed > free:
        raise ConfigError(
            f"replay_capacity = {capacity} needs {needed / 1e6:,.0f} MB for priorities, {free / 1e6:,.0f} MB are free"
        )
