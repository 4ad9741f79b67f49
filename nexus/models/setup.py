"""Preparing an agent: reading its shapes and states, choosing its device, compiling its update."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from nexus.core import ConfigError
from nexus.core.config import convert
from nexus.core.types import Array
from nexus.models.layers import Bounds, Span

__all__ = ["compiled", "pop_bounds", "pop_dims", "pop_discrete_start", "pop_scale", "resolve_device", "states_of"]


FOR_TORCH: tuple[Literal["C", "W"], ...] = ("C", "W")  # required of arrays whose memory torch shares


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
    sizes = state_dim if isinstance(state_dim, list | tuple | np.ndarray) else [state_dim]
    state_shape = tuple(convert("state_dim", size, int) for size in sizes)
    if min(*state_shape, action_dim, 1) < 1:
        raise ConfigError(f"state_dim = {state_dim}, action_dim = {action_dim}: needs sizes of at least 1")
    return state_shape, action_dim


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
            raise ConfigError(f"state_bounds of number {place} are {lowest} and {highest}: needs finite, low < high")
    return low, high


def pop_scale(settings: dict[str, Any], bounds: Bounds | None) -> Span | None:
    """Pop `state_scale` from an agent's config, if present."""
    scale = settings.pop("state_scale", None)
    if scale is None:
        return None
    if bounds is not None:
        raise ConfigError(f"state_scale = {scale}: state_bounds scale the states already; leave one out")
    match scale:
        case [int() | float() as low, int() | float() as high] if -math.inf < low < high < math.inf:
            return low, high
    raise ConfigError(f"state_scale = {scale}: needs two finite numbers, low < high")


def pop_discrete_start(settings: dict[str, Any], state_shape: tuple[int, ...]) -> int | None:
    """Pop `discrete_start` from an agent's config, if present."""
    start = settings.pop("discrete_start", None)
    if start is None:
        return None
    if not isinstance(start, int):
        raise ConfigError(f"discrete_start = {start!r}: needs a whole number")
    if len(state_shape) != 1:
        raise ConfigError(f"discrete_start = {start}: needs states of shape (n,), got {state_shape}")
    return start


def states_of(given: Any, shape: tuple[int, ...], discrete_start: int | None = None, many: bool = True) -> Array:
    """Return observations as states for a network: one `[*obs]`, or many `[E, *obs]`.

    Numbers of any type are accepted, and lists of them: bytes stay bytes, all others become float32.

    Args:
        given: the observations.
        shape: shape of one state.
        discrete_start: the smallest observation, if the environment's observations are whole numbers; those are
            one-hot encoded, one alone or many in a row.
        many: whether a batch is allowed.

    Raises:
        ConfigError: these are not numbers, not finite, or of another shape; the message says what would fit.
    """
    numbers = array_of(given, shape)
    if discrete_start is not None and numbers.dtype.kind in "iu" and numbers.ndim <= int(many):
        numbers = one_hot(numbers, discrete_start, shape[0])
    if numbers.shape != shape and not (many and numbers.ndim and numbers.shape[1:] == shape):
        raise ConfigError(misfit(numbers.shape, shape, discrete_start, many))
    states: Array = np.require(numbers, requirements=FOR_TORCH)
    if states.dtype == np.uint8:
        return states
    with np.errstate(over="ignore"):  # values beyond float32 become infinite
        states = np.require(states, np.float32, FOR_TORCH)
    if not np.isfinite(states).all():
        raise ConfigError(f"observation holds {states[~np.isfinite(states)][0]}: needs finite numbers")
    return states


def array_of(given: Any, shape: tuple[int, ...]) -> Array:
    """Return numbers as an array, or raise a `ConfigError` that says what was given instead."""
    if isinstance(given, tuple) and given and isinstance(given[-1], Mapping):
        call, way = ("reset", "env.reset()[0]") if len(given) == 2 else ("step", "its first part")
        raise ConfigError(f"observation is the whole result of env.{call}(): pass {way}")
    try:
        array = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given)
    except ValueError:  # lists of different lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf":
        kind = given.dtype if isinstance(given, np.ndarray) else type(given).__name__
        raise ConfigError(f"observation of type {kind}: needs numbers of shape {shape}")
    return array


def one_hot(numbers: Array, start: int, count: int) -> Array:
    """Return the one-hot encoding `[..., count]`, float32, of whole numbers that start at `start`.

    Raises:
        ConfigError: a number is out of range.
    """
    places = numbers.astype(np.int64) - start
    astray = numbers[(places < 0) | (places >= count)]
    if astray.size:
        raise ConfigError(f"observation {astray.flat[0]}: needs a whole number from {start} to {start + count - 1}")
    states: Array = np.eye(count, dtype=np.float32)[places]
    return states


def misfit(given: tuple[int, ...], shape: tuple[int, ...], discrete_start: int | None, many: bool) -> str:
    """Return the message that an observation's shape differs from a state's, and what would fit."""
    said = f"observation of shape {given}: needs {shape}"
    if many:
        said += f", or {('E', *shape)} for E of them".replace("'E'", "E")
    elif given[1:] == shape:
        return f"{said}; use predict for many"
    if discrete_start is not None:
        said += f", or whole numbers from {discrete_start} to {discrete_start + shape[0] - 1}"
    return said + way_out(given, shape)


def way_out(given: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """Return how to make a plausible array fit: by moving its axes, or by regrouping its numbers."""
    like = np.broadcast_to(0, given)  # that shape without memory
    for place, axes in (("last", (-1, -3)), ("first", (-3, -1))):
        if len(given) >= len(shape) >= 3 and np.moveaxis(like, *axes).shape[-len(shape) :] == shape:
            return f"; its channels are {place}: pass np.moveaxis(x, {axes[0]}, {axes[1]})"
    states, rest = divmod(math.prod(given), math.prod(shape))
    in_order = len(given) == 1 or given[len(given) - len(shape) :] == shape
    if states == 1 and not rest and (in_order or sides_of(given) == sides_of(shape)):
        return f"; pass x.reshape({shape})"
    if states > 1 and not rest and in_order:
        return f"; for {states} pass x.reshape({(-1, *shape)})"
    return ""


def sides_of(shape: tuple[int, ...]) -> list[int]:
    """Return the sides longer than 1."""
    return [side for side in shape if side > 1]


def resolve_device(name: str, state_shape: tuple[int, ...]) -> torch.device:
    """Return the device; `auto` is the CPU for vectors (on a GPU a small network waits more than it computes)."""
    if name == "auto":
        return torch.device("cuda" if len(state_shape) >= 3 and torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise ConfigError(f"device = {name!r} is not available here: try auto, cpu, cuda or mps") from None
    return device
