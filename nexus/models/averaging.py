"""A running mean of a network's weights, whose policy varies less than that of the latest weights."""

from copy import deepcopy
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from nexus.models.layers import flatten_parameters

__all__ = ["WeightAverage"]

Network = TypeVar("Network", bound=nn.Module)


class WeightAverage(Generic[Network]):
    """θ̄, the mean of θ over about the last `updates` updates (https://doi.org/10.1137/0330046).

    Each update moves many Q-values a little, and if those of two actions are close their order changes constantly.
    The mean of the weights follows the persistent changes. At first it is the plain mean of all updates so far; after
    `updates` of them a new one has the weight 1 / `updates`, and older ones decay.

    Args:
        network: the network whose weights are averaged; it is copied.
        updates: number of updates to average over.
    """

    def __init__(self, network: Network, updates: int) -> None:
        self.network = deepcopy(network).requires_grad_(False)
        self.updates = updates
        self._theta = flatten_parameters(self.network)  # [P], θ̄
        self._count = torch.zeros((), device=self._theta.device)  # number of updates, up to `updates`

    def __deepcopy__(self, memo: dict[int, Any]) -> "WeightAverage[Network]":
        """Return a copy whose parameters are views of the copied θ̄; a plain deep copy would break the views."""
        copy = WeightAverage(self.network, self.updates)
        copy._count.copy_(self._count)
        return copy

    def follow(self, theta: Tensor) -> None:
        """θ̄ ← θ̄ + (θ - θ̄) / n after an update, for weights `[P]`; asynchronous, so a CUDA graph can record it."""
        self._count.add_(1).clamp_(max=self.updates)
        self._theta.lerp_(theta, self._count.reciprocal())

    @property
    def changes(self) -> dict[str, Tensor]:
        """The tensors that `follow` changes, by name."""
        return {"averaged_theta": self._theta, **self.tensors}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint needs in addition to the network's weights."""
        return {"averaged_updates": self._count}
