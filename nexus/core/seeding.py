"""One seed, split into independent streams of randomness."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import numpy as np
import torch

__all__ = ["Stream", "generator", "seed_at", "seed_of", "seeded_initialisation", "torch_generator"]

# New streams go to the end: the place of a stream is its key, and runs made before must stay as they were.
Stream = Literal["initialisation", "exploration", "replay", "environments", "evaluation", "noise", "levels"]


def generator(seed: int, stream: Stream) -> np.random.Generator:
    """Return the generator of one stream; streams of one seed are independent, and so are seeds."""
    return np.random.default_rng(sequence(seed, stream))


def seed_of(seed: int, stream: Stream) -> int:
    """Return a plain 31-bit seed for one stream, for libraries that take no generator."""
    return int(sequence(seed, stream).generate_state(1)[0] >> 1)


def seed_at(seed: int, stream: Stream, steps: int) -> int:
    """Return the seed of a stream for a part of a run that begins after so many steps; at 0 it is `seed_of`."""
    if steps == 0:
        return seed_of(seed, stream)
    key = (get_args(Stream).index(stream), steps)
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1)[0] >> 1)


def torch_generator(seed: int, stream: Stream, device: torch.device | str = "cpu") -> torch.Generator:
    """Return torch's generator of one stream, on a device."""
    return torch.Generator(device).manual_seed(seed_of(seed, stream))


@contextmanager
def seeded_initialisation(seed: int) -> Iterator[None]:
    """Let the networks that are made inside draw their weights from one seed; the global generator is put back."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(seed, "initialisation"))
        yield


def sequence(seed: int, stream: Stream) -> np.random.SeedSequence:
    """Return the seed sequence behind one stream."""
    return np.random.SeedSequence(seed, spawn_key=(get_args(Stream).index(stream),))
