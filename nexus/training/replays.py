"""Choosing the replay for a config, and its memory use."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import DTypeLike

from nexus.core.seeding import generator
from nexus.core.types import Array
from nexus.data.device_priorities import DevicePriorities
from nexus.data.folding import Bonus, FoldingSampler, Goals
from nexus.data.frame_index import MOST_STACKED_FRAMES
from nexus.data.frame_memory import frame_replay_bytes, require_memory_for_frames, room_for_frames
from nexus.data.frame_store import Kind
from nexus.data.frames import Frames
from nexus.data.memory import CPU, memory_on, replay_bytes, require_memory
from nexus.data.prioritized_replay_buffer import Priorities
from nexus.data.protocols import Sampler, Storage
from nexus.data.replay import Replay
from nexus.data.rollout_buffer import RolloutBuffer, Values
from nexus.data.rows import Rows
from nexus.data.uniform import Uniform
from nexus.training.config import TrainConfig

__all__ = ["SAMPLERS", "STORAGES", "AnyReplay", "replay_for", "replay_memory", "saved_bytes", "store_for"]

Store = Literal["full", "raw", "compressed", "device"]
AnyReplay = Replay | RolloutBuffer
GPU_SHARE = 0.8  # of the free memory of a GPU: networks and batches need some too


def frames(kind: Kind, config: TrainConfig, like: Array, device: torch.device) -> Storage:
    """Return a storage of frames of one kind."""
    return Frames(config.replay_capacity, kind, config.stored_steps, like, device)


def priorities(config: TrainConfig, rng: np.random.Generator, device: torch.device) -> Sampler:
    """Return priorities in main memory."""
    return Priorities(config.replay_capacity, rng, config.priority_exponent, config.importance_exponent)


def device_priorities(config: TrainConfig, rng: np.random.Generator, device: torch.device) -> Sampler:
    """Return priorities on a device."""
    return DevicePriorities(config.replay_capacity, rng, config.priority_exponent, config.importance_exponent, device)


STORAGES: Mapping[Store, Callable[[TrainConfig, Array, torch.device], Storage]] = {
    "full": lambda config, like, device: Rows(config.replay_capacity),
    "raw": partial(frames, "raw"),
    "compressed": partial(frames, "compressed"),
    "device": partial(frames, "device"),
}
"""Makes an empty storage for states like `[E, *obs]` and an agent on a device."""

SAMPLERS: Mapping[str, Callable[[TrainConfig, np.random.Generator, torch.device], Sampler]] = {
    "uniform": lambda config, rng, device: Uniform(rng, device),
    "prioritized": priorities,
    "prioritized on a device": device_priorities,
}
"""Makes a sampler that draws with a generator, for a storage that gathers batches on a device."""


def store_for(
    config: TrainConfig, state_shape: tuple[int, ...], state_dtype: DTypeLike, device: torch.device = CPU
) -> Store:
    """Return how states are stored; `auto` keeps stacked byte images on the GPU if they fit, else compressed.

    A resumed run may find less free memory: compressed frames and those on a device look the same in a checkpoint.
    """
    if config.trace_lambda is not None:
        return "full"
    if config.replay_store != "auto":
        return config.replay_store
    if not (
        np.dtype(state_dtype) == np.uint8 and len(state_shape) >= 3 and 2 <= config.frame_stack <= MOST_STACKED_FRAMES
    ):
        return "full"
    free = None if device.type == "cpu" else memory_on(device)
    needed = room_for_frames(config.replay_capacity, state_shape, state_dtype, "device")
    return "device" if free is not None and needed < GPU_SHARE * free else "compressed"


def replay_memory(
    config: TrainConfig, state_shape: tuple[int, ...], state_dtype: DTypeLike, device: torch.device = CPU
) -> int:
    """Return the bytes of the full replay; for compressed frames an estimate.

    Raises:
        ConfigError: it can't fit; the message says what would.
    """
    store, capacity = store_for(config, state_shape, state_dtype, device), config.kept_transitions
    if store == "full":
        require_memory(capacity, state_shape, state_dtype, name=config.capacity_setting)
        return replay_bytes(capacity, state_shape, state_dtype)
    require_memory_for_frames(capacity, state_shape, state_dtype, store, device)
    return frame_replay_bytes(capacity, state_shape, state_dtype, store)


def saved_bytes(
    config: TrainConfig, state_shape: tuple[int, ...], state_dtype: DTypeLike, device: torch.device = CPU
) -> int:
    """Return the approximate bytes of a full replay in checkpoints, where frames on a device are packed."""
    store = store_for(config, state_shape, state_dtype, device)
    if store == "full":
        return replay_bytes(config.kept_transitions, state_shape, state_dtype)
    kind: Kind = "raw" if store == "raw" else "compressed"
    return frame_replay_bytes(config.replay_capacity, state_shape, state_dtype, kind)


def replay_for(
    config: TrainConfig,
    state_shape: tuple[int, ...] = (),
    state_dtype: DTypeLike = np.float32,
    device: torch.device = CPU,
    values: Values | None = None,
    unit: Callable[[], float] = lambda: 1.0,
    *,
    goals: Goals | None = None,
    bonus: Bonus | None = None,
) -> AnyReplay:
    """Return the config's replay, empty, for states of this shape and dtype and an agent on this device.

    With a trace λ it is a rollout: `values` returns the values of its next states, and `unit` the reward they count in.
    With goals or a bonus it folds n-step returns when it draws them.
    """
    rng = generator(config.seed, "replay")
    if config.trace_lambda is not None:
        assert values is not None
        return RolloutBuffer(config.rollout_steps, config.num_envs, config.trace_lambda, rng, values, unit)
    store = store_for(config, state_shape, state_dtype, device)
    like = np.broadcast_to(np.zeros((), state_dtype), (config.num_envs, *state_shape))
    storage = STORAGES[store](config, like, device)
    drawn = "uniform" if not config.prioritized else "prioritized" if store != "device" else "prioritized on a device"
    sampler = SAMPLERS[drawn](config, rng, storage.device)
    if config.folds_when_drawn:
        sampler = FoldingSampler(sampler, config.n_step, goals, bonus)
    return Replay(storage, sampler)
