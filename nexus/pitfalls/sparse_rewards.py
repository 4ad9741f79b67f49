"""Sparse rewards: where nothing is ever paid, there is nothing to learn from.

The world is bit flipping, Andrychowicz et al. 2017, https://arxiv.org/abs/1707.01495.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from nexus.core.types import Array
from nexus.pitfalls.arms import DQNArm, played
from nexus.pitfalls.pitfall import Pitfall

__all__ = ["SPARSE_REWARDS", "BitFlip", "Shaped"]

BITS, BIT_GAMMA = 8, 0.9


class BitFlip(gym.Env[Array, Any]):
    """`size` random bits and a random goal. Each action flips a bit; reaching the goal pays 1, all else 0.

    An episode is cut off after `size` flips, which are always enough.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.observation_space = spaces.Box(0, 1, (2 * size,), np.float32)
        self.action_space = spaces.Discrete(size)
        self.bits = self.goal = np.zeros(size, np.float32)
        self.flips = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Draw bits and a goal that differs from them."""
        super().reset(seed=seed)
        self.flips = 0
        self.bits, self.goal = self.np_random.integers(2, size=(2, self.size)).astype(np.float32)
        if self.distance == 0:
            self.goal[0] = 1 - self.goal[0]
        return self.seen(), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Flip a bit."""
        self.bits[action] = 1 - self.bits[action]
        self.flips += 1
        reached = self.distance == 0
        return self.seen(), float(reached), reached, self.flips >= self.size, {}

    @property
    def distance(self) -> int:
        """Number of bits that differ from the goal."""
        return int((self.bits != self.goal).sum())

    def seen(self) -> Array:
        """Return bits and goal, `[2 * size]`."""
        return np.concatenate([self.bits, self.goal])


class Shaped(gym.Wrapper[Array, Any, Array, Any]):
    """Adds γΦ(s') - Φ(s) to the reward, Φ = -distance / size, which leaves the optimal policy as it is.

    Ng, Harada and Russell 1999, https://people.eecs.berkeley.edu/~russell/papers/icml99-shaping.pdf.

    Args:
        env: the bits.
        gamma: the γ of the training.
    """

    def __init__(self, env: BitFlip, gamma: float) -> None:
        super().__init__(env)
        self.bits, self.gamma = env, gamma

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Flip a bit, and pay for getting closer."""
        before = self.potential
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, float(reward) + self.gamma * self.potential - before, terminated, truncated, info

    @property
    def potential(self) -> float:
        """Φ of the state: 0 at the goal."""
        return -self.bits.distance / self.bits.size


def shaped_bits() -> Shaped:
    """Return the bits with the shaped reward."""
    return Shaped(BitFlip(BITS), BIT_GAMMA)


BIT_SETTINGS: Mapping[str, Any] = {
    "gamma": BIT_GAMMA,
    "hidden_dim": 256,
    "hidden_layers": 1,
    "scale_observations": True,
    "loss": "squared",
    "learning_starts": 200,
    "replay_capacity": 20_000,
    "target_update_every": "100 updates",
    "epsilon_min": 0.1,
    "epsilon_steps": 3_000,
}
SPARSE, SUCCESSES = partial(BitFlip, BITS), partial(played, partial(BitFlip, BITS), 25)

SPARSE_REWARDS = Pitfall(
    name="sparse-rewards",
    problem="A reward that random play almost never finds gives the agent nothing to learn from.",
    cure="Pay for progress by potential-based shaping, which does not change the optimal policy.",
    paper="Ng, Harada and Russell 1999, https://people.eecs.berkeley.edu/~russell/papers/icml99-shaping.pdf",
    world=f"{BITS} bits to flip into a random goal",
    broken_by="the sparse reward",
    cured_by="the shaped one",
    broken=DQNArm(SPARSE, BIT_SETTINGS, SUCCESSES),
    cured=DQNArm(shaped_bits, BIT_SETTINGS, SUCCESSES),
    steps=8_000,
    measure="share of goals reached",
    better="higher",
)
