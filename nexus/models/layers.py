"""Torsos `[B, *obs] -> [B, D]` and heads `[B, D] -> [B, A, N]` that networks are put together from."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["Head", "LinearFactory", "MLPTorso", "flatten_parameters"]


class MLPTorso(nn.Module):
    """Fully connected layers with ReLU; a state of any shape is flattened, bytes are scaled to [0, 1].

    With `layer_norm` each layer is normalised before its ReLU (https://arxiv.org/abs/1607.06450), which keeps
    values bounded where targets move fast (https://arxiv.org/abs/2407.04811).

    Args:
        state_shape: shape of one state.
        hidden_dim: units of each layer; also the number of features `D`.
        hidden_layers: how many layers.
        layer_norm: whether to normalise.
    """

    def __init__(
        self, state_shape: tuple[int, ...], hidden_dim: int, hidden_layers: int = 2, layer_norm: bool = False
    ) -> None:
        super().__init__()
        self.state_dims = len(state_shape)
        widths = [math.prod(state_shape), *[hidden_dim] * hidden_layers]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), *([nn.LayerNorm(outputs)] if layer_norm else []), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, states: Tensor) -> Tensor:
        """`[..., *obs] -> [..., D]`."""
        if self.state_dims != 1:
            states = states.flatten(-self.state_dims) if self.state_dims else states.unsqueeze(-1)
        features: Tensor = self.layers(scale(states))
        return features


LinearFactory = Callable[[int, int], nn.Module]
"""Makes a layer from its numbers of inputs and outputs: `nn.Linear`, or one with noise."""


class Head(nn.Module):
    """One layer to `N` numbers per action.

    Args:
        features: `D`.
        action_dim: `A`.
        atoms: `N`, 1 for a plain Q-value.
        linear: what makes the layer.
    """

    def __init__(self, features: int, action_dim: int, atoms: int = 1, linear: LinearFactory = nn.Linear) -> None:
        super().__init__()
        self.shape = (action_dim, atoms)
        self.linear = linear(features, action_dim * atoms)

    def forward(self, features: Tensor) -> Tensor:
        """`[..., D] -> [..., A, N]`."""
        out: Tensor = self.linear(features)
        return out.view(*out.shape[:-1], *self.shape)


def scale(states: Tensor) -> Tensor:
    """Return float32: bytes over 255, everything else as it is."""
    if states.dtype == torch.float32:
        return states
    return states.float() / 255 if states.dtype == torch.uint8 else states.float()


def flatten_parameters(module: nn.Module) -> Tensor:
    """Move all parameters into one buffer and make each a view of it.

    Clipping, the optimizer, the copy to the target and Polyak averaging are then one operation each.
    Call it after `module.to(device)`: moving a module afterwards would cut the views off.

    Returns:
        `[P]`, all parameters in the order of `module.parameters()`; writing to it writes to the module.
    """
    parameters = list(module.parameters())
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    start = 0
    for parameter in parameters:
        parameter.data = flat[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()
    return flat
