"""What replays of frames take, and what is free: said before anything is allocated."""

import numpy as np
import torch
from numpy.typing import DTypeLike

from nexus.core.errors import ConfigError
from nexus.data.frame_store import Kind
from nexus.data.memory import CPU, memory_on, replay_bytes

__all__ = ["SPARE", "frame_replay_bytes", "require_memory_for_frames", "room_for_frames"]

SPARE = 1.25  # room for raw frames over one per transition; in main memory what is never written takes none
COMPRESSED = 0.03  # of raw: what is said in advance; measured on Atari it is 0.01 to 0.04


def frame_replay_bytes(capacity: int, state_shape: tuple[int, ...], state_dtype: DTypeLike, kind: Kind) -> int:
    """Return about what a full replay of frames takes, in bytes; what compression leaves is a guess from Atari."""
    frame = int(np.prod(state_shape[1:], dtype=np.int64)) * np.dtype(state_dtype).itemsize
    kept = int(COMPRESSED * frame) + 16 if kind == "compressed" else frame
    return replay_bytes(capacity, (), np.int64) + int(1.01 * capacity) * (kept + 3)


def require_memory_for_frames(
    capacity: int,
    state_shape: tuple[int, ...],
    state_dtype: DTypeLike,
    kind: Kind = "raw",
    device: torch.device = CPU,
) -> None:
    """Raise `ConfigError` if a replay of this size can't fit, and say what would."""
    where = device if kind == "device" else CPU
    needed, free = room_for_frames(capacity, state_shape, state_dtype, kind), memory_on(where)
    if free is not None and needed > free:
        fits = free * capacity // needed
        other = "" if kind == "compressed" else ", or replay_store compressed"
        what = f"frames on {where}" if kind == "device" else f"{kind} frames"
        raise ConfigError(
            f"replay_capacity = {capacity} needs {needed / 1e6:,.0f} MB for {what} of shape {state_shape[1:]}, "
            f"{free / 1e6:,.0f} MB are free: at most {fits} transitions fit{other}"
        )


def room_for_frames(capacity: int, state_shape: tuple[int, ...], state_dtype: DTypeLike, kind: Kind) -> int:
    """Return the bytes that must be free: on a device all of what is set aside counts, used or not."""
    spare = SPARE if kind == "device" else 1.0
    return int(spare * frame_replay_bytes(capacity, state_shape, state_dtype, kind))
