"""Which replay a config asks for, and what it takes."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import DTypeLike

from nexus.core.seeding import generator
from nexus.data.device_priorities import DevicePriorities, Uniform
from nexus.data.device_replay import DeviceReplay
from nexus.data.frame_index import MOST_FRAMES
from nexus.data.frame_replay import (
    FrameReplay,
    Kind,
    frame_replay_bytes,
    require_memory_for_frames,
    room_for_frames,
)
from nexus.data.memory import CPU, memory_on, replay_bytes, require_memory
from nexus.data.prioritized_replay_buffer import PrioritizedReplayBuffer
from nexus.data.replay_buffer import ReplayBuffer
from nexus.data.rollout_buffer import RolloutBuffer, Values
from nexus.training.config import TrainConfig

__all__ = ["AnyReplay", "replay_for", "replay_memory", "saved_bytes", "store_for"]

SHARE = 0.8  # of what is free on a GPU: networks and batches want some too
AnyReplay = ReplayBuffer | PrioritizedReplayBuffer | FrameReplay | DeviceReplay | RolloutBuffer


def store_for(
    config: TrainConfig, state_shape: tuple[int, ...], state_dtype: DTypeLike, device: torch.device = CPU
) -> Literal["full", "raw", "compressed", "device"]:
    """Return how states are stored; `auto` keeps stacked images of bytes on a GPU that has room, else compressed.

    Whoever resumes may find less room there: compressed frames and those of a device are the same in a checkpoint.
    """
    if config.trace_decay is not None:
        return "full"
    if config.replay_store != "auto":
        return config.replay_store
    if not (np.dtype(state_dtype) == np.uint8 and len(state_shape) >= 3 and 2 <= config.frame_stack <= MOST_FRAMES):
        return "full"
    free = None if device.type == "cpu" else memory_on(device)
    needed = room_for_frames(config.replay_capacity, state_shape, state_dtype, "device")
    return "device" if free is not None and needed < SHARE * free else "compressed"


def replay_memory(
    config: TrainConfig, state_shape: tuple[int, ...], state_dtype: DTypeLike, device: torch.device = CPU
) -> int:
    """Return the bytes of the full replay; of compressed frames an estimate.

    Raises:
        ConfigError: it can't fit; says what would.
    """
    store, capacity = store_for(config, state_shape, state_dtype, device), config.replay_capacity
    if store == "full":
        require_memory(capacity, state_shape, state_dtype)
        return replay_bytes(capacity, state_shape, state_dtype)
    require_memory_for_frames(capacity, state_shape, state_dtype, store, device)
    return frame_replay_bytes(capacity, state_shape, state_dtype, store)


def saved_bytes(
    config: TrainConfig, state_shape: tuple[int, ...], state_dtype: DTypeLike, device: torch.device = CPU
) -> int:
    """Return about what a full replay takes in checkpoints; what lies on a device is packed there."""
    store = store_for(config, state_shape, state_dtype, device)
    if store == "full":
        return replay_bytes(config.replay_capacity, state_shape, state_dtype)
    kind: Kind = "raw" if store == "raw" else "compressed"
    return frame_replay_bytes(config.replay_capacity, state_shape, state_dtype, kind)


def replay_for(
    config: TrainConfig,
    state_shape: tuple[int, ...] = (),
    state_dtype: DTypeLike = np.float32,
    device: torch.device = CPU,
    values: Values | None = None,
) -> AnyReplay:
    """Return the empty replay that the config asks for, for states of this shape and dtype, and an agent there.

    Where the config has a trace decay it is a rollout, and `values` tells what its next states are worth.
    """
    rng, capacity = generator(config.seed, "replay"), config.replay_capacity
    if config.trace_decay is not None:
        assert values is not None
        return RolloutBuffer(capacity, config.num_envs, config.trace_decay, rng, values)
    exponents = config.priority_exponent, config.importance_exponent
    store = store_for(config, state_shape, state_dtype, device)
    like = np.broadcast_to(np.zeros((), state_dtype), (config.num_envs, *state_shape))
    if store == "device":
        picker = DevicePriorities(capacity, rng, *exponents, device) if config.prioritized else Uniform(rng)
        return DeviceReplay(capacity, picker, config.n_step, like, device)
    rows = PrioritizedReplayBuffer(capacity, rng, *exponents) if config.prioritized else ReplayBuffer(capacity, rng)
    return rows if store == "full" else FrameReplay(rows, store, config.n_step, like)
