"""Insufficient exploration: what is never tried is never learned.

The world is deep sea, Osband et al. 2020, https://arxiv.org/abs/1908.03568.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from nexus.pitfalls.arms import DQNArm, played
from nexus.pitfalls.pitfall import Pitfall, Reference
from nexus.problems import DeepSea

__all__ = ["INSUFFICIENT_EXPLORATION", "sea_of_the_page"]


def sea_of_the_page(size: int) -> DeepSea:
    """Return the sea that `docs/pitfalls.md` shows: its cells have other actions than the published one's."""
    env = DeepSea(size)
    env.right = np.random.default_rng(0).integers(2, size=(size, size))
    return env


SIZE = 8
SEA, RETURN = partial(sea_of_the_page, SIZE), partial(played, partial(sea_of_the_page, SIZE), 1)
SEA_SETTINGS: Mapping[str, Any] = {
    "hidden_dim": 64,
    "hidden_layers": 1,
    "loss": "squared",
    "learning_starts": 200,
    "replay_capacity": 20_000,
    "target_update_every": "100 updates",
    "epsilon_min": 0.05,
}

INSUFFICIENT_EXPLORATION = Pitfall(
    name="insufficient-exploration",
    problem="With too little exploration the agent settles for what it found first.",
    cure="Explore for longer: let ε fall over more of the run.",
    paper="Osband et al. 2020, https://arxiv.org/abs/1908.03568",
    world=f"deep sea, {SIZE} x {SIZE} cells",
    broken_by="ε falling within 500 steps",
    cured_by="ε falling within 8,000 steps",
    broken=DQNArm(SEA, {**SEA_SETTINGS, "epsilon_steps": 500}, RETURN),
    cured=DQNArm(SEA, {**SEA_SETTINGS, "epsilon_steps": 8_000}, RETURN),
    steps=10_000,
    measure="greedy return",
    better="higher",
    reference=Reference(0.99, "the best possible"),
)
