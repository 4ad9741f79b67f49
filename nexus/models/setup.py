"""Preparing an agent: reading its shapes, choosing its device, compiling its update."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from nexus.core import ConfigError
from nexus.core.checked import convert
from nexus.models.layers import Bounds, ValueRange

__all__ = [
    "compiled",
    "pop_bounds",
    "pop_dims",
    "pop_normalized",
    "pop_rewards_normalized",
    "pop_scale",
    "resolve_device",
    "shape_in",
]


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile forward and backward into one graph.

    Raises:
        ConfigError: this torch can't compute a gradient inside a compiled graph.
    """
    import torch._dynamo as dynamo  # takes a second, so import it only to compile

    if not hasattr(dynamo.config, "trace_autograd_ops"):
        raise ConfigError(f"compile = True needs torch 2.13 or newer, found {torch.__version__}")
    dynamo.config.trace_autograd_ops = True
    return torch.compile(function, fullgraph=True)


def pop_dims(settings: dict[str, Any]) -> tuple[tuple[int, ...], int]:
    """Pop `state_dim` and `action_dim` from an agent's config."""
    for key in ("state_dim", "action_dim"):
        if key not in settings:
            raise ConfigError(f"an agent's config needs {key!r}, got only {', '.join(settings) or 'an empty one'}")
    state_dim, action_dim = settings.pop("state_dim"), convert("action_dim", settings.pop("action_dim"), int)
    state_shape = shape_in(state_dim)
    if min(*state_shape, action_dim, 1) < 1:
        raise ConfigError(f"state_dim = {state_dim}, action_dim = {action_dim}: needs sizes of at least 1")
    return state_shape, action_dim


def shape_in(state_dim: Any) -> tuple[int, ...]:
    """Return the shape that `state_dim` gives, as a number or as sizes."""
    sizes = state_dim if isinstance(state_dim, list | tuple | np.ndarray) else [state_dim]
    return tuple(convert("state_dim", size, int) for size in sizes)


def pop_bounds(settings: dict[str, Any], state_shape: tuple[int, ...]) -> Bounds | None:
    """Pop `state_bounds` from an agent's config, if present."""
    if settings.get("state_bounds") is None:
        settings.pop("state_bounds", None)
        return None
    low, high = settings.pop("state_bounds")
    numbers = math.prod(state_shape)
    if len(low) != numbers or len(high) != numbers:
        raise ConfigError(f"state_bounds of {len(low)} and {len(high)} numbers: a state {state_shape} has {numbers}")
    for place, (lowest, highest) in enumerate(zip(low, high, strict=True)):
        if not -math.inf < lowest < highest < math.inf:
            raise ConfigError(f"state_bounds of component {place} are {lowest} and {highest}: needs finite, low < high")
    return low, high


def pop_scale(settings: dict[str, Any], bounds: Bounds | None) -> ValueRange | None:
    """Pop `state_scale` from an agent's config, if present."""
    scale = settings.pop("state_scale", None)
    if scale is None:
        return None
    if bounds is not None:
        raise ConfigError(f"state_scale = {scale}: state_bounds already scale the states; leave one out")
    match scale:
        case [int() | float() as low, int() | float() as high] if -math.inf < low < high < math.inf:
            return low, high
    raise ConfigError(f"state_scale = {scale}: needs two finite numbers, low < high")


def pop_normalized(settings: dict[str, Any], bounds: Bounds | None) -> bool:
    """Pop `state_normalized` from an agent's config, if present."""
    normalized: bool = convert("state_normalized", settings.pop("state_normalized", False), bool)
    if normalized and bounds is not None:
        raise ConfigError("state_normalized: state_bounds scale the states already; leave one out")
    return normalized


def pop_rewards_normalized(settings: dict[str, Any]) -> bool:
    """Pop `normalize_rewards` from an agent's config, if present."""
    normalized: bool = convert("normalize_rewards", settings.pop("normalize_rewards", False), bool)
    return normalized


def resolve_device(name: str, state_shape: tuple[int, ...]) -> torch.device:
    """Return the device; `auto` is the CPU for vectors (on a GPU a small network waits more than it computes).

    Raises:
        ConfigError: there is no such device, or it can't be used; the message names those that can.
    """
    if name == "auto":
        return torch.device("cuda" if len(state_shape) >= 3 and torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device = {name!r}: needs {one_of(devices_here())}") from None
    try:
        torch.zeros(1, device=device).item()  # read it, since `meta` accepts everything and stores nothing
    except Exception as error:  # a device type that torch knows only by name can raise anything
        raise ConfigError(f"device = {name!r} {why_not(device, error)}") from None
    return device


def devices_here() -> list[str]:
    """Return the names of the devices on this machine."""
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    numbered = [f"cuda:{number}" for number in range(cuda)] if cuda > 1 else []
    return [
        "auto",
        "cpu",
        *(["cuda"] if cuda else []),
        *numbered,
        *(["mps"] if torch.backends.mps.is_available() else []),
    ]


def why_not(device: torch.device, error: Exception) -> str:
    """Return why a device can't be used, and which can."""
    ways = one_of(devices_here())
    if device.type != "cuda":
        return f"is not available on this machine: use {ways}"
    if torch.cuda.is_available():
        if (device.index or 0) < torch.cuda.device_count():
            return f"can't be used: {str(error).splitlines()[0]}; use cpu"
        return f"is not available: this machine has only {torch.cuda.device_count()}; use {ways}"
    built = torch.version.cuda is not None or torch.version.hip is not None
    why = "torch finds no GPU that CUDA can use" if built else "this torch was built without CUDA"
    return f"is not available: {why}; use {ways}"


def one_of(names: list[str]) -> str:
    """Return `a, b or c`."""
    return f"{', '.join(names[:-1])} or {names[-1]}"
