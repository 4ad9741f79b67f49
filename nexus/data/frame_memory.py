"""Memory needed by replays of frames and memory available, checked before anything is allocated."""

import numpy as np
import torch
from numpy.typing import DTypeLike

from nexus.core.errors import ConfigError
from nexus.data.frame_store import Kind
from nexus.data.memory import CPU, memory_on, replay_bytes

__all__ = ["SPARE", "frame_replay_bytes", "require_memory_for_frames", "room_for_frames"]

SPARE = 1.25  # raw frames to reserve per transition; main memory that is never written takes no space
COMPRESSED = 0.03  # of raw, the estimate in advance; on Atari 0.01 to 0.04 was measured


def frame_replay_bytes(capacity: int, state_shape: tuple[int, ...], state_dtype: DTypeLike, kind: Kind) -> int:
    """Estimate the bytes of a full replay of frames; the compression ratio is a guess from Atari."""
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
    """Raise `ConfigError` if a replay of this size can't fit; the message says what would."""
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
    """Return the bytes that must be free: on a device the whole reservation counts, used or not."""
    spare = SPARE if kind == "device" else 1.0
    return int(spare * frame_replay_bytes(capacity, state_shape, state_dtype, kind))
