"""A torso of the user's own, tried out before anything is learned with it."""

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nexus.core import ConfigError
from nexus.core.errors import one_line
from nexus.core.importable import import_object
from nexus.models.layers import Bounds, Normalizer, ScaleToBounds, ValueRange, hold_frozen, scale

__all__ = ["OwnTorso", "Scaled", "make_own_torso"]

TRIAL_STATES = 3  # states: one alone is a batch that some modules can't take


class Scaled(nn.Module):
    """Prepares states as for the built-in torsos.

    Args:
        state_shape: `obs`, shape of one state.
        bounds: lowest and highest value of each component of a flattened state, to map them to [-1, 1].
        span: lowest and highest value over all components, to map them to [0, 1]; without it only bytes are scaled.
        normalized: the first components of a flattened state for a `Normalizer`; 0 for no such layer.
    """

    def __init__(
        self,
        state_shape: tuple[int, ...],
        bounds: Bounds | None = None,
        span: ValueRange | None = None,
        normalized: int = 0,
    ) -> None:
        super().__init__()
        self.state_shape = state_shape
        self.span = span
        self.bounds = None if bounds is None else ScaleToBounds(*bounds)
        self.normalizer = Normalizer(normalized) if normalized else None

    def forward(self, states: Tensor) -> Tensor:
        """`[..., *obs] -> [B, *obs]` float32, with all leading axes flattened into the batch."""
        numbers = scale(states.reshape(-1, *self.state_shape), self.span)
        for step in (self.bounds, self.normalizer):
            numbers = numbers if step is None else step(numbers.flatten(1)).view(numbers.shape)
        return numbers

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a state."""
        return self.state_shape

    def examples(self, count: int) -> Tensor:
        """Return `[count, *obs]`, such as it returns."""
        return torch.linspace(0, 1, count * math.prod(self.state_shape)).view(count, *self.state_shape)


class Preparation(Protocol):
    """Turns states `[..., *obs]` into what a torso of the user's own takes."""

    @property
    def shape(self) -> Any:
        """Of a state, as the user's torso is made for it."""

    def examples(self, count: int) -> Any:
        """Return so many prepared states."""

    def __call__(self, states: Tensor) -> Any: ...


class OwnTorso(nn.Module):
    """Hands states to a module of the user's own, as one batch.

    Args:
        torso: maps what `prepare` returns to `[B, D]`.
        prepare: an `nn.Module`.
        state_dims: axes of a state.
    """

    def __init__(self, torso: nn.Module, prepare: Preparation, state_dims: int) -> None:
        super().__init__()
        self.torso = torso
        self.prepare = prepare
        self.state_dims = state_dims

    def forward(self, states: Tensor) -> Tensor:
        """`[..., *obs] -> [..., D]`."""
        features: Tensor = self.torso(self.prepare(states))
        return features.reshape(*states.shape[: states.ndim - self.state_dims], features.shape[-1])


def make_own_torso(name: str, prepare: Preparation, state_dims: int) -> tuple[OwnTorso, int]:
    """Return a torso of the user's own, and its number of features `D`, found by trying it on some states.

    Args:
        name: `module:Name` of a class or function that takes the shape of a state and returns an `nn.Module`.
        prepare: prepares states for it.
        state_dims: axes of a state.

    Raises:
        ConfigError: it can't be imported or made, is not a module, fails on such states, does not return one row of
            features per state, or can't be learned with or resumed; says why.
    """
    make = import_object(name, "torso")
    if isinstance(make, nn.Module):
        raise ConfigError(f"torso {name!r} is a module, made already: name its class, or a function that makes it")
    if not callable(make):
        raise ConfigError(
            f"torso {name!r} is a {type(make).__name__}: needs a class or function that takes the shape of a state and "
            "returns a torch.nn.Module"
        )

    def made() -> tuple[OwnTorso, int]:
        torso = torso_from(make, name, prepare.shape)
        features = features_of(torso, prepare, name)
        return OwnTorso(torso, prepare, state_dims), features

    try:
        return made()
    except ConfigError:
        if torch.get_default_device().type != "meta":
            raise
    with torch.device("cpu"):  # some modules can't do without memory
        return made()


def torso_from(make: Callable[[Any], Any], name: str, state_shape: Any) -> nn.Module:
    """Return what a class or function makes for states of a shape, if it is a module."""
    try:
        torso = make(state_shape)
    except Exception as error:  # foreign code
        raise ConfigError(
            f"torso {name!r} can't be made for states of shape {state_shape}: {one_line(error)}"
        ) from error
    if not isinstance(torso, nn.Module):
        hint = "; does it end with return?" if torso is None else ""
        raise ConfigError(f"torso {name!r} returned a {type(torso).__name__}: needs a torch.nn.Module{hint}")
    return torso


def features_of(torso: nn.Module, prepare: Preparation, name: str) -> int:
    """Return the number of features `D` of a torso that can be learned with.

    Lazy layers get their weights here. Frozen parameters become buffers, since θ has only what is learned.

    Raises:
        ConfigError: it fails, or does something that can't be learned with or resumed.
    """
    states = prepare.examples(TRIAL_STATES)
    with torch.no_grad():
        features = tried(torso, states, name, prepare.shape)  # lazy layers have their weights now
        hold_frozen(torso)
        require_unchanged_buffers(torso, states, name)
        again = torso(states)
    if not again.is_meta and not torch.allclose(features, again, equal_nan=True):
        raise ConfigError(
            f"torso {name!r} gives other features for the same states each time: a run could not be resumed exactly; "
            "leave out what draws random numbers, such as Dropout"
        )
    require_learnable(torso, states, name)
    return features.shape[1]


def tried(torso: nn.Module, states: Any, name: str, state_shape: Any) -> Tensor:
    """Return the features `[B, D]` of prepared states, or raise `ConfigError` if they are not that."""
    try:
        features = torso(states)
    except Exception as error:  # foreign code
        raise ConfigError(
            f"torso {name!r} fails on {TRIAL_STATES} states of shape {state_shape}: {one_line(error)}"
        ) from error
    if not isinstance(features, Tensor):
        raise ConfigError(f"torso {name!r} returned a {type(features).__name__}: needs a tensor of features [B, D]")
    if features.ndim != 2 or len(features) != TRIAL_STATES or not features.numel():
        raise ConfigError(
            f"torso {name!r} returned features of shape {list(features.shape)} for {TRIAL_STATES} states: needs "
            f"[{TRIAL_STATES}, D], a row for each"
        )
    if features.dtype != torch.float32:
        kind = str(features.dtype).removeprefix("torch.")
        raise ConfigError(f"torso {name!r} returned features of {kind}: needs float32")
    return features


def require_unchanged_buffers(torso: nn.Module, states: Any, name: str) -> None:
    """Raise `ConfigError` if a forward pass changes a buffer, as that of BatchNorm does.

    The target network follows θ, which has no buffers, and acting must not change what is learned.
    """
    before = {key: (buffer, buffer._version) for key, buffer in torso.named_buffers()}
    torso(states)
    for key, buffer in torso.named_buffers():
        held, version = before.get(key, (None, 0))
        if buffer is not held or buffer._version != version:
            raise ConfigError(
                f"torso {name!r} changes its buffer {key!r} in each forward pass, which the target network would not "
                "follow: use LayerNorm or GroupNorm instead of BatchNorm"
            )


def require_learnable(torso: nn.Module, states: Any, name: str) -> None:
    """Raise `ConfigError` if a torso can't be copied, or some of its parameters can't be learned."""
    try:
        copy = deepcopy(torso)
    except Exception as error:  # foreign code
        raise ConfigError(f"torso {name!r} can't be copied for the target network: {one_line(error)}") from error
    parameters = dict(copy.named_parameters())
    for key, parameter in parameters.items():
        if parameter.dtype != torch.float32:
            kind = str(parameter.dtype).removeprefix("torch.")
            raise ConfigError(f"torso {name!r} has the parameter {key!r} of {kind}: needs float32")
    if not parameters:
        return
    with torch.enable_grad():
        features = copy(states).sum()
    unused = list(parameters)
    if features.requires_grad:
        slopes = list[Tensor | None](torch.autograd.grad(features, list(parameters.values()), allow_unused=True))
        unused = [key for key, slope in zip(parameters, slopes, strict=True) if slope is None]
    if unused:
        raise ConfigError(
            f"torso {name!r} has the parameter {unused[0]!r}, on which no feature depends: leave it out, or freeze it "
            "with requires_grad_(False)"
        )
