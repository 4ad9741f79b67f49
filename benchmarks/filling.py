"""Transitions for filling a replay in benchmarks."""

import numpy as np

from nexus.core.types import Transitions

__all__ = ["transitions"]


def transitions(count: int, rng: np.random.Generator) -> Transitions:
    """Return `count` transitions of CartPole's shape and rewards; their states are noise, which does not compress."""
    return Transitions(
        states=rng.normal(size=(count, 4)).astype(np.float32),
        actions=rng.integers(2, size=count),
        rewards=np.ones(count, np.float32),
        discounts=np.full(count, 0.99, np.float32),
        next_states=rng.normal(size=(count, 4)).astype(np.float32),
    )
