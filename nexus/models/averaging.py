"""A running mean of a network's weights, which acts more evenly than the weights of any one moment."""

from copy import deepcopy
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from nexus.models.layers import flatten_parameters

__all__ = ["WeightAverage"]

Network = TypeVar("Network", bound=nn.Module)


class WeightAverage(Generic[Network]):
    """θ̄, the mean of θ over about the last `updates` updates (https://doi.org/10.1137/0330046).

    Each update moves many Q-values a little, and where those of two actions are close their order changes all the time.
    The mean of the weights follows what lasts. At first it is the plain mean of all updates so far; once there were
    `updates` of them a new one counts for 1 / `updates`, and older ones for less and less.

    Args:
        network: whose weights are averaged; it is copied.
        updates: how many.
    """

    def __init__(self, network: Network, updates: int) -> None:
        self.network = deepcopy(network).requires_grad_(False)
        self.updates = updates
        self._theta = flatten_parameters(self.network)  # [P], θ̄
        self._count = torch.zeros((), device=self._theta.device)  # of updates, up to `updates`

    def __deepcopy__(self, memo: dict[int, Any]) -> "WeightAverage[Network]":
        """Return one of its own whose parameters are views of its own θ̄, which plain copies are not."""
        copy = WeightAverage(self.network, self.updates)
        copy._count.copy_(self._count)
        return copy

    def follow(self, theta: Tensor) -> None:
        """θ̄ ← θ̄ + (θ - θ̄) / n after an update, for weights `[P]`; it waits for nothing, so a CUDA graph can hold it."""
        self._count.add_(1).clamp_(max=self.updates)
        self._theta.lerp_(theta, self._count.reciprocal())

    @property
    def changes(self) -> dict[str, Tensor]:
        """What `follow` changes, by name."""
        return {"averaged_theta": self._theta, **self.tensors}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint needs beside the network's own weights."""
        return {"averaged_updates": self._count}
