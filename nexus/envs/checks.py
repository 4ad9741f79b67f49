"""What an environment may return: finite numbers of the right shape, one reward per copy. What it raises is told."""

from collections.abc import Callable
from pathlib import Path
from traceback import extract_tb, walk_tb
from types import FrameType
from typing import Any

import numpy as np
from gymnasium import spaces

from nexus.core.errors import EnvError, one_line
from nexus.core.types import Array

__all__ = ["Fault", "misfit", "misshapen", "raised", "require_finite", "require_rewards", "require_shape", "told"]

Fault = Callable[[int | None, str], EnvError]
"""Makes the error of one copy, or of one that is not known; the text is what it did, such as `got reward nan`."""

STACKING = ("gymnasium.vector", "gymnasium.wrappers", "nexus.envs")  # whose code unpacks and stacks answers
PASSED_ON = ("_raise_if_errors",)  # where Gymnasium raises again what a copy in another process raised


def require_shape(states: Array, shape: tuple[int, ...], dtype: Any, fault: Fault) -> None:
    """Raise unless observations `[E, *obs]` have this shape, and a dtype that can become this one."""
    if states.shape != shape or (states.dtype != dtype and not np.can_cast(states.dtype, dtype, "same_kind")):
        raise fault(None, f"got observations {states.dtype}{list(states.shape)}: needs {dtype}{list(shape)}")


def misshapen(observation: Any, space: spaces.Space[Any]) -> str | None:
    """Return what is wrong with one observation's shape or dtype, or None."""
    array = np.asarray(observation)
    if array.shape == space.shape and np.can_cast(array.dtype, space.dtype or array.dtype, "same_kind"):
        return None
    return f"an observation {array.dtype}{list(array.shape)}: needs {space.dtype}{list(space.shape or ())}"


def require_finite(states: Array, fault: Fault) -> None:
    """Raise unless every number of float observations `[E, *obs]` is finite; others can't be anything else."""
    if states.dtype.kind == "f" and np.count_nonzero(np.isfinite(states)) != states.size:
        copy, *where = map(int, np.argwhere(~np.isfinite(states))[0])
        raise fault(copy, f"got an observation with {states[(copy, *where)]} at {where}: needs finite numbers")


def require_rewards(given: Any, num_envs: int, fault: Fault) -> Array:
    """Return the rewards `[E]` if they are that many finite numbers, else raise."""
    rewards: Array = np.asarray(given)
    if rewards.shape != (num_envs,) or rewards.dtype.kind not in "fiub":
        raise fault(None, f"got rewards {rewards.dtype}{list(rewards.shape)}: needs one number per copy, [{num_envs}]")
    if np.count_nonzero(np.isfinite(rewards)) != num_envs:
        copy = int(np.isfinite(rewards).argmin())
        raise fault(copy, f"got reward {rewards[copy]}: needs a finite number")
    return rewards


def misfit(error: Exception, fault: Fault) -> EnvError | None:
    """Return the error to show where one copy's answer could not be stacked; None if the copy itself raised it.

    Gymnasium then fails inside of its own loop over the copies with what NumPy says. Which copy it was stands in the
    variables of that loop; reading them here costs nothing while all is well.
    """
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    last = frames[-1]
    if not last.f_globals.get("__name__", "").startswith(STACKING) or last.f_code.co_name in PASSED_ON:
        return None
    keys = [frame.f_locals["key"] for frame in frames if is_vector(frame) and "key" in frame.f_locals]
    what = f"an info[{keys[-1]!r}]" if keys else "an answer"
    return fault(copy_in(error), f"got {what} that fits no vector of all copies: {one_line(error)}")


def raised(error: Exception, fault: Fault) -> EnvError:
    """Return the error to show where a copy raised one of its own."""
    return fault(copy_in(error), told(error))


def told(error: Exception) -> str:
    """Say in one line what was raised, and where; what was already made to be told stays as it is."""
    if isinstance(error, EnvError):
        return str(error)
    last = extract_tb(error.__traceback__)[-1]
    return f"raised {type(error).__name__}: {one_line(error)} ({Path(last.filename).name}, line {last.lineno})"


def copy_in(error: Exception) -> int | None:
    """Return the copy that Gymnasium's own loop over the copies had come to, if there was such a loop."""
    copy = None
    for frame, _ in walk_tb(error.__traceback__):
        if is_vector(frame):
            found = frame.f_locals
            passed_on = frame.f_code.co_name in PASSED_ON  # there `i` counts errors
            copy = found.get("index", copy) if passed_on else found.get("env_num", found.get("i", copy))
    return copy


def is_vector(frame: FrameType) -> bool:
    """True for code of Gymnasium that steps several copies."""
    return str(frame.f_globals.get("__name__", "")).startswith("gymnasium.vector")
