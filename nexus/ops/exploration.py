"""Choosing actions while learning."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["epsilon_greedy"]


def epsilon_greedy(
    greedy_actions: NDArray[np.int64], action_dim: int, epsilon: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """With probability ε a uniformly random action, else the greedy one; each environment draws its own coin.

    Args:
        greedy_actions: `[E]`, argmax_a Q(s, a).
        action_dim: number of actions `A`.
        epsilon: probability of a random action.
        rng: source of the coins and the random actions; the same number of draws whatever ε is.

    Returns:
        `[E]`.
    """
    coins = rng.random(len(greedy_actions))
    random_actions = rng.integers(action_dim, size=len(greedy_actions))
    return np.where(coins < epsilon, random_actions, greedy_actions)
