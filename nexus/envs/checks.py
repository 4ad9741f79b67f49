"""Validation of what environments return: finite numbers of the right shape, one reward each; and their errors."""

from collections.abc import Callable, Iterator, Sequence
from itertools import dropwhile, takewhile
from pathlib import Path
from traceback import extract_tb, walk_tb
from types import FrameType
from typing import Any

import numpy as np
from gymnasium import spaces

from nexus.core.errors import EnvError, one_line
from nexus.core.types import Array

__all__ = [
    "Fault",
    "describe_error",
    "env_index_in",
    "fault_from",
    "index_text",
    "misfit",
    "misshapen",
    "require_finite",
    "require_rewards",
    "require_shape",
]

Fault = Callable[[int | None, str], EnvError]
"""Makes the error for one sub-environment, None if unknown; the text says what happened, such as `got reward nan`."""

STACKING = ("gymnasium.vector", "gymnasium.wrappers", "nexus.envs")  # modules that unpack and stack answers
LOOPS = ("env_num", "env_idx", "i")  # names of the sub-environment's index in their loops
PASSED_ON = ("_raise_if_errors",)  # where Gymnasium re-raises errors of sub-environments in other processes
LARGEST = float(np.finfo(np.float32).max)  # agents compute in float32
TOO_LARGE = f"agents compute in float32, which holds at most {LARGEST:.2g}"


def require_shape(states: Array, shape: tuple[int, ...], dtype: Any, fault: Fault) -> None:
    """Raise unless observations `[E, *obs]` have this shape, and a dtype that can be converted to this one."""
    if states.shape != shape or (states.dtype != dtype and not np.can_cast(states.dtype, dtype, "same_kind")):
        raise fault(None, f"got observations {states.dtype}{list(states.shape)}: needs {dtype}{list(shape)}")


def misshapen(observation: Any, space: spaces.Space[Any]) -> str | None:
    """Return a message if an observation has the wrong shape or dtype, else None."""
    array = np.asarray(observation)
    if array.shape == space.shape and np.can_cast(array.dtype, space.dtype or array.dtype, "same_kind"):
        return None
    return f"an observation {array.dtype}{list(array.shape)}: needs {space.dtype}{list(space.shape or ())}"


def require_finite(states: Array, fault: Fault) -> None:
    """Raise unless every number of float observations `[E, *obs]` is finite; other dtypes always are."""
    if states.dtype.kind != "f":
        return
    fine = np.isfinite(states) if states.itemsize <= 4 else np.abs(states) <= LARGEST
    if np.count_nonzero(fine) != states.size:
        where = tuple(np.argwhere(~fine)[0])
        needed = TOO_LARGE if np.isfinite(states[where]) else "needs finite numbers"
        raise fault(int(where[0]), f"got an observation with {states[where]}{index_text(where[1:])}: {needed}")


def require_rewards(given: Any, num_envs: int, fault: Fault) -> Array:
    """Return the rewards `[E]` if they are `num_envs` finite numbers, else raise."""
    rewards: Array = np.asarray(given)
    if rewards.shape != (num_envs,) or rewards.dtype.kind not in "fiub":
        raise fault(
            None,
            f"got rewards {rewards.dtype}{list(rewards.shape)}: needs one number per sub-environment, [{num_envs}]",
        )
    fine = np.abs(rewards) <= LARGEST
    if np.count_nonzero(fine) != num_envs:
        index = int(fine.argmin())
        needed = TOO_LARGE if np.isfinite(rewards[index]) else "needs a finite number"
        raise fault(index, f"got reward {rewards[index]}: {needed}")
    return rewards


def index_text(where: Sequence[Any]) -> str:
    """Return text such as ` at [1, 0]`, empty for a scalar."""
    return f" at {list(map(int, where))}" if len(where) else ""


def misfit(error: Exception, fault: Fault) -> EnvError | None:
    """Return the error to show if one sub-environment's answer could not be stacked; None if it itself raised it.

    Gymnasium then fails inside its loop over the sub-environments with NumPy's error. The index is in that loop's
    variables; reading them here costs nothing unless something fails.
    """
    frames = [frame for frame, _ in walk_tb(error.__traceback__) if not module_of(frame).startswith("numpy")]
    last = frames[-1]
    if not module_of(last).startswith(STACKING) or last.f_code.co_name in PASSED_ON:
        return None
    keys = [frame.f_locals["key"] for frame in frames if is_vector(frame) and "key" in frame.f_locals]
    what = f"an info[{keys[-1]!r}]" if keys else "an answer"
    return fault(
        env_index_in(error), f"got {what} that can't be stacked with the other sub-environments': {one_line(error)}"
    )


def fault_from(error: Exception, fault: Fault) -> EnvError:
    """Return the error to show if a sub-environment raised an error."""
    return fault(env_index_in(error), describe_error(error))


def describe_error(error: Exception) -> str:
    """Return one line on what was raised and where; nexus messages are returned unchanged."""
    if isinstance(error, EnvError):
        return str(error)
    last = extract_tb(error.__traceback__)[-1]
    return f"raised {type(error).__name__}: {one_line(error)} ({Path(last.filename).name}, line {last.lineno})"


def env_index_in(error: Exception) -> int | None:
    """Return the index of the sub-environment that Gymnasium's loop over all had reached, if there was such a loop."""
    index = None
    for frame in outermost_vector(error):
        found = frame.f_locals
        if {"items", "space"} <= found.keys():  # all of them answered, but stacking their observations failed
            return odd_one(found["items"], found["space"])
        names = ("index",) if frame.f_code.co_name in PASSED_ON else LOOPS  # `i` is the error's index there
        index = next((found[name] for name in names if name in found), index)
    return index


def outermost_vector(error: Exception) -> Iterator[FrameType]:
    """Yield the stack frames of the outermost vector, not of vectors inside an environment."""
    frames = dropwhile(lambda frame: not is_vector(frame), (frame for frame, _ in walk_tb(error.__traceback__)))
    return takewhile(lambda frame: is_vector(frame) or module_of(frame) == "functools", frames)


def odd_one(observations: Sequence[Any], space: spaces.Space[Any]) -> int | None:
    """Return the first sub-environment whose observation can't be stacked, if there is one."""
    for index, observation in enumerate(observations):
        try:
            wrong = misshapen(observation, space) is not None
        except ValueError:  # lists of different lengths
            wrong = True
        if wrong:
            return index
    return None


def is_vector(frame: FrameType) -> bool:
    """True for code of Gymnasium that steps several sub-environments."""
    return module_of(frame).startswith("gymnasium.vector")


def module_of(frame: FrameType) -> str:
    """Return the name of the module that a stack frame runs in."""
    return str(frame.f_globals.get("__name__", ""))
