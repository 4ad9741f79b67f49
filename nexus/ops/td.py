"""Temporal-difference targets (Watkins & Dayan 1992, https://doi.org/10.1007/BF00992698)."""

from torch import Tensor

__all__ = ["td_target", "values_of_actions"]


def values_of_actions(q_values: Tensor, actions: Tensor) -> Tensor:
    """Pick Q(s, a) of the actions that were taken.

    Args:
        q_values: `[B, A, ...]`.
        actions: `[B]`, integers below `A`.

    Returns:
        `[B, ...]`, differentiable in `q_values`.
    """
    index = actions.view(-1, *[1] * (q_values.dim() - 1)).expand(-1, 1, *q_values.shape[2:])
    return q_values.gather(1, index).squeeze(1)


def td_target(rewards: Tensor, discounts: Tensor, next_values: Tensor) -> Tensor:
    """y = r + d · Q(s', a'; θ⁻), where the stored d is γ^k, or 0 after a termination.

    Args:
        rewards: `[B]`, folded over k steps.
        discounts: `[B]`.
        next_values: `[B]`, the bootstrap.

    Returns:
        `[B]`.
    """
    return rewards + discounts * next_values
