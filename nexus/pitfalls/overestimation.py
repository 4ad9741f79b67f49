"""Overestimation: the maximum of noisy values is too high, and the target takes a maximum.

The world is Example 6.7 of Sutton and Barto 2018, http://incompleteideas.net/book/the-book-2nd.html.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from nexus.core.types import Array
from nexus.models.rl.dqn import DQNAgent
from nexus.pitfalls.arms import DQNArm, Measure
from nexus.pitfalls.pitfall import Pitfall, Reference

__all__ = ["OVERESTIMATION", "NoisyChain"]

ACTIONS, MEAN = 10, -0.1
A, B = np.eye(2, dtype=np.float32)
LEFT = 0  # in A; the other legal action there is right


class NoisyChain(gym.Env[Array, Any]):
    """Two states. In A, right ends the episode with 0 and left leads to B; in B ten actions end it with N(-0.1, 1).

    Right is worth 0 and left -0.1, so left is always a mistake.
    """

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 1, (2,), np.float32)
        self.action_space = spaces.Discrete(ACTIONS)
        self.in_b = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin in A, where only two of the actions are legal."""
        super().reset(seed=seed)
        self.in_b = False
        return A, {"action_mask": np.arange(ACTIONS) < 2}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Go left or right in A; take a noisy reward in B."""
        info = {"action_mask": np.ones(ACTIONS, bool)}
        if self.in_b:
            return B, float(self.np_random.normal(MEAN, 1.0)), True, False, info
        self.in_b = action == LEFT
        return B, 0.0, not self.in_b, False, info


def value_of_left(stack: ExitStack) -> Measure:
    """Return a measure: Q(A, left)."""
    return q_left


def q_left(agent: DQNAgent) -> float:
    """Return Q(A, left)."""
    return float(agent.q_network(A[None])[0, LEFT].detach())


# Random play, so that both arms see the same data, and a short replay, so that the data stay fresh and noisy.
CHAIN_SETTINGS: Mapping[str, Any] = {
    "gamma": 0.999,
    "hidden_dim": 32,
    "hidden_layers": 1,
    "loss": "squared",
    "learning_rate": 0.01,
    "max_grad_norm": None,
    "learning_starts": 300,
    "replay_capacity": 300,
    "target_update_every": "300 updates",
    "epsilon_schedule": "constant",
}

OVERESTIMATION = Pitfall(
    name="overestimation",
    problem="The maximum of noisy values is too high on average, and DQN's target takes such a maximum.",
    cure="Double DQN: one network picks the next action, the other one values it.",
    paper="van Hasselt, Guez and Silver 2016, https://arxiv.org/abs/1509.06461",
    world="a chain of two states with noisy rewards",
    broken_by="DQN",
    cured_by="Double DQN",
    broken=DQNArm(NoisyChain, CHAIN_SETTINGS, value_of_left),
    cured=DQNArm(NoisyChain, {**CHAIN_SETTINGS, "double": True}, value_of_left),
    steps=6_000,
    measure="value of going left",
    better="lower",
    reference=Reference(MEAN, "the true value"),
)
