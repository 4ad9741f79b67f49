"""Which rows of a storage are the steps of one episode, and in which order."""

from array import array

import numpy as np
from numpy.typing import NDArray

from nexus.core.types import Array, Ints
from nexus.data.protocols import Storage
from nexus.data.single_steps import EPISODE

__all__ = ["EpisodeIndex"]


class EpisodeIndex:
    """Finds the steps that follow a row, from the column `episodes` (see `SingleSteps`).

    It holds nothing that the rows don't say, so it is not saved: a restored storage is read once.
    """

    def __init__(self) -> None:
        self._seen = 0  # transitions indexed so far
        self._numbers: dict[int, array[int]] = {}  # the transitions of each episode, in order
        self._episode = np.empty(0, np.int64)  # [capacity], of each row
        self._place = np.empty(0, np.int64)  # [capacity], in its episode, from 0
        self._after = np.empty(0, np.int64)  # [capacity], the row of the next step, or -1

    def follow(self, storage: Storage) -> None:
        """Index the rows written since the last call."""
        added, capacity = storage.added, storage.capacity
        if not len(self._episode):
            self._episode, self._place, self._after = (np.full(capacity, -1) for _ in range(3))
        first = max(self._seen, added - capacity)
        rows = np.arange(first, added) % capacity
        for number, row, episode in zip(
            range(first, added), rows.tolist(), storage.columns[EPISODE][rows].tolist(), strict=True
        ):
            self._drop(row, number - capacity)
            numbers = self._numbers.setdefault(episode, array("q"))
            if numbers:
                self._after[numbers[-1] % capacity] = row
            self._episode[row], self._place[row], self._after[row] = episode, len(numbers), -1
            numbers.append(number)
        self._seen = added

    def _drop(self, row: int, number: int) -> None:
        """Forget the transition that was in a row, and its episode if that was its last one."""
        episode = int(self._episode[row])
        if episode >= 0 and self._numbers[episode][-1] == number:
            del self._numbers[episode]

    def ahead(self, rows: Ints, steps: int) -> Ints:
        """Return each row and those of the steps after it, `[B, steps]`; -1 where the episode has no more so far."""
        found = np.empty((len(rows), steps), np.int64)
        found[:, 0] = rows
        for place in range(1, steps):
            before = found[:, place - 1]
            found[:, place] = np.where(before < 0, -1, self._after[before])
        return found

    def later(self, rows: Ints, parts: NDArray[np.float64]) -> Ints:
        """Return a row of the same episode for each `[B]`: this one or a later one.

        Args:
            rows: `[B]`.
            parts: `[B]` in [0, 1), which of them: 0 is the row itself, just below 1 the last so far.
        """
        return self._chosen(rows, parts, self._place[rows])

    def any_of(self, rows: Ints, parts: NDArray[np.float64]) -> Ints:
        """Return a row of the same episode for each `[B]`, of all those still stored; see `later`."""
        oldest = self._seen - len(self._episode)
        first = [
            int(np.searchsorted(np.frombuffer(self._numbers[episode], np.int64), oldest))
            for episode in self._episode[rows].tolist()
        ]
        return self._chosen(rows, parts, np.array(first))

    def last(self, rows: Ints) -> Ints:
        """Return the row of the last step so far of each row's episode `[B]`."""
        return np.array([self._numbers[episode][-1] for episode in self._episode[rows].tolist()]) % len(self._episode)

    def _chosen(self, rows: Ints, parts: NDArray[np.float64], first: Ints) -> Ints:
        """Return a row of the same episode for each, from place `first` on."""
        episodes = [self._numbers[episode] for episode in self._episode[rows].tolist()]
        counts = np.array([len(numbers) for numbers in episodes]) - first
        places = first + (parts * counts).astype(np.int64)
        numbers = [numbers[place] for numbers, place in zip(episodes, places.tolist(), strict=True)]
        return np.array(numbers, np.int64) % len(self._episode)

    @property
    def nbytes(self) -> int:
        """Bytes used by the index, without Python's own."""
        arrays: tuple[Array, ...] = (self._episode, self._place, self._after)
        return sum(values.nbytes for values in arrays) + 8 * sum(map(len, self._numbers.values()))
