"""Which replay a config asks for, and what it takes."""

from typing import Literal

import numpy as np
from numpy.typing import DTypeLike

from nexus.core.seeding import generator
from nexus.data.frame_replay import FrameReplay, frame_replay_bytes, require_memory_for_frames
from nexus.data.frame_store import MOST_FRAMES
from nexus.data.memory import replay_bytes, require_memory
from nexus.data.prioritized_replay_buffer import PrioritizedReplayBuffer
from nexus.data.replay_buffer import ReplayBuffer
from nexus.training.config import TrainConfig

__all__ = ["AnyReplay", "replay_for", "replay_memory", "store_for"]

AnyReplay = ReplayBuffer | PrioritizedReplayBuffer | FrameReplay


def store_for(
    config: TrainConfig, state_shape: tuple[int, ...], state_dtype: DTypeLike
) -> Literal["full", "raw", "compressed"]:
    """Return how states are stored; `auto` compresses stacked images of bytes."""
    if config.replay_store != "auto":
        return config.replay_store
    images = np.dtype(state_dtype) == np.uint8 and len(state_shape) >= 3 and 2 <= config.frame_stack <= MOST_FRAMES
    return "compressed" if images else "full"


def replay_memory(config: TrainConfig, state_shape: tuple[int, ...], state_dtype: DTypeLike) -> int:
    """Return the bytes of the full replay; of compressed frames an estimate.

    Raises:
        ConfigError: it can't fit; says what would.
    """
    store, capacity = store_for(config, state_shape, state_dtype), config.replay_capacity
    if store == "full":
        require_memory(capacity, state_shape, state_dtype)
        return replay_bytes(capacity, state_shape, state_dtype)
    require_memory_for_frames(capacity, state_shape, state_dtype, store)
    return frame_replay_bytes(capacity, state_shape, state_dtype, store)


def replay_for(
    config: TrainConfig, state_shape: tuple[int, ...] = (), state_dtype: DTypeLike = np.float32
) -> AnyReplay:
    """Return the empty replay that the config asks for, for states of this shape and dtype."""
    rng, capacity = generator(config.seed, "replay"), config.replay_capacity
    rows = (
        PrioritizedReplayBuffer(capacity, rng, config.priority_exponent, config.importance_exponent)
        if config.prioritized
        else ReplayBuffer(capacity, rng)
    )
    store = store_for(config, state_shape, state_dtype)
    like = np.broadcast_to(np.zeros((), state_dtype), (config.num_envs, *state_shape))
    return rows if store == "full" else FrameReplay(rows, store, config.n_step, like)
