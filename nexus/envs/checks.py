"""What an environment may return: finite numbers, one reward per copy."""

from collections.abc import Callable
from traceback import walk_tb
from typing import Any

import numpy as np

from nexus.core.errors import EnvError, one_line
from nexus.core.types import Array

__all__ = ["misfit", "require_finite", "require_rewards"]

Fault = Callable[[int | None, str], EnvError]
"""Makes the error of one copy, or of one that is not known."""

STACKING = ("gymnasium.vector", "gymnasium.wrappers", "nexus.envs")  # whose code unpacks and stacks answers
PASSED_ON = ("_raise_if_errors",)  # where Gymnasium raises again what a copy in another process raised


def require_finite(states: Array, fault: Fault) -> None:
    """Raise unless every number of float observations `[E, *obs]` is finite; others can't be anything else."""
    if states.dtype.kind == "f" and np.count_nonzero(np.isfinite(states)) != states.size:
        copy, *where = map(int, np.argwhere(~np.isfinite(states))[0])
        raise fault(copy, f"an observation with {states[(copy, *where)]} at {where}: needs finite numbers")


def require_rewards(given: Any, num_envs: int, fault: Fault) -> Array:
    """Return the rewards `[E]` if they are that many finite numbers, else raise."""
    rewards: Array = np.asarray(given)
    if rewards.shape != (num_envs,) or rewards.dtype.kind not in "fiub":
        raise fault(None, f"rewards {rewards.dtype}{list(rewards.shape)}: needs one number per copy, [{num_envs}]")
    if np.count_nonzero(np.isfinite(rewards)) != num_envs:
        copy = int(np.isfinite(rewards).argmin())
        raise fault(copy, f"reward {rewards[copy]}: needs a finite number")
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
    copy, what = None, "an answer"
    for frame in frames:
        found = frame.f_locals
        if frame.f_globals.get("__name__", "").startswith("gymnasium.vector"):
            copy = found.get("env_num", found.get("i", copy))
            what = f"an info[{found['key']!r}]" if "key" in found else what
    return fault(copy, f"{what} that fits no vector of all copies: {one_line(error)}")
