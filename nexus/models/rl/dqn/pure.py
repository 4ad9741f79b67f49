"""The gradient as a pure function of the weights, for training many agents at once.

`Learner.gradient` reads the weights of its networks, at no cost. Here they are arguments, so that `torch.func.vmap` can
map over several agents in one call. Both give the same numbers.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from nexus.core import Batch
from nexus.models.layers import noisy_layers
from nexus.models.rl.dqn.learner import Learner

__all__ = ["noise_of", "pure_gradient"]

Gradient = Callable[[Tensor, Tensor, Batch, Tensor], Tensor]
"""From θ `[P]`, θ⁻ `[P]`, a batch on the device and the noise of all noisy layers to ∇θ `[P]`, unclipped."""


class Whole(nn.Module):
    """The loss of a batch as one number, as a module of both networks, so that their weights can be replaced."""

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.q_network, self.target_network = learner.q_network, learner.target_network
        self.loss, self.next_action, self.scaled = learner.loss, learner.next_action, learner.scaled

    def forward(self, batch: Batch) -> Tensor:
        out = self.loss(self.q_network, self.target_network, self.next_action, self.scaled(batch))
        return (batch["weights"] * out.loss).mean()


def pure_gradient(learner: Learner) -> Gradient:
    """Return the gradient of a learner's loss as a function of weights; the learner's are neither read nor changed.

    The loss must not draw random numbers: put the draws of a loss with generators into the batch.
    """
    whole = Whole(learner)
    shapes = {name: tuple(value.shape) for name, value in learner.q_network.named_parameters()}
    noisy = {name: value for name, value in whole.named_buffers() if name.endswith(".noise")}
    sizes = {name: tuple(value.shape) for name, value in noisy.items()}

    def loss_of(theta: Tensor, theta_target: Tensor, batch: Batch, noise: Tensor) -> Tensor:
        weights = {f"q_network.{name}": value for name, value in split(theta, shapes)}
        weights |= {f"target_network.{name}": value for name, value in split(theta_target, shapes)}
        loss: Tensor = functional_call(whole, {**weights, **dict(split(noise, sizes))}, (batch,))
        return loss

    return grad(loss_of)


def noise_of(learner: Learner) -> Tensor:
    """Return the current noise of a learner's networks, in the format of `pure_gradient`."""
    layers = noisy_layers(learner.q_network) + noisy_layers(learner.target_network)
    return torch.cat([layer.noise for layer in layers]) if layers else learner.theta.new_empty(0)


def split(flat: Tensor, shapes: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, Tensor]]:
    """Yield the parts of a flat tensor by name."""
    start = 0
    for name, shape in shapes.items():
        size = int(torch.Size(shape).numel())
        yield name, flat[start : start + size].view(shape)
        start += size
