"""Picking Q-values: those of the actions taken, and those of legal actions.

Masks: Huang and Ontañón 2022, https://arxiv.org/abs/2006.14171.
"""

from math import inf

import torch
from torch import Tensor

__all__ = ["only_legal", "values_of_actions"]


def only_legal(q_values: Tensor, action_masks: Tensor | None) -> Tensor:
    """Set the Q-values of illegal actions to -inf, so that no argmax, maximum or softmax selects them.

    A row without legal actions is left unchanged: it is a terminal state, whose value is multiplied by a discount of 0,
    and 0 times -inf would be NaN.

    Args:
        q_values: `[B, A]`.
        action_masks: `[B, A]` bool, True where legal; None for all, which costs nothing.

    Returns:
        `[B, A]`, differentiable in the Q-values of legal actions.
    """
    if action_masks is None:
        return q_values
    return torch.where(action_masks | ~action_masks.any(1, keepdim=True), q_values, -inf)


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
