"""Bonuses from counted visits (Strehl and Littman 2008; Bellemare et al. 2016, https://arxiv.org/abs/1606.01868)."""

from collections import Counter, OrderedDict
from collections.abc import Mapping

import numpy as np

from nexus.core.digests import DIGEST, Keys
from nexus.core.errors import RunError
from nexus.core.state import State, array_from, value_from
from nexus.core.types import Array, Ints, Steps

__all__ = ["Counts", "EpisodicCounts"]

BYTES_PER_STATE = 150  # in a dict of Python, roughly


class Counts:
    """β / √n for the n-th visit of a state in the whole run: of the next state of each step.

    Args:
        keys: which states count as the same.
        scale: β.
    """

    def __init__(self, keys: Keys, scale: float) -> None:
        self.keys, self.scale = keys, scale
        self.visits: Counter[bytes] = Counter()

    @property
    def nbytes(self) -> int:
        """Bytes used, roughly."""
        return BYTES_PER_STATE * len(self.visits)

    def enter(self, steps: Steps) -> None:
        """Count the next state of each step."""
        self.visits.update(self.keys(steps.next_states.numpy(force=True)))

    def of(self, steps: Steps) -> Array:
        """Return β / √n `[K]` with the visits so far of each next state."""
        visits = [max(self.visits[key], 1) for key in self.keys(steps.next_states.numpy(force=True))]
        return (self.scale / np.sqrt(visits)).astype(np.float32)

    def learn(self, steps: Steps) -> None:
        """Do nothing: counts follow from what was played, whatever is drawn."""

    def get_state(self, size: int) -> State:
        """Return the digests `[M, 16]` and the visits of each `[M]`."""
        return table_of(self.visits)

    def set_state(self, state: State, size: int) -> None:
        """Restore what `get_state` returned.

        Raises:
            RunError: something is missing or invalid.
        """
        self.visits = Counter(dict(pairs_from(state)))


class EpisodicCounts:
    """β / √n for the n-th visit of a state in its episode: of the next state of each step, when it was played.

    Args:
        keys: which states count as the same.
        scale: β.
        capacity: rows of the replay.
        num_envs: how many episodes are played at a time.
    """

    def __init__(self, keys: Keys, scale: float, capacity: int, num_envs: int) -> None:
        self.keys, self.scale, self.num_envs = keys, scale, num_envs
        self._bonuses = np.zeros(capacity, np.float32)
        self._episodes: OrderedDict[int, Counter[bytes]] = OrderedDict()  # of the last ones, the latest at the end

    @property
    def nbytes(self) -> int:
        """Bytes used, roughly."""
        return self._bonuses.nbytes + BYTES_PER_STATE * sum(map(len, self._episodes.values()))

    def enter(self, steps: Steps) -> None:
        """Count the next state of each step in its episode, and keep the bonus of its row."""
        keys = self.keys(steps.next_states.numpy(force=True))
        for row, episode, key in zip(steps.rows.tolist(), steps.episodes.tolist(), keys, strict=True):
            visits = self._episodes.setdefault(episode, Counter())
            self._episodes.move_to_end(episode)
            if len(self._episodes) > self.num_envs:  # every environment steps: the one not seen for longest has ended
                self._episodes.popitem(last=False)
            visits[key] += 1
            self._bonuses[row] = self.scale / np.sqrt(visits[key])

    def of(self, steps: Steps) -> Array:
        """Return the bonus `[K]` that each step had when it was played."""
        bonuses: Array = self._bonuses[steps.rows]
        return bonuses

    def learn(self, steps: Steps) -> None:
        """Do nothing: counts follow from what was played, whatever is drawn."""

    def get_state(self, size: int) -> State:
        """Return the bonuses of `size` rows, and the visits of the last episodes."""
        tables = [table_of(visits) for visits in self._episodes.values()]
        joined = {name: np.concatenate([one[name] for one in tables]) for name in tables[0]} if tables else table_of({})
        return {
            "bonuses": self._bonuses[:size].copy(),
            "episodes": np.array(list(self._episodes), np.int64),
            "states": np.array([len(visits) for visits in self._episodes.values()], np.int64),
            **joined,
        }

    def set_state(self, state: State, size: int) -> None:
        """Restore what `get_state` returned, for `size` rows.

        Raises:
            RunError: something is missing or invalid.
        """
        self._bonuses[:size] = array_from(state, "bonuses", self._bonuses[:size])
        numbers, counts = (value_from(state, name, np.ndarray) for name in ("episodes", "states"))
        visits = pairs_from(state)
        if len(numbers) != len(counts) or counts.sum() != len(visits) or (counts < 0).any():
            raise RunError(f"{len(visits)} counted states don't fit the episodes they are of")
        ends = np.cumsum(counts).tolist()
        self._episodes = OrderedDict(
            (number, Counter(dict(visits[end - count : end])))
            for number, count, end in zip(numbers.tolist(), counts.tolist(), ends, strict=True)
        )


def table_of(visits: Mapping[bytes, int]) -> State:
    """Return visits as arrays: the digests `[M, 16]` and the visits of each `[M]`."""
    return {
        "digests": np.frombuffer(b"".join(visits), np.uint8).reshape(-1, DIGEST).copy(),
        "visits": np.array(list(visits.values()), np.int64),
    }


def pairs_from(state: State) -> list[tuple[bytes, int]]:
    """Return the digests and visits that `table_of` made arrays of.

    Raises:
        RunError: something is missing or invalid.
    """
    visits: Ints = value_from(state, "visits", np.ndarray)
    visits = array_from(state, "visits", np.empty(visits.shape[:1], np.int64))
    digests = array_from(state, "digests", np.empty((len(visits), DIGEST), np.uint8))
    if (visits < 1).any():
        raise RunError(f"a state was visited {visits.min()} times: needs at least 1")
    return list(zip(map(bytes, digests), visits.tolist(), strict=True))
