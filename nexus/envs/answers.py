"""An environment's answers, read: one array, one number, two flags; what can't be meant so is told in one line."""

from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from operator import index
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from nexus.core.errors import EnvError, one_line
from nexus.core.types import Array
from nexus.envs.checks import place_in

__all__ = [
    "DISCRETE_START",
    "OLD_RESET",
    "OLD_STEP",
    "Form",
    "flag_in",
    "form_of",
    "is_grid",
    "is_picture",
    "number_in",
    "outside",
    "reset_answer",
    "step_answer",
]

DISCRETE_START = "discrete_start"  # where a space of one-hot vectors says which number is the first
SMALLEST_PICTURE = 36  # pixels on a side, of a grey image that comes without its channel
NUMBERS = "biuf"  # NumPy's kinds: truth values, whole numbers and others
WHOLE = "biu"
LARGEST_NUMBER = 8  # bytes
ROUNDING = 1e-6  # of a bound, by which a float may be beyond it

OLD_RESET = "in place of gym's old API let reset(self, *, seed=None, options=None) return (observation, info)"
OLD_STEP = (
    "in place of gym's old API let step return (observation, reward, terminated, truncated, info), where truncated is "
    "the end by a time limit"
)


class Form(NamedTuple):
    """How observations of a space are given on."""

    space: spaces.Space[Any]  # of what is given on
    read: Callable[[Any], Array]  # from an observation as it came to an array of its own


def form_of(space: spaces.Space[Any], picture: bool = False) -> Form:
    """Return how observations are given on: numbers that count something as one-hot vectors, arrays as they are.

    Args:
        space: the environment's: Box, Discrete, MultiDiscrete or MultiBinary, or one that Gymnasium can flatten.
        picture: whether an array of two dimensions is a picture, which gets an axis for its one channel.

    Raises:
        NotImplementedError: it can't be flattened.
    """
    if isinstance(space, spaces.Box):
        space = in_torchs_dtype(space)
    match space:
        case spaces.Box() if picture:
            framed = spaces.Box(space.low[None], space.high[None], dtype=space.dtype.type)
            return Form(framed, lambda observation: array_in(observation, space.shape, space.dtype)[None])
        case spaces.Box():
            return Form(space, partial(array_in, shape=space.shape, dtype=space.dtype))
        case spaces.Discrete():
            count, start = int(space.n), int(space.start)
            numbers = zeros_and_ones(count)
            vars(numbers)[DISCRETE_START] = start  # so that an agent can take the number as well
            return Form(numbers, lambda observation: one_hot(observation, count, start))
        case spaces.MultiDiscrete():
            sizes, starts = space.nvec.ravel(), space.start.ravel()
            return Form(
                zeros_and_ones(int(sizes.sum())),
                lambda observation: one_hots(whole_in(observation, space.nvec.shape), sizes, starts),
            )
        case spaces.MultiBinary():
            return Form(zeros_and_ones(prod(space.shape)), lambda observation: bits_in(observation, space.shape))
    flat = spaces.flatten_space(space)
    return Form(flat, lambda observation: np.array(spaces.flatten(space, observation)))


def zeros_and_ones(count: int) -> spaces.Box:
    """Return the space of so many zeros and ones: in single bytes, since a replay holds millions of them."""
    return spaces.Box(0, 1, (count,), np.int8)


def in_torchs_dtype(space: spaces.Box) -> spaces.Box:
    """Return a space of numbers that torch has: with the machine's own order of bytes, and 64 bits at most."""
    dtype = space.dtype.newbyteorder("=") if space.dtype.itemsize <= LARGEST_NUMBER else np.dtype(np.float64)
    if dtype == space.dtype:
        return space
    return spaces.Box(space.low.astype(dtype), space.high.astype(dtype), dtype=dtype.type)


def is_picture(space: spaces.Space[Any]) -> bool:
    """True for a large grid of numbers from 0 to 1 or to 255: a grey image without an axis for its channel."""
    if not is_grid(space) or not isinstance(space, spaces.Box):
        return False
    shades = space.low.min() == space.low.max() == 0 and space.high.min() == space.high.max() in (1, 255)
    return min(space.shape) >= SMALLEST_PICTURE and bool(shades)


def is_grid(space: spaces.Space[Any]) -> bool:
    """True for numbers in two dimensions that may be meant as an image: bytes, and all that are large."""
    if not isinstance(space, spaces.Box) or len(space.shape) != 2:
        return False
    return space.dtype == np.uint8 or min(space.shape) >= SMALLEST_PICTURE


def array_in(observation: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return an observation as an array of its own, of this shape and dtype.

    Raises:
        EnvError: it has another shape or kind, or numbers that this dtype can't hold.
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
    lost = np.argwhere(~fine & np.isfinite(given))  # what is no finite number as it comes is refused as that
    if len(lost):
        where = tuple(lost[0])
        raise EnvError(f"got an observation with {given[where]}{place_in(where)}: {dtype} can't hold it")
    return taken


def numbers_in(observation: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return an observation as an array of this shape, perhaps the environment's own; one number fits every shape."""
    try:
        given = np.asarray(observation)
    except Exception as error:  # lists of different lengths, and whatever else says that it is an array
        needed = f"needs {dtype}{list(shape)}"
        raise EnvError(f"got an observation that is no array: {one_line(error)}; {needed}") from error
    if given.dtype.kind in NUMBERS + "c":
        if given.shape == shape:
            return given
        if given.size == 1 == prod(shape):
            return given.reshape(shape)
        raise EnvError(f"got an observation {given.dtype}{list(given.shape)}: needs {dtype}{list(shape)}")
    raise EnvError(f"got an observation of type {type(observation).__name__}: needs {dtype}{list(shape)}")


def whole_in(observation: Any, shape: tuple[int, ...]) -> Array:
    """Return an observation of whole numbers; of floats those are taken that are whole."""
    given = numbers_in(observation, shape, np.dtype(np.int64))
    if given.dtype.kind in WHOLE:
        return given
    odd = given != np.floor(given) if given.dtype.kind == "f" else np.ones(shape, bool)
    if odd.any():
        where = tuple(np.argwhere(odd)[0])
        raise EnvError(f"got an observation with {given[where]}{place_in(where)}: needs whole numbers")
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
    """Return one-hot vectors `[sum(sizes)]` one after the other, of numbers that count from `starts`."""
    places = numbers.ravel().astype(np.int64) - starts
    astray = (places < 0) | (places >= sizes)
    if astray.any():
        at = int(astray.argmax())
        where, low, high = np.unravel_index(at, numbers.shape), starts[at], starts[at] + sizes[at] - 1
        raise EnvError(
            f"got an observation with {numbers.ravel()[at]}{place_in(where)}: its space has {low} to {high} there"
        )
    vectors = np.zeros(int(sizes.sum()), np.int8)
    vectors[np.cumsum(sizes) - sizes + places] = 1
    return vectors


def bits_in(observation: Any, shape: tuple[int, ...]) -> Array:
    """Return zeros and ones in a row."""
    given = whole_in(observation, shape)
    odd = (given != 0) & (given != 1)
    if odd.any():
        where = tuple(np.argwhere(odd)[0])
        raise EnvError(f"got an observation with {given[where]}{place_in(where)}: its space has 0 and 1")
    return given.ravel().astype(np.int8)


def outside(observation: Array, space: spaces.Box) -> str | None:
    """Say which number of an observation is beyond its bound, or return None. Rounding is no offence."""
    beyond = (observation < space.low) | (observation > space.high)
    if not beyond.any():
        return None
    for where in map(tuple, np.argwhere(beyond)):
        number, low, high = (float(values[where]) for values in (observation, space.low, space.high))
        word, bound = ("least", low) if number < low else ("most", high)
        if abs(number - bound) > ROUNDING * max(1.0, abs(bound)):
            return f"observation{list(map(int, where)) or ''} was {number:g}, its space says at {word} {bound:g}"
    return None


def number_in(reward: Any) -> float:
    """Return a reward that may also be an array of one number.

    Raises:
        EnvError: it is none.
    """
    try:
        if isinstance(reward, float | int):  # NumPy's float64 among them
            return float(reward)
        given = np.asarray(reward)
        if given.size == 1 and given.dtype.kind in NUMBERS + "O":
            return float(given.item())
    except Exception as error:
        raise EnvError(f"got reward {shown(reward)}: needs a number") from error
    raise EnvError(f"got reward {shown(reward)}: needs a number")


def flag_in(flag: Any, name: str) -> bool:
    """Return a flag that may also be an array of one.

    Raises:
        EnvError: it is neither true nor false: answers in another order would be taken without a word.
    """
    if flag is True or flag is False:
        return flag
    try:
        given = np.asarray(flag)
    except Exception:
        given = np.empty(0)
    if given.size != 1 or given.dtype.kind not in NUMBERS or given.item() not in (0, 1):
        raise EnvError(f"got {name} {shown(flag)}: needs True or False")
    return bool(given.item())


def shown(value: Any) -> str:
    """Return a value as it is said: short ones whole, others by their type and shape."""
    text = " ".join(repr(value).split())
    if len(text) <= 40:
        return text
    return f"of type {type(value).__name__}{list(value.shape) if hasattr(value, 'shape') else ''}"


def reset_answer(answer: Any) -> tuple[Any, Mapping[str, Any]]:
    """Return observation and info of a reset.

    Raises:
        EnvError: they are not two.
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
        EnvError: they are not five.
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
    """Say how many values were returned, or of which type the one is."""
    if not isinstance(answer, tuple | list):
        return f"one {type(answer).__name__}"
    kinds = ", ".join(type(value).__name__ for value in answer[:6])
    return f"{len(answer)} values ({kinds}{', ...' if len(answer) > 6 else ''})"
