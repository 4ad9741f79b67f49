"""Losses of the TD error, one value per item."""

import torch.nn.functional as F
from torch import Tensor

__all__ = ["huber", "squared"]


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
