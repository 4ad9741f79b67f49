"""One seed, split into independent streams of randomness."""

from typing import Literal, get_args

import numpy as np

__all__ = ["Stream", "generator", "seed_of"]

# New streams go to the end: the place of a stream is its key, and runs made before must stay as they were.
Stream = Literal["initialisation", "exploration", "replay", "environments", "evaluation", "noise"]


def generator(seed: int, stream: Stream) -> np.random.Generator:
    """Return the generator of one stream; streams of one seed are independent, and so are seeds."""
    return np.random.default_rng(sequence(seed, stream))


def seed_of(seed: int, stream: Stream) -> int:
    """Return a plain 31-bit seed for one stream, for libraries that take no generator."""
    return int(sequence(seed, stream).generate_state(1)[0] >> 1)


def sequence(seed: int, stream: Stream) -> np.random.SeedSequence:
    """Return the seed sequence behind one stream."""
    return np.random.SeedSequence(seed, spawn_key=(get_args(Stream).index(stream),))
