"""Insufficient exploration: what is never tried is never learned.

The world is deep sea, Osband et al. 2020, https://arxiv.org/abs/1908.03568.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from nexus.core.types import Array
from nexus.pitfalls.arms import DQNArm, played
from nexus.pitfalls.pitfall import Pitfall, Reference

__all__ = ["INSUFFICIENT_EXPLORATION", "DeepSea"]


class DeepSea(gym.Env[Array, Any]):
    """A square of `size` rows. Each step goes down a row, left or right; a treasure of 1 is at the bottom right.

    Only going right at every step finds it, and each step right costs 0.01 / `size`: the best return is 0.99, and
    whoever goes left all the way gets 0. Which action is right differs from cell to cell.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.observation_space = spaces.Box(0, 1, (size * size,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.right = np.random.default_rng(0).integers(2, size=(size, size))  # the action that goes right, by cell
        self.row = self.column = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin at the top left."""
        super().reset(seed=seed)
        self.row = self.column = 0
        return self.seen(), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Go down, left or right."""
        goes_right = int(action) == self.right[self.row, self.column]
        reward = -0.01 / self.size if goes_right else 0.0
        found = goes_right and self.column == self.size - 1
        self.column = min(self.column + 1, self.size - 1) if goes_right else max(self.column - 1, 0)
        self.row += 1
        return self.seen(), reward + float(found), self.row == self.size, False, {}

    def seen(self) -> Array:
        """Return the cell, one-hot `[size * size]`; zeros below the last row."""
        cells = np.zeros((self.size, self.size), np.float32)
        if self.row < self.size:
            cells[self.row, self.column] = 1.0
        return cells.ravel()


SIZE = 8
SEA, RETURN = partial(DeepSea, SIZE), partial(played, partial(DeepSea, SIZE), 1)
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
