"""A schedule of the user's own: a function from the progress of a run to a number."""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple

from nexus.core.errors import ConfigError, one_line
from nexus.core.importable import import_object

__all__ = ["EPSILON", "FACTOR", "TEMPERATURE", "OwnSchedule"]

PROGRESS_POINTS = 1_000  # parts of a run, at whose ends a schedule is tried out before the run


class Range(NamedTuple):
    """What a schedule can return."""

    low: float
    high: float
    needs: str
    open: bool = False  # whether `low` itself is too low


EPSILON = Range(0.0, 1.0, "a probability in [0, 1]")
TEMPERATURE = Range(0.0, math.inf, "a temperature above 0", open=True)
FACTOR = Range(0.0, math.inf, "a factor for learning_rate, 0 or more")


class OwnSchedule:
    """A function from the progress of a run, 0 at the first step and 1 at the last, to a number.

    Args:
        setting: which names it.
        name: `module:Name` of it.
        total_steps: steps of the run.
        bounds: what it can return.

    Raises:
        ConfigError: it can't be imported, or can't be called.
    """

    def __init__(self, setting: str, name: str, total_steps: int, bounds: Range) -> None:
        self.setting, self.name = setting, name
        self.total_steps = total_steps
        self.bounds = bounds
        self.function: Callable[[float], Any] = import_object(name, setting)
        if not callable(self.function):
            kind = type(self.function).__name__
            raise ConfigError(f"{setting} {name!r} is a {kind}: needs a function from the progress of a run, 0 to 1")

    def at(self, steps: int) -> float:
        """Return its value after so many steps.

        Raises:
            ConfigError: it fails, or returns something else than such a number; names the step.
        """
        where = f"{self.setting} {self.name!r} at step {steps:,} of {self.total_steps:,}"
        progress = min(1.0, steps / self.total_steps)
        try:
            value = self.function(progress)
        except Exception as error:  # foreign code
            raise ConfigError(f"{where}, progress {progress:g}: {one_line(error)}") from error
        low, high, needs, is_open = self.bounds
        number = float(value) if not isinstance(value, bool) and isinstance(value, Real) else math.nan
        if not low <= number <= high or not math.isfinite(number) or (is_open and number == low):
            raise ConfigError(f"{where} returned {value!r}: needs {needs}")
        return number

    def try_out(self) -> None:
        """Raise `ConfigError` if it fails or is out of range at one of many steps, from the first to the last."""
        for part in range(PROGRESS_POINTS + 1):
            self.at(self.total_steps * part // PROGRESS_POINTS)
