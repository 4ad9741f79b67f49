"""The settings that the pitfalls on CartPole share, and what they measure there."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from nexus.pitfalls.arms import played

__all__ = ["CART_POLE", "CART_POLE_RETURN", "CART_POLE_SETTINGS"]

CART_POLE = "CartPole-v1"
CART_POLE_RETURN = partial(played, CART_POLE, 10)
CART_POLE_SETTINGS: Mapping[str, Any] = {
    "hidden_dim": 64,
    "scale_observations": True,
    "loss": "squared",
    "learning_starts": 500,
    "replay_capacity": 20_000,
    "target_update_every": "100 updates",
    "epsilon_min": 0.05,
    "epsilon_steps": 2_000,
}
