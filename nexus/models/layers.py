"""Torsos `[B, *obs] -> [B, D]` and heads `[B, D] -> [B, A, N]`, the building blocks of networks."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nexus.core import ConfigError
from nexus.core.types import Array

__all__ = [
    "Bounds",
    "Head",
    "LinearFactory",
    "MLPTorso",
    "NoisyLinear",
    "Normalizer",
    "ScaleToBounds",
    "ValueRange",
    "flatten_parameters",
    "hold_frozen",
    "in_mode",
    "noisy_layers",
    "resample_noise",
    "scale",
]

Bounds = tuple[Sequence[float], Sequence[float]]
"""Lowest and highest value of each component of a state."""

ValueRange = tuple[float, float]
"""Lowest and highest value over all components of a state."""


MOST_DEVIATIONS = 10.0  # that a normalised number may be from 0, as is usual (OpenAI Baselines, Stable-Baselines3)


class MLPTorso(nn.Module):
    """Fully connected layers with ReLU; a state of any shape is flattened and scaled.

    With `layer_norm` each layer is normalised before its ReLU (https://arxiv.org/abs/1607.06450), which keeps
    values bounded when targets move fast (https://arxiv.org/abs/2407.04811).

    Args:
        state_shape: shape of one state.
        hidden_dim: units of each layer; also the number of features `D`.
        hidden_layers: number of layers.
        layer_norm: whether to use layer norm.
        bounds: lowest and highest value of each component of a flattened state, to map them to [-1, 1].
        span: lowest and highest value over all components, for `scale`.
        normalized: the first components of a flattened state for a `Normalizer`; 0 for no such layer.
    """

    def __init__(
        self,
        state_shape: tuple[int, ...],
        hidden_dim: int,
        hidden_layers: int = 2,
        layer_norm: bool = False,
        bounds: Bounds | None = None,
        span: ValueRange | None = None,
        normalized: int = 0,
    ) -> None:
        super().__init__()
        self.state_dims = len(state_shape)
        self.span = span
        self.bounds = None if bounds is None else ScaleToBounds(*bounds)
        self.normalizer = Normalizer(normalized) if normalized else None
        widths = [math.prod(state_shape), *[hidden_dim] * hidden_layers]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), *([nn.LayerNorm(outputs)] if layer_norm else []), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, states: Tensor) -> Tensor:
        """`[..., *obs] -> [..., D]`."""
        if self.state_dims != 1:
            states = states.flatten(-self.state_dims) if self.state_dims else states.unsqueeze(-1)
        states = scale(states, self.span)
        states = states if self.bounds is None else self.bounds(states)
        features: Tensor = self.layers(states if self.normalizer is None else self.normalizer(states))
        return features


class ScaleToBounds(nn.Module):
    """Maps each component of a state from [low, high] to [-1, 1], so that radians and metres have the same range.

    Args:
        low: `[D]`, the lowest values.
        high: `[D]`, the highest values; -1 and 1 leave a component unchanged.
    """

    gain: Tensor  # [D]
    shift: Tensor  # [D]

    def __init__(self, low: Sequence[float], high: Sequence[float]) -> None:
        super().__init__()
        lowest, highest = torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)
        gain = 2 / (highest - lowest)
        # Not persistent: derived from the arguments.
        self.register_buffer("gain", gain.float(), persistent=False)
        self.register_buffer("shift", (-1 - lowest * gain).float(), persistent=False)

    def forward(self, states: Tensor) -> Tensor:
        """`[..., D] -> [..., D]`, in one operation."""
        return torch.addcmul(self.shift, states, self.gain)


class Normalizer(nn.Module):
    """Brings the first components of a state to mean 0 and deviation 1, and clips them to ±10.

    Its statistics are buffers, not parameters: they are saved with the weights and only `set_to` changes them, so
    they are frozen wherever an agent only acts. Until the first `set_to` components are clipped and nothing else.

    Args:
        size: `D`, how many components; others behind them stay as they are.
    """

    mean: Tensor  # [D]
    deviation: Tensor  # [D], above 0
    samples: Tensor  # [] int64, of how many states

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))
        self.register_buffer("samples", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def set_to(self, mean: Array, deviation: Array, samples: int) -> None:
        """Take on statistics `[D]` of so many states, in place and without waiting for the device."""
        self.samples.fill_(samples)
        for own, given in ((self.mean, mean), (self.deviation, deviation)):
            own.copy_(torch.from_numpy(given.astype(np.float32)), non_blocking=True)

    def forward(self, states: Tensor) -> Tensor:
        """`[..., M] -> [..., M]`; the mean goes first, so that float32 keeps the digits of numbers far from 0."""
        first, others = states[..., : len(self.mean)], states[..., len(self.mean) :]
        normal = ((first - self.mean) / self.deviation).clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS)
        return torch.cat([normal, others], -1) if others.shape[-1] else normal


LinearFactory = Callable[[int, int], nn.Module]
"""Makes a layer from its numbers of inputs and outputs: `nn.Linear`, or a noisy one."""


class Head(nn.Module):
    """One layer with `N` outputs per action.

    Args:
        features: `D`.
        action_dim: `A`.
        atoms: `N`, 1 for a plain Q-value.
        linear: makes the layer.
    """

    def __init__(self, features: int, action_dim: int, atoms: int = 1, linear: LinearFactory = nn.Linear) -> None:
        super().__init__()
        self.shape = (action_dim, atoms)
        self.linear = linear(features, action_dim * atoms)

    def forward(self, features: Tensor) -> Tensor:
        """`[..., D] -> [..., A, N]`."""
        out: Tensor = self.linear(features)
        return out.view(*out.shape[:-1], *self.shape)


class NoisyLinear(nn.Module):
    """A linear layer with learned noise on each of its weights, factorised (https://arxiv.org/abs/1706.10295).

    Weights are μ + σ ⊙ f(e_out) f(e_in)ᵀ with f(e) = sgn(e) √|e| and e from N(0, 1): one number for each input and
    each output instead of one for each weight. A draw is used until the next `resample`; in evaluation the weights
    are μ alone. The noise is not a parameter and is not saved.

    Args:
        in_features: number of inputs.
        out_features: number of outputs.
        sigma0: initial σ times the square root of the number of inputs.

    Raises:
        ConfigError: `sigma0` is negative or not a number.
    """

    noise: Tensor
    _root: Tensor

    def __init__(self, in_features: int, out_features: int, sigma0: float = 0.5) -> None:
        super().__init__()
        if not 0 <= sigma0 < math.inf:
            raise ConfigError(f"sigma0 = {sigma0}: needs a number from 0")
        self.in_features, self.out_features = in_features, out_features
        bound = 1 / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.empty(out_features, in_features).uniform_(-bound, bound))  # μ
        self.bias = nn.Parameter(torch.empty(out_features).uniform_(-bound, bound))
        self.weight_sigma = nn.Parameter(torch.full((out_features, in_features), sigma0 * bound))
        self.bias_sigma = nn.Parameter(torch.full((out_features,), sigma0 * bound))
        # f(e) of the inputs, then of the outputs, in one buffer, so that a draw takes three operations.
        self.register_buffer("noise", torch.empty(in_features + out_features), persistent=False)
        self.register_buffer("_root", torch.empty(in_features + out_features), persistent=False)
        self.resample(None)

    @torch.no_grad()
    def resample(self, generator: torch.Generator | None) -> None:
        """Draw fresh noise in place.

        Do not call it between a forward pass and its backward pass, which still needs the old noise.

        Args:
            generator: generator on the layer's device; None uses torch's default.
        """
        self.noise.normal_(generator=generator)
        torch.abs(self.noise, out=self._root).sqrt_()
        torch.copysign(self._root, self.noise, out=self.noise)

    def forward(self, features: Tensor) -> Tensor:
        """`[..., in_features] -> [..., out_features]`, with the same noise for all rows."""
        if not self.training:
            return F.linear(features, self.weight, self.bias)
        noise_in, noise_out = self.noise[: self.in_features], self.noise[self.in_features :]
        weight = self.weight + self.weight_sigma * torch.outer(noise_out, noise_in)
        return F.linear(features, weight, self.bias + self.bias_sigma * noise_out)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


def noisy_layers(module: nn.Module) -> list[NoisyLinear]:
    """Return every `NoisyLinear` in a module, in the order of `module.modules()`."""
    return [layer for layer in module.modules() if isinstance(layer, NoisyLinear)]


def resample_noise(module: nn.Module, generator: torch.Generator | None) -> bool:
    """Draw fresh noise for each of `noisy_layers`.

    Returns:
        True if there were any.
    """
    noisy = noisy_layers(module)
    for layer in noisy:
        layer.resample(generator)
    return bool(noisy)


@contextmanager
def in_mode(modules: Iterable[nn.Module], training: bool) -> Iterator[None]:
    """Set the mode of each of these modules, not of their children, and restore it afterwards."""
    changed = [vars(module) for module in modules if module.training is not training]
    for attributes in changed:  # setting an attribute on an `nn.Module` takes a microsecond
        attributes["training"] = training
    try:
        yield
    finally:
        for attributes in changed:
            attributes["training"] = not training


@contextmanager
def awake(noisy: Sequence[NoisyLinear], generator: torch.Generator | None) -> Iterator[None]:
    """Make noisy layers use a fresh draw of their noise, even in evaluation mode."""
    with in_mode(noisy, True):
        for layer in noisy:
            layer.resample(generator)
        yield


def scale(states: Tensor, span: ValueRange | None = None) -> Tensor:
    """Return float32, with the span mapped to [0, 1]; without a span, bytes are divided by 255 and others unchanged."""
    if span is None:
        if states.dtype != torch.uint8:
            return states.float()
        span = (0, 255)
    low, high = span
    numbers = states.clone() if states.dtype == torch.float32 else states.float()  # never the caller's memory
    if low != 0:
        numbers.sub_(low)
    return numbers.div_(high - low)


def hold_frozen(torso: nn.Module) -> None:
    """Make buffers of parameters that are not learned: they are saved and copied with the network, and not in θ."""
    for module in torso.modules():
        for key, parameter in list(module.named_parameters(recurse=False)):
            if not parameter.requires_grad:
                delattr(module, key)
                module.register_buffer(key, parameter.data)


def flatten_parameters(module: nn.Module) -> Tensor:
    """Move all parameters into one buffer and make each a view of it.

    Clipping, the optimizer, the copy to the target and Polyak averaging are then one operation each.
    Call it after `module.to(device)`: moving the module afterwards would break the views.

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
