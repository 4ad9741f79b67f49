"""Reading an environment's return values: one array, one number, two flags; anything else is a one-line error."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy
from functools import partial
from math import prod
from operator import index
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from nexus.core.errors import EnvError, one_line
from nexus.core.types import Array
from nexus.envs.checks import index_text

__all__ = [
    "OLD_RESET",
    "OLD_STEP",
    "SUCCESS",
    "SUCCESS_KEYS",
    "Form",
    "flag_in",
    "form_of",
    "is_grid",
    "is_picture",
    "number_in",
    "outside",
    "reset_answer",
    "said_in",
    "saying",
    "step_answer",
    "success_in",
]

SUCCESS_KEYS = ("is_success", "success")  # of an info
SUCCESS = "nexus_success"  # in our infos: whether an episode that has just ended was a success
SAID = "nexus_said"  # attribute of a state space: the entries of the agent's config that say how to read observations
SMALLEST_PICTURE = 36  # pixels on a side of a grey image without a channel axis
NUMBERS = "biuf"  # NumPy's kinds: booleans, whole numbers and floats
WHOLE = "biu"
LARGEST_NUMBER = 8  # bytes
ROUNDING = 1e-6  # relative amount by which a float may exceed a bound

OLD_RESET = "instead of gym's old API, let reset(self, *, seed=None, options=None) return (observation, info)"
OLD_STEP = (
    "instead of gym's old API, let step return (observation, reward, terminated, truncated, info), where truncated "
    "means the end by a time limit"
)


class Form(NamedTuple):
    """How observations of a space are converted."""

    space: spaces.Space[Any]  # space of the converted observations
    read: Callable[[Any], Array]  # from an observation to a newly allocated array


def form_of(space: spaces.Space[Any], picture: bool = False) -> Form:
    """Return how observations are converted: discrete numbers to one-hot vectors, arrays unchanged.

    Args:
        space: the environment's: Box, Discrete, MultiDiscrete or MultiBinary, or one that Gymnasium can flatten.
        picture: whether a two-dimensional array is an image, which gets a channel axis.

    Raises:
        NotImplementedError: it can't be flattened.
    """
    if isinstance(space, spaces.Box):
        space = in_torchs_dtype(space)
    match space:
        case spaces.Box() if picture:
            framed = spaces.Box(space.low[None], space.high[None], dtype=space.dtype.type)
            return Form(
                saying(framed, observed_dim=list(space.shape)),
                lambda observation: array_in(observation, space.shape, space.dtype)[None],
            )
        case spaces.Box():
            return Form(space, partial(array_in, shape=space.shape, dtype=space.dtype))
        case spaces.Discrete():
            count, start = int(space.n), int(space.start)
            return Form(
                saying(zeros_and_ones(count), discrete_start=start),
                lambda observation: one_hot(observation, count, start),
            )
        case spaces.MultiDiscrete():
            sizes, starts = space.nvec.ravel(), space.start.ravel()
            vectors = zeros_and_ones(int(sizes.sum()))
            return Form(
                saying(vectors, discrete_sizes=space.nvec.tolist(), discrete_start=space.start.tolist()),
                lambda observation: one_hots(whole_in(observation, space.nvec.shape), sizes, starts),
            )
        case spaces.MultiBinary():
            bits = zeros_and_ones(prod(space.shape))
            said = {} if space.shape == bits.shape else {"observed_dim": list(space.shape)}
            return Form(saying(bits, **said), lambda observation: bits_in(observation, space.shape))
    flat = spaces.flatten_space(space)
    return Form(flat, lambda observation: np.array(spaces.flatten(space, observation)))


def saying(space: spaces.Box, **entries: Any) -> spaces.Box:
    """Return a copy of a state space that also carries entries of an agent's config on how to read observations."""
    said = copy(space)  # it may be the environment's
    vars(said)[SAID] = {**said_in(space), **entries}
    return said


def said_in(space: spaces.Space[Any]) -> dict[str, Any]:
    """Return the config entries that a space carries."""
    return dict(vars(space).get(SAID, {}))


def zeros_and_ones(count: int) -> spaces.Box:
    """Return the space of `count` zeros and ones, as bytes, since a replay holds millions of them."""
    return spaces.Box(0, 1, (count,), np.int8)


def in_torchs_dtype(space: spaces.Box) -> spaces.Box:
    """Return a space with a dtype that torch supports: native byte order, at most 64 bits."""
    dtype = space.dtype.newbyteorder("=") if space.dtype.itemsize <= LARGEST_NUMBER else np.dtype(np.float64)
    if dtype == space.dtype:
        return space
    return spaces.Box(space.low.astype(dtype), space.high.astype(dtype), dtype=dtype.type)


def is_picture(space: spaces.Space[Any]) -> bool:
    """True for a large grid of numbers from 0 to 1 or 255, taken as a grey image without a channel axis."""
    if not is_grid(space) or not isinstance(space, spaces.Box):
        return False
    shades = space.low.min() == space.low.max() == 0 and space.high.min() == space.high.max() in (1, 255)
    return min(space.shape) >= SMALLEST_PICTURE and bool(shades)


def is_grid(space: spaces.Space[Any]) -> bool:
    """True for a two-dimensional array that may be an image: bytes, or large."""
    if not isinstance(space, spaces.Box) or len(space.shape) != 2:
        return False
    return space.dtype == np.uint8 or min(space.shape) >= SMALLEST_PICTURE


def array_in(observation: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return an observation as a newly allocated array of this shape and dtype.

    Raises:
        EnvError: it has another shape or kind, or numbers that this dtype can't represent.
    """
    if type(observation) is np.ndarray and observation.dtype is dtype and observation.shape == shape:
        return observation.copy()
    given = numbers_in(observation, shape, dtype)
    if given.dtype.kind not in (NUMBERS if dtype.kind == "f" else WHOLE):
        raise EnvError(f"got an observation {given.dtype}{list(given.shape)}: needs {dtype}{list(shape)}")
    with np.errstate(all="ignore"):
        taken: Array = given.astype(dtype)
    fine = np.isfinite(taken) if dtype.kind == "f" else taken == given
    if np.count_nonzero(fine) == taken.size:
        return taken
    lost = np.argwhere(~fine & np.isfinite(given))  # numbers that are not finite to begin with are refused elsewhere
    if len(lost):
        where = tuple(lost[0])
        raise EnvError(f"got an observation with {given[where]}{index_text(where)}: {dtype} can't represent it")
    return taken


def numbers_in(observation: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return an observation as an array of this shape, possibly without a copy; one number fits every shape."""
    try:
        given = np.asarray(observation)
    except Exception as error:  # lists of different lengths, and anything else that fails to convert
        needed = f"needs {dtype}{list(shape)}"
        raise EnvError(f"got an observation that is not an array: {one_line(error)}; {needed}") from error
    if given.dtype.kind in NUMBERS + "c":
        if given.shape == shape:
            return given
        if given.size == 1 == prod(shape):
            return given.reshape(shape)
        raise EnvError(f"got an observation {given.dtype}{list(given.shape)}: needs {dtype}{list(shape)}")
    raise EnvError(f"got an observation of type {type(observation).__name__}: needs {dtype}{list(shape)}")


def whole_in(observation: Any, shape: tuple[int, ...]) -> Array:
    """Return an observation of whole numbers; floats are accepted if they are whole."""
    given = numbers_in(observation, shape, np.dtype(np.int64))
    if given.dtype.kind in WHOLE:
        return given
    odd = given != np.floor(given) if given.dtype.kind == "f" else np.ones(shape, bool)
    if odd.any():
        where = tuple(np.argwhere(odd)[0])
        raise EnvError(f"got an observation with {given[where]}{index_text(where)}: needs whole numbers")
    return given.astype(np.int64)


def one_hot(observation: Any, count: int, start: int) -> Array:
    """Return the one-hot vector `[count]` of a number that counts from `start`."""
    try:
        number = index(observation)
    except TypeError:
        number = int(whole_in(observation, ()))
    if not 0 <= number - start < count:
        raise EnvError(f"got observation {number}: its space has {start} to {start + count - 1}")
    vector = np.zeros(count, np.int8)
    vector[number - start] = 1
    return vector


def one_hots(numbers: Array, sizes: Array, starts: Array) -> Array:
    """Return concatenated one-hot vectors `[sum(sizes)]` of numbers that count from `starts`."""
    places = numbers.ravel().astype(np.int64) - starts
    astray = (places < 0) | (places >= sizes)
    if astray.any():
        at = int(astray.argmax())
        where, low, high = np.unravel_index(at, numbers.shape), starts[at], starts[at] + sizes[at] - 1
        raise EnvError(
            f"got an observation with {numbers.ravel()[at]}{index_text(where)}: its space has {low} to {high} there"
        )
    vectors = np.zeros(int(sizes.sum()), np.int8)
    vectors[np.cumsum(sizes) - sizes + places] = 1
    return vectors


def bits_in(observation: Any, shape: tuple[int, ...]) -> Array:
    """Return zeros and ones, flattened."""
    given = whole_in(observation, shape)
    odd = (given != 0) & (given != 1)
    if odd.any():
        where = tuple(np.argwhere(odd)[0])
        raise EnvError(f"got an observation with {given[where]}{index_text(where)}: its space has 0 and 1")
    return given.ravel().astype(np.int8)


def outside(observation: Array, space: spaces.Box, name: str = "observation") -> str | None:
    """Return a message about the first number beyond its bound, or None. Rounding is tolerated."""
    beyond = (observation < space.low) | (observation > space.high)
    if not beyond.any():
        return None
    for where in map(tuple, np.argwhere(beyond)):
        number, low, high = (float(values[where]) for values in (observation, space.low, space.high))
        word, bound = ("least", low) if number < low else ("most", high)
        if abs(number - bound) > ROUNDING * max(1.0, abs(bound)):
            return f"{name}{list(map(int, where)) or ''} was {number:g}, its space says at {word} {bound:g}"
    return None


def number_in(reward: Any) -> float:
    """Return a reward as a number; an array of one number is accepted.

    Raises:
        EnvError: it is not a number.
    """
    try:
        if isinstance(reward, float | int):  # NumPy's float64 among them
            return float(reward)
        given = np.asarray(reward)
        if given.size == 1 and given.dtype.kind in NUMBERS + "O":
            return float(given.item())
    except Exception as error:
        raise EnvError(f"got reward {describe_value(reward)}: needs a number") from error
    raise EnvError(f"got reward {describe_value(reward)}: needs a number")


def flag_in(flag: Any, name: str) -> bool:
    """Return a flag as a bool; an array of one is accepted.

    Raises:
        EnvError: it is not a boolean; this catches values returned in the wrong order.
    """
    if flag is True or flag is False:
        return flag
    try:
        given = np.asarray(flag)
    except Exception:
        given = np.empty(0)
    if given.size != 1 or given.dtype.kind not in NUMBERS or given.item() not in (0, 1):
        raise EnvError(f"got {name} {describe_value(flag)}: needs True or False")
    return bool(given.item())


def success_in(info: Mapping[str, Any]) -> dict[str, bool]:
    """Return our info entry on whether an episode that has just ended was a success; empty if its last info has none.

    A value that is neither true nor false counts as none: only a curriculum reads this, other runs must not fail by it.
    """
    for key in SUCCESS_KEYS:
        if key in info:
            with suppress(Exception):
                return {SUCCESS: flag_in(info[key], key)}
    return {}


def describe_value(value: Any) -> str:
    """Return a value as text for a message: short ones in full, others by type and shape."""
    text = " ".join(repr(value).split())
    if len(text) <= 40:
        return text
    return f"of type {type(value).__name__}{list(value.shape) if hasattr(value, 'shape') else ''}"


def reset_answer(answer: Any) -> tuple[Any, Mapping[str, Any]]:
    """Return observation and info of a reset.

    Raises:
        EnvError: the answer is not a pair.
    """
    if isinstance(answer, tuple | list) and len(answer) == 2:
        observation, info = answer
        if isinstance(info, dict | Mapping):
            return observation, info
        if info is None:
            return observation, {}
    raise EnvError(f"its reset returned {told_answer(answer)}: needs (observation, info); {OLD_RESET}")


def step_answer(answer: Any) -> tuple[Any, Any, Any, Any, Mapping[str, Any]]:
    """Return observation, reward, terminated, truncated and info of a step.

    Raises:
        EnvError: the answer does not have five parts.
    """
    if not isinstance(answer, tuple | list) or len(answer) != 5:
        raise EnvError(f"its step returned {told_answer(answer)}: needs 5; {OLD_STEP}")
    observation, reward, terminated, truncated, info = answer
    if info is None:
        info = {}
    elif not isinstance(info, dict | Mapping):
        raise EnvError(f"its step returned an info of type {type(info).__name__}: needs a dict")
    return observation, reward, terminated, truncated, info


def told_answer(answer: Any) -> str:
    """Return a description of the answer: the number of values, or the type of a single one."""
    if not isinstance(answer, tuple | list):
        return f"one {type(answer).__name__}"
    kinds = ", ".join(type(value).__name__ for value in answer[:6])
    return f"{len(answer)} values ({kinds}{', ...' if len(answer) > 6 else ''})"
