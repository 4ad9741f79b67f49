"""The rows of a saved replay as columns, and choosing among them."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nexus.api import config_of
from nexus.core.errors import ConfigError, RunError
from nexus.core.types import Array, Flags, Ints
from nexus.data.prioritized_replay_buffer import PRIORITY_OFFSET
from nexus.inspection.saved_replay import SavedReplay, saved_replay
from nexus.listener import Listener
from nexus.training.config import TrainConfig
from nexus.training.edited import read_run_or_copy

__all__ = ["Condition", "ReplayRows", "conditions_of", "rows_of_run"]

COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}  # longer ones first, since the shorter are their beginnings


@dataclass(frozen=True)
class Condition:
    """A comparison of a column with a number."""

    column: str
    comparison: str
    number: float

    def holds(self, values: Array) -> Flags:
        """Return where values `[K]` fulfil it; both are compared in the dtype of the column if that is a float."""
        number = values.dtype.type(self.number) if values.dtype.kind == "f" else self.number
        held: Flags = COMPARISONS[self.comparison](values, number)
        return held

    def __str__(self) -> str:
        return f"{self.column} {self.comparison} {self.number:g}"


def conditions_of(column: str, text: str) -> list[Condition]:
    """Return the conditions in a text such as `>0`, `0.5` or `>=10,<1000`, all of which must hold.

    Raises:
        ConfigError: it is none.
    """
    found = []
    for part in text.split(","):
        word = part.strip()
        comparison = next((sign for sign in COMPARISONS if word.startswith(sign)), "")
        try:
            number = float(word.removeprefix(comparison))
        except ValueError:
            number = float("nan")
        if number != number:
            raise ConfigError(f"{column} = {text!r}: needs a comparison with a number, as in '>0' or '>=10,<1000'")
        found.append(Condition(column, comparison or "=", number))
    return found


@dataclass(frozen=True)
class ReplayRows:
    """The transitions of a saved replay, oldest first.

    Args:
        run: the run's folder.
        about: its `run.json`.
        config: its settings.
        saved: its replay.

    Raises:
        RunError: the replay is empty.
    """

    run: Path
    about: Mapping[str, Any]
    config: TrainConfig
    saved: SavedReplay

    def __post_init__(self) -> None:
        if not len(self.saved.replay):
            raise RunError(f"the replay was still empty at step {self.saved.steps}, that of the newest checkpoint")

    @cached_property
    def numbers(self) -> Ints:
        """`[K]`, how many transitions the run had stored before each."""
        return self.saved.numbers

    @cached_property
    def columns(self) -> Mapping[str, Array]:
        """One number per transition by name: `[K]` each; `priority` only of a prioritized replay."""
        replay = self.saved.replay
        at = self.numbers % replay.capacity
        stored = {name: replay.storage.columns[f"{name}s"][at] for name in ("action", "reward", "discount")}
        columns = {"row": self.numbers, "age": replay.added - 1 - self.numbers, **stored}
        return columns if self.priorities is None else {**columns, "priority": self.priorities[at]}

    @cached_property
    def priorities(self) -> Array | None:
        """`[K]`, the priority of each place in the replay; None without priorities.

        A checkpoint has `(priority + ε)^α`, from which α = 0 leaves nothing to tell.
        """
        scaled, exponent = self.saved.state.get("replay.leaves"), self.config.priority_exponent
        if not isinstance(scaled, np.ndarray) or exponent == 0:
            return None
        priorities: Array = np.maximum(scaled ** (1 / exponent) - PRIORITY_OFFSET, 0)
        return priorities

    @property
    def are_packed(self) -> bool:
        """Whether states are packed from the parts of a Dict or Tuple, as bytes."""
        return bool(self.about["agent"].get("state_parts"))

    def where(self, conditions: Sequence[Condition], only_terminal: bool = False) -> Ints:
        """Return the places `[M]` in the columns of the transitions that fulfil all conditions.

        Raises:
            ConfigError: there is no such column, or terminal transitions can't be told from others.
        """
        held = np.ones(len(self.numbers), bool)
        for condition in conditions:
            if condition.column not in self.columns:
                why = "priority_exponent = 0 makes all the same" if self.config.prioritized else "prioritized = False"
                raise ConfigError(f"{condition.column}: the replay of this run has none, since {why}")
            held &= condition.holds(self.columns[condition.column])
        if only_terminal:
            if self.config.gamma == 0:
                raise ConfigError("terminal: with gamma = 0 terminal transitions look like all others")
            held &= self.columns["discount"] == 0
        return np.flatnonzero(held)

    def place_of(self, number: int) -> int:
        """Return the place in the columns of a transition's number.

        Raises:
            ConfigError: the replay does not hold it.
        """
        first, last = int(self.numbers[0]), int(self.numbers[-1])
        if not first <= number <= last:
            raise ConfigError(f"row = {number}: the replay of step {self.saved.steps} holds rows {first} to {last}")
        return number - first

    def batch_at(self, places: Ints) -> dict[str, Tensor]:
        """Return the transitions at places `[M]` of the columns as a batch, states unpacked."""
        at = self.numbers[places] % self.saved.replay.capacity
        return self.saved.replay.gather(torch.from_numpy(at), torch.ones(len(at)))


def rows_of_run(run: Path, listener: Listener) -> ReplayRows:
    """Return the transitions of the newest checkpoint of a run.

    Args:
        run: the run's folder.
        listener: called with notices.

    Raises:
        RunError: the folder is not a run, its files are damaged, or no replay was saved.
    """
    about = read_run_or_copy(run, listener.on_notice)
    config = config_of(about, run)
    try:
        return ReplayRows(run, about, config, saved_replay(run, about, config))
    except RunError as error:
        raise RunError(f"{run}: {error}") from None
