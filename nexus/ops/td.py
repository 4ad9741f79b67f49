"""Temporal-difference targets (Watkins & Dayan 1992, https://doi.org/10.1007/BF00992698) and losses."""

import torch.nn.functional as F
from torch import Tensor

__all__ = ["ERRORS", "huber", "squared", "td_target", "values_of_actions"]


def values_of_actions(q_values: Tensor, actions: Tensor) -> Tensor:
    """Return Q(s, a) for the actions taken.

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


def huber(predictions: Tensor, targets: Tensor) -> Tensor:
    """½x² for |x| ≤ 1 and |x| - ½ beyond, x = prediction - target; its slope is the TD error clipped to ±1.

    The error clipping of Mnih et al. 2015 (https://doi.org/10.1038/nature14236) as a loss.

    Args:
        predictions: `[B]`.
        targets: `[B]`, no gradient.

    Returns:
        `[B]`.
    """
    return F.smooth_l1_loss(predictions, targets, reduction="none")


def squared(predictions: Tensor, targets: Tensor) -> Tensor:
    """½x², x = prediction - target: the half makes its slope the TD error, as in the gradient of the DQN papers.

    Args:
        predictions: `[B]`.
        targets: `[B]`, no gradient.

    Returns:
        `[B]`.
    """
    return 0.5 * (predictions - targets).square()


ERRORS = {"huber": huber, "squared": squared}
"""The losses by the name that the setting `loss` uses."""
