"""The parts that a loss may own: generators, networks, and networks with a separate optimizer.

They are found among the loss's attributes by type, moved to the device, saved, resumed, and recorded in a CUDA graph
like everything else. A loss with trainable parts takes its optimizer step in `after_update`.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from nexus.core.state import below
from nexus.models.layers import flatten_parameters
from nexus.ops.optimizers import Adam

__all__ = ["LossThatLearns", "OwnNetwork", "OwnParts"]


class OwnNetwork:
    """A network with a separate optimizer.

    Args:
        network: the network; its weights are moved into one buffer.
        learning_rate: step size of Adam.
    """

    def __init__(self, network: nn.Module, learning_rate: float = 1e-3) -> None:
        self.network = network
        self.learning_rate = learning_rate
        self._bind()

    def _bind(self) -> None:
        self.theta = flatten_parameters(self.network)  # [P]
        self.optimizer = Adam(self.theta, self.learning_rate)

    def __deepcopy__(self, memo: dict[int, Any]) -> "OwnNetwork":
        """Return a copy whose parameters are views of the copied buffer."""
        copy = OwnNetwork(deepcopy(self.network, memo), self.learning_rate)
        for name, tensor in self.tensors.items():
            copy.tensors[name].copy_(tensor)
        return copy

    def to(self, device: torch.device) -> None:
        """Move it and reset its moments to zero; do nothing if it is already there."""
        if self.theta.device != device:
            self.network.to(device)
            self._bind()

    def step(self, loss: Tensor) -> None:
        """Take one step on a loss `[]` computed with the network."""
        gradients = torch.autograd.grad(loss, list(self.network.parameters()))
        self.theta.grad = torch.cat([part.reshape(-1) for part in gradients])
        self.optimizer.step()

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors that its steps change, by name."""
        return {"theta": self.theta, **below("optimizer", self.optimizer.state[self.theta])}


@runtime_checkable
class LossThatLearns(Protocol):
    """A loss with a separate optimizer step."""

    def after_update(self) -> None:
        """Take that step; called once after each step of θ, with the attributes left by the last call of the loss."""


class OwnParts:
    """Finds the parts of a loss, and moves them to a device.

    Args:
        loss: any loss.
        device: the device of θ.
    """

    def __init__(self, loss: object, device: torch.device) -> None:
        attributes: Mapping[str, Any] = getattr(loss, "__dict__", {})
        self.generators = {name: part for name, part in attributes.items() if isinstance(part, torch.Generator)}
        self.learning = {name: part for name, part in attributes.items() if isinstance(part, OwnNetwork)}
        self.fixed = {name: part for name, part in attributes.items() if isinstance(part, nn.Module)}
        self._learns = loss if isinstance(loss, LossThatLearns) else None
        for own in self.learning.values():
            own.to(device)
        for network in self.fixed.values():
            network.to(device)

    def after_update(self) -> None:
        """Take the loss's own step, if it has one."""
        if self._learns is not None:
            self._learns.after_update()

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors a checkpoint needs, by name: networks, and the optimizers' moments."""
        fixed = {
            key: value for name, part in self.fixed.items() for key, value in below(name, part.state_dict()).items()
        }
        return {**fixed, **self.changes}

    @property
    def changes(self) -> dict[str, Tensor]:
        """The tensors that its steps change, by name."""
        learning = {name: part.tensors for name, part in self.learning.items()}
        return {key: value for name, part in learning.items() for key, value in below(name, part).items()}
