"""λ-returns: all n-step returns in one, longer ones weighted less."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["lambda_returns"]

Float32s = NDArray[np.float32]


def lambda_returns(
    rewards: Float32s, discounts: Float32s, next_values: Float32s, goes_on: NDArray[np.bool_], trace_lambda: float
) -> Float32s:
    """G_t = r_t + d_t · ((1-λ) · V(s_{t+1}) + λ · G_{t+1}), computed backwards; Peng & Williams 1996.

    If a step is not followed by the next one of the same episode, V replaces the unknown return. With λ = 0 this is the
    one-step target, with λ = 1 the sum of all known rewards. Traces are not cut at exploratory actions: the returns are
    those of the behaviour policy (https://doi.org/10.1007/BF00114731).

    Args:
        rewards: `[T, E]`.
        discounts: `[T, E]`, γ, or 0 after a termination.
        next_values: `[T, E]`, V of the true next state, max_a Q for the greedy policy.
        goes_on: `[T, E]`, True if row t + 1 is the next step of the same episode; always False in the last row.
        trace_lambda: λ in [0, 1].

    Returns:
        `[T, E]`.
    """
    returns = np.empty_like(rewards)
    following = next_values[-1]
    for t in reversed(range(len(rewards))):
        decay = trace_lambda * goes_on[t]  # [E]
        returns[t] = rewards[t] + discounts[t] * ((1 - decay) * next_values[t] + decay * following)
        following = returns[t]
    return returns
