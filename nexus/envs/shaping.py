"""Potential-based shaping: rewards on the way to the goal that leave the best policies what they are.

Ng, Harada and Russell 1999, "Policy invariance under reward transformations".
"""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np
from gymnasium import spaces

from nexus.core.errors import ConfigError, one_line
from nexus.core.importable import import_object
from nexus.core.types import Array, Flags
from nexus.envs.packing import packed_in
from nexus.envs.stream import Step

__all__ = ["Potential"]


class Potential:
    """Adds γ Φ(s') - Φ(s) to the rewards that are learned from, with Φ = 0 in terminal states.

    Over an episode these bonuses add up to -Φ(s₀), whatever is done in between, so no other policy becomes the best. A
    truncated episode keeps Φ(s'), as it keeps its bootstrap.

    Args:
        name: `module:Name` of Φ, a function from a state to a number, higher nearer the goal. It gets one state as the
            agent sees it, `[*obs]`; of a Dict or Tuple, its parts in a dict or tuple.
        gamma: γ.
        space: the space of a state.

    Raises:
        ConfigError: Φ can't be imported or called.
    """

    def __init__(self, name: str, gamma: float, space: spaces.Space[Any]) -> None:
        self.name, self.gamma = name, gamma
        self.function: Callable[[Any], Any] = import_object(name, "potential")
        if not callable(self.function):
            kind = type(self.function).__name__
            raise ConfigError(f"potential {name!r} is a {kind}: needs a function from a state to a number")
        packed = packed_in(space)
        self.layout = None if packed is None else packed.layout
        self._next: Array | None = None  # [E], Φ of the last step's next states, nan where it is not the next Φ(s)

    def __call__(self, step: Step) -> Array:
        """Return the bonus `[E]` of each transition of a step; 0 where an environment only reset.

        Raises:
            ConfigError: Φ raises an error, or returns something else than a finite number.
        """
        before = np.full(len(step.valid), np.nan) if self._next is None else self._next.copy()
        before[step.begins] = np.nan
        unknown = np.isnan(before)
        before[unknown] = self._of(step.states, unknown)
        goes_on = step.valid & ~step.terminal
        after = np.zeros(len(before))
        after[goes_on] = self._of(step.next_states, goes_on)
        # A lost life ends the learning episode only: the next step begins in a state with a potential.
        self._next = np.where(goes_on, after, np.nan)
        return np.where(step.valid, self.gamma * after - before, 0.0)

    def _of(self, states: Array, which: Flags) -> list[float]:
        """Return Φ of some states of `[E, *obs]`."""
        return [self._number(states[place]) for place in np.flatnonzero(which)]

    def _seen(self, state: Array) -> Any:
        """Return a state as the function gets it: a packed one in its parts."""
        return state if self.layout is None else self.layout.observation(state)

    def _number(self, state: Array) -> float:
        try:
            value = self.function(self._seen(state))
        except Exception as error:  # foreign code
            raise ConfigError(f"potential {self.name!r}: {one_line(error)}, at state {short(state)}") from error
        number = float(value) if isinstance(value, Real | np.ndarray) and np.size(value) == 1 else math.nan  # type: ignore[arg-type]
        if not math.isfinite(number):
            raise ConfigError(f"potential {self.name!r} returned {value!r} at state {short(state)}: needs a number")
        return number


def short(state: Array) -> str:
    """Return a state in a few words."""
    return np.array2string(state, precision=4, threshold=8, edgeitems=3, separator=", ").replace("\n", "")
