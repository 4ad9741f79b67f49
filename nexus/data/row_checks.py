"""Validation of rows before they are written, whether they come from a caller or from a file."""

from collections.abc import Mapping
from dataclasses import fields

import numpy as np
from numpy.typing import DTypeLike

from nexus.core.errors import ConfigError, RunError
from nexus.core.state import State, below, part
from nexus.core.types import Array, Transitions

__all__ = [
    "COLUMN_DTYPES",
    "TRANSITION_COLUMNS",
    "columns_of",
    "extras_from",
    "extras_of",
    "require_capacity",
    "require_columns",
    "require_fitting_rows",
    "state_of_extras",
]

TRANSITION_COLUMNS = tuple(field.name for field in fields(Transitions) if field.name != "extras")
REQUIRED = frozenset({"states", "actions", "rewards", "discounts", "next_states"})
COLUMN_DTYPES: Mapping[str, DTypeLike] = {
    "actions": np.int64,
    "rewards": np.float32,
    "discounts": np.float32,
    "action_masks": np.bool_,
    "next_action_masks": np.bool_,
}  # states and extras keep their dtype
TAKEN = frozenset({*TRANSITION_COLUMNS, "extras", "weights", "indices", "dones", "returns"})  # names used by a batch
EXTRA_DTYPES = frozenset({"bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"})


def columns_of(rows: Transitions) -> dict[str, Array]:
    """Return all columns of transitions, by name."""
    given = {name: values for name in TRANSITION_COLUMNS if (values := getattr(rows, name)) is not None}
    return {**given, **rows.extras} if rows.extras else given


def extras_of(rows: Transitions) -> dict[str, Array]:
    """Return the extra columns of transitions, `[0, ...]` each."""
    return {name: np.empty((0, *values.shape[1:]), values.dtype.name) for name, values in (rows.extras or {}).items()}


def require_capacity(capacity: int) -> None:
    """Raise `ConfigError` unless there is room for a transition."""
    if capacity < 1:
        raise ConfigError(f"replay capacity = {capacity}: needs at least 1 transition")


def require_fitting_rows(rows: Transitions, stored: Mapping[str, Array], extras: Mapping[str, Array]) -> None:
    """Raise `ConfigError` unless rows match the stored columns, or each other if nothing is stored yet.

    Args:
        rows: the rows to write.
        stored: the columns, empty before the first row.
        extras: the extra columns among them.
    """
    states = stored.get("states", rows.states)
    if rows.states.shape[1:] != states.shape[1:]:
        raise ConfigError(f"this replay holds states of shape {states.shape[1:]}, got {rows.states.shape[1:]}")
    for given in (rows.states, rows.next_states):
        if given.dtype != states.dtype and not np.can_cast(given.dtype, states.dtype, "same_kind"):
            raise ConfigError(f"this replay holds states of dtype {states.dtype}, got {given.dtype}")
    require_masks(rows, stored.get("action_masks") if stored else rows.action_masks)
    if rows.extras or extras:
        require_extras(rows, extras if stored else None)


def require_masks(rows: Transitions, stored: Array | None) -> None:
    """Raise `ConfigError` unless rows have both masks, as long as those stored `[capacity, A]`, or neither."""
    if stored is None and rows.action_masks is None and rows.next_action_masks is None:
        return
    shape = None if stored is None else stored.shape[1:]
    for masks in (rows.action_masks, rows.next_action_masks):
        if masks is None or masks.shape[1:] != shape:
            got = "none" if masks is None else f"one of shape {masks.shape[1:]}"
            needs = "none, as before" if shape is None else f"shape {shape} for both states"
            raise ConfigError(f"action_masks: got {got}, this replay needs {needs}")


def require_extras(rows: Transitions, stored: Mapping[str, Array] | None) -> None:
    """Raise `ConfigError` unless rows have the stored extra columns, or valid ones if nothing is stored yet."""
    given = rows.extras or {}
    if stored is not None and given.keys() != stored.keys():
        got, needs = (", ".join(sorted(names)) or "none" for names in (given, stored))
        raise ConfigError(f"extras: got {got}, this replay needs {needs}")
    for name, values in given.items():
        if not is_free(name):
            raise ConfigError(f"extras: {name!r} can't be the name of a column: needs a word not used in batches")
        if values.dtype.name not in EXTRA_DTYPES:
            raise ConfigError(f"extras: {name} is {values.dtype}, which a replay can't store")
        like = values if stored is None else stored[name]
        if values.shape != (len(rows), *like.shape[1:]):
            raise ConfigError(f"extras: {name} has shape {values.shape}: needs {(len(rows), *like.shape[1:])}")
        if not np.can_cast(values.dtype, like.dtype, "same_kind"):
            raise ConfigError(f"extras: this replay holds {name} of dtype {like.dtype}, got {values.dtype}")


def is_free(name: str) -> bool:
    """True if an extra column may have this name."""
    return name.isidentifier() and not name.startswith("_") and name not in TAKEN


def state_of_extras(extras: Mapping[str, Array]) -> State:
    """Return the state of extra columns `[0, ...]`: the dtype and item shape of each."""
    return below("extras", {name: [like.dtype.name, *like.shape[1:]] for name, like in extras.items()})


def extras_from(state: State) -> dict[str, Array]:
    """Return extra columns `[0, ...]` as `state_of_extras` saved them.

    Raises:
        RunError: they are not valid columns.
    """
    extras = {}
    for name, entry in part(state, "extras").items():
        match entry:
            case [str(dtype), *shape] if dtype in EXTRA_DTYPES and is_free(name) and len(shape) < 32:
                if all(type(size) is int and 0 <= size < 2**31 for size in shape):
                    extras[name] = np.empty((0, *shape), dtype)
        if name not in extras:
            raise RunError(f"the state has an invalid extra column {name!r}")
    return extras


def require_columns(
    columns: Mapping[str, Array], stored: Mapping[str, Array], extras: Mapping[str, Array], capacity: int
) -> None:
    """Raise `RunError` unless columns read from a file match those stored, or each other if nothing is stored yet."""
    count = len(next(iter(columns.values()), ()))
    needed, known = (
        (stored.keys(), stored.keys()) if stored else (REQUIRED | extras.keys(), {*TRANSITION_COLUMNS, *extras})
    )
    if not needed <= columns.keys() <= known or count > capacity:
        needs = ", ".join(stored or [*TRANSITION_COLUMNS, *extras])
        raise RunError(f"the replay's columns {', '.join(columns)} do not fit: needs {needs}")
    like = stored or {**layout_of(columns), **extras}
    for name, values in columns.items():
        if values.shape != (count, *like[name].shape[1:]) or values.dtype != like[name].dtype:
            raise RunError(f"the replay's column {name} does not fit: {values.dtype} of shape {values.shape}")


def layout_of(columns: Mapping[str, Array]) -> dict[str, Array]:
    """Return the columns `[0, ...]`, except extras, of a replay whose first rows these are."""
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(TRANSITION_COLUMNS, ())
    shapes |= dict.fromkeys(("states", "next_states"), columns["states"].shape[1:])
    shapes |= dict.fromkeys(("action_masks", "next_action_masks"), columns.get("action_masks", np.empty(0)).shape[1:])
    return {
        name: np.empty((0, *shape), COLUMN_DTYPES.get(name, columns["states"].dtype)) for name, shape in shapes.items()
    }
