"""Reading and validating `info["action_mask"]` of a vector environment."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nexus.core.errors import EnvError
from nexus.core.types import Array
from nexus.envs.checks import Fault

__all__ = ["KEY", "checked_mask", "read_action_masks"]

KEY = "action_mask"  # Gymnasium's name, as in Taxi-v3

WRONG_ENTRIES = f"got an {KEY} with entries other than 0 and 1: needs 1 where legal, else 0"


def checked_mask(mask: Any, action_dim: int) -> NDArray[np.bool_]:
    """Return a copy of the mask `[A]` of one environment; whether any action is legal is not checked.

    Raises:
        EnvError: it has the wrong shape, or entries other than 0 and 1.
    """
    given = np.asarray(mask)
    if given.shape != (action_dim,):
        raise EnvError(wrong_shape(given.shape, action_dim))
    legal: NDArray[np.bool_] = given.astype(bool)
    if given.dtype != bool and (given != legal).any():
        raise EnvError(WRONG_ENTRIES)
    return legal


def read_action_masks(
    info: Mapping[str, Any], needed: NDArray[np.bool_], action_dim: int, fault: Fault
) -> NDArray[np.bool_]:
    """Return `[E, A]`, True where an action is legal.

    Args:
        info: info of a vector environment: masks `[E, A]`, and `_action_mask`, which of `E` gave one (all, if absent).
        needed: `[E]`, where an action will be chosen. A terminal state needs no mask: it can be missing, or have no
            legal action.
        action_dim: number of actions `A`.
        fault: makes an error that names the environment, the sub-environment and the step.

    Raises:
        EnvError: a required mask is missing or has no legal action, or a mask has a shape other than `[A]` or entries
            other than 0 and 1.
    """
    masks = info.get(KEY)
    given = np.asarray(info.get("_" + KEY, np.full(len(needed), masks is not None)), bool)
    refuse(needed & ~given, fault, f"got no {KEY} in its info: needs one at every reset and step, or none at all")
    if masks is None:
        return np.zeros((len(needed), action_dim), bool)
    rows = np.asarray(masks)
    if rows.dtype == object:
        rows = stack_masks(rows, given, action_dim, fault)
    if rows.shape != (len(needed), action_dim):
        raise fault(int(given.argmax()), wrong_shape(rows.shape[1:], action_dim))
    legal: NDArray[np.bool_] = rows.astype(bool)
    if rows.dtype != bool:
        refuse((rows != legal).any(1), fault, WRONG_ENTRIES)
    refuse(needed & ~legal.any(1), fault, f"got an {KEY} without a legal action: needs at least one 1")
    return legal


def stack_masks(rows: Array, given: NDArray[np.bool_], action_dim: int, fault: Fault) -> Array:
    """Return masks that are not arrays, such as lists, as `[E, A]`."""
    whole = np.zeros((len(rows), action_dim))
    for index in np.flatnonzero(given):
        row = np.asarray(rows[index])
        if row.shape != (action_dim,):
            raise fault(int(index), wrong_shape(row.shape, action_dim))
        whole[index] = row
    return whole


def wrong_shape(shape: tuple[int, ...], action_dim: int) -> str:
    """Return the message about a mask's actual and required shape."""
    return f"got an {KEY} of shape {shape}: needs ({action_dim},), one entry per action"


def refuse(wrong: NDArray[np.bool_], fault: Fault, text: str) -> None:
    """Raise an error for the first sub-environment `[E]` that is wrong, if any."""
    if wrong.any():
        raise fault(int(wrong.argmax()), text)
