"""Exploration: choosing actions during training."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["boltzmann", "epsilon_greedy", "random_legal"]


def boltzmann(q_values: NDArray[Any], temperature: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw actions from π = softmax(Q / temperature) (https://arxiv.org/abs/cs/9605103).

    Computed as argmax_a Q(s, a) + temperature · g_a with g from the standard Gumbel distribution
    (https://arxiv.org/abs/1411.0030), which needs no exponential: nothing overflows, and a temperature of 0 is greedy.
    The amount of exploration depends on the scale of the rewards: an action whose value is lower by one temperature is
    drawn e times less often. No temperature is right for every state (https://arxiv.org/abs/1705.10257).

    Args:
        q_values: `[E, A]`; -inf is never drawn.
        temperature: 0 or more, in units of the return.
        rng: source of the noise, `E * A` draws.

    Returns:
        `[E]`.
    """
    noisy = q_values + temperature * rng.gumbel(size=q_values.shape)  # float64, so that small noise is not rounded away
    actions: NDArray[np.int64] = noisy.argmax(1)
    return actions


def epsilon_greedy(
    greedy_actions: NDArray[np.int64],
    action_dim: int,
    epsilon: float,
    rng: np.random.Generator,
    action_masks: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Return a uniformly random action with probability ε, else the greedy one, independently for each environment.

    Args:
        greedy_actions: `[E]`, argmax_a Q(s, a).
        action_dim: number of actions `A`.
        epsilon: probability of a random action.
        rng: source of the coins and the random actions; makes the same number of draws for every ε.
        action_masks: `[E, A]`, True where legal; None for all.

    Returns:
        `[E]`.
    """
    coins = rng.random(len(greedy_actions))
    if action_masks is None:
        random_actions = rng.integers(action_dim, size=len(greedy_actions))
    else:
        random_actions = random_legal(action_masks, rng)
    return np.where(coins < epsilon, random_actions, greedy_actions)


def random_legal(action_masks: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return a uniformly random legal action for each row.

    Args:
        action_masks: `[E, A]`, True where legal; a row without any (a terminal state) counts as all legal.
        rng: source of the choice, one draw per row.

    Returns:
        `[E]`.
    """
    legal = action_masks | ~action_masks.any(1, keepdims=True)
    ranks = np.floor(rng.random(len(legal)) * legal.sum(1))  # index among the legal actions
    chosen: NDArray[np.int64] = np.argmax(legal.cumsum(1) > ranks[:, None], 1)
    return chosen
