"""The numbers of a run over its steps, as logged: what the checks read, during a run and after it."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nexus.core.types import Floats
from nexus.training.config import TrainConfig

__all__ = ["Chart"]


@dataclass
class Chart:
    """Series of numbers by name, each with the steps at which they were logged.

    Args:
        config: the run's settings.
    """

    config: TrainConfig
    _series: dict[str, tuple[list[int], list[float]]] = field(default_factory=dict)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add a line of scalars; numbers that are not finite are left out."""
        for name, value in values.items():
            if np.isfinite(value):
                steps, numbers = self._series.setdefault(name, ([], []))
                steps.append(step)
                numbers.append(float(value))

    def extend(self, name: str, steps: Floats, values: Floats) -> None:
        """Add many values of one number, `[K]`; those that are not finite are left out."""
        known = np.isfinite(values)
        if known.any():
            logged, numbers = self._series.setdefault(name, ([], []))
            logged += steps[known].astype(np.int64).tolist()
            numbers += values[known].tolist()

    def steps(self, name: str) -> NDArray[np.int64]:
        """Return the steps at which a number was logged."""
        return np.array(self._series.get(name, ([], []))[0], np.int64)

    def series(self, name: str) -> Floats:
        """Return all values of a number, in order; empty if it was never logged."""
        return np.array(self._series.get(name, ([], []))[1], np.float64)

    def last(self, name: str, default: float = np.nan) -> float:
        """Return the last value of a number."""
        values = self._series.get(name, ([], []))[1]
        return values[-1] if values else default

    def tail(self, name: str, count: int) -> Floats:
        """Return the last values of a number, at most `count`."""
        return self.series(name)[-count:]

    def holds(self, name: str, least: int = 1) -> bool:
        """True if a number was logged at least so often."""
        return len(self._series.get(name, ([], []))[1]) >= least

    @property
    def examined(self) -> tuple[int, ...]:
        """The steps at which a doctor examined the run."""
        return tuple(map(int, self.steps("doctor/q_abs_max")))

    def until(self, step: int) -> "Chart":
        """Return the chart as it was at a step."""
        counts = {name: bisect_right(steps, step) for name, (steps, _) in self._series.items()}
        until = {
            name: (steps[: counts[name]], values[: counts[name]]) for name, (steps, values) in self._series.items()
        }
        return Chart(self.config, {name: series for name, series in until.items() if series[0]})

    @property
    def step(self) -> int:
        """The last step logged."""
        return max((steps[-1] for steps, _ in self._series.values()), default=0)

    @property
    def progress(self) -> float:
        """The fraction of the run's steps that it covers."""
        return min(1.0, self.step / self.config.total_steps)

    def to_mapping(self) -> dict[str, list[list[float]]]:
        """Return plain values for JSON: by name the steps and the values."""
        return {name: [list(steps), list(values)] for name, (steps, values) in self._series.items()}

    def restore(self, values: Mapping[str, Sequence[Sequence[float]]]) -> None:
        """Take over what `to_mapping` returned."""
        self._series = {name: ([int(step) for step in steps], list(given)) for name, (steps, given) in values.items()}
