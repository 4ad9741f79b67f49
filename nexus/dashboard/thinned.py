"""A series of numbers in bounded memory, with its peaks."""

from collections.abc import Sequence

import numpy as np

from nexus.core.types import Floats
from nexus.reporting.reading import Logged

__all__ = ["MOST_KEPT", "Thinned"]

MOST_KEPT = 10_000  # values of a series; ten times as many as a chart draws


class Thinned:
    """A growing series. All its values are kept while they are few; of many, those that show it.

    A long series is divided into stretches of equal length, which double as it grows. Each keeps its first, lowest and
    highest value, and the first one that is not finite.
    """

    def __init__(self) -> None:
        self.stretch = 1
        self.count = 0
        self.gaps = 0
        self._kept = np.empty((3, 0))  # places in the series, steps, values
        self._new: list[tuple[Sequence[float], Sequence[float]]] = []
        self._pending = 0

    def extend(self, steps: Sequence[float], values: Sequence[float]) -> None:
        """Add values; nan for those that are not finite."""
        self._new.append((steps, values))
        self._pending += len(values)
        if self._pending + self._kept.shape[1] > MOST_KEPT:
            self.settle()

    def settle(self) -> None:
        """Put the new values behind the others, and thin all of them if they are too many."""
        for steps, values in self._new:
            places = np.arange(self.count, self.count + len(values), dtype=float)
            added = np.stack([places, np.asarray(steps, float), np.asarray(values, float)])
            self.count += len(values)
            self.gaps += int(np.isnan(added[2]).sum())
            self._kept = np.concatenate([self._kept, added], axis=1)
        self._new, self._pending = [], 0
        while self._kept.shape[1] > MOST_KEPT:
            self._kept = self._kept[:, shown_by(self._kept[0] // self.stretch, self._kept[2])]
            if self._kept.shape[1] > MOST_KEPT // 2:
                self.stretch *= 2

    def logged(self) -> Logged:
        """Return the values that are kept, in order, with the number of all."""
        self.settle()
        _, steps, values = self._kept
        return Logged(steps, values, self.count, self.gaps)

    def even(self) -> Logged:
        """Return the first value of each stretch and the last of all: a sample that prefers no value."""
        self.settle()
        places, steps, values = self._kept
        chosen = places % self.stretch == 0
        chosen[-1:] = True
        return Logged(steps[chosen], values[chosen], self.count, self.gaps)


def shown_by(stretches: Floats, values: Floats) -> Floats:
    """Return which values show a series, true or false for each.

    Args:
        stretches: the number of each value's stretch, ascending.
        values: nan for a gap.
    """
    starts = np.flatnonzero(np.diff(stretches, prepend=-1))
    lengths = np.diff(starts, append=len(values))
    gap = np.isnan(values)
    lowest = np.repeat(np.minimum.reduceat(np.where(gap, np.inf, values), starts), lengths)
    highest = np.repeat(np.maximum.reduceat(np.where(gap, -np.inf, values), starts), lengths)
    shown = np.zeros(len(values), bool)
    shown[starts] = shown[-1] = True
    for there in (values == lowest, values == highest, gap):
        places = np.flatnonzero(there)
        shown[places[np.unique(stretches[places], return_index=True)[1]]] = True
    return shown
